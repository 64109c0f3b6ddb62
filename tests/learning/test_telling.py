"""What a replica learns of another one's picks: what happened, with the numbers that its own endpoints have."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.engines.table import MAX_HARDWARE
from picker.learning.experience import BY_MODEL, EXPERIENCE, Experience, sane
from picker.learning.features import LOADS
from picker.learning.telling import LARGEST, MOST_ROWS, OLDEST_S, heard, told

ENDPOINTS, HARDWARE = np.array([7, 8, 9]), np.array([0, 1, 2])


def rows(count: int = 3, at_s: float = 90.0) -> Experience:
    made = np.zeros(count, EXPERIENCE)
    made["at_s"], made["endpoint"], made["hardware"], made["by"] = at_s, 1, 5, BY_MODEL
    made["propensity"], made["ttft_ms"], made["tpot_ms"], made["output_tokens"] = 0.5, 120.0, 9.0, 64.0
    made["ttft_terms"] = made["tpot_terms"] = 1.5
    made["features"] = 2.5
    return made


def test_a_row_arrives_with_the_endpoint_the_class_and_the_clock_of_who_hears_it() -> None:
    (row, *_) = ours = heard(told(rows(), now=100.0), ENDPOINTS, HARDWARE, now=5000.0)
    assert ours["endpoint"].tolist() == [7, 8, 9]
    assert ours["hardware"].tolist() == [0, 1, 2]
    assert ours["at_s"].tolist() == [4990.0] * 3
    assert (row["ttft_ms"], row["tpot_ms"], row["output_tokens"]) == (120.0, 9.0, 64.0)
    assert ours["features"][:, : len(LOADS)].tolist() == [[2.5] * len(LOADS)] * 3
    assert ours["features"][:, len(LOADS) :].tolist() == np.eye(MAX_HARDWARE)[:3].tolist()


def test_what_its_sender_calls_its_endpoint_stays_at_home() -> None:
    one, other = rows(), rows()
    other["endpoint"], other["hardware"] = 12345, 7
    assert told(one, 100.0) == told(other, 100.0)


def test_rows_of_endpoints_that_are_not_here_are_left_out() -> None:
    assert heard(told(rows(), 100.0), np.array([-1, 8, -1]), HARDWARE, 100.0)["endpoint"].tolist() == [8]


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("at_s", 100.0 - OLDEST_S - 1),
        ("at_s", 101.0),
        ("at_s", np.nan),
        ("by", BY_MODEL + 1),
        ("propensity", 0.0),
        ("propensity", np.nan),
        ("ttft_ms", -1.0),
        ("ttft_ms", np.inf),
        ("tpot_ms", 0.0),
        ("output_tokens", -1.0),
        ("output_tokens", np.nan),
        ("head_ms", -1.0),
        ("ttft_terms", -1.0),
        ("tpot_terms", 2 * LARGEST),
        ("features", np.nan),
        ("features", -2 * LARGEST),
    ],
)
def test_a_row_that_cannot_be_is_left_out(field: str, wrong: float) -> None:
    said = rows()
    said[field][1] = wrong
    assert heard(told(said, 100.0), ENDPOINTS, HARDWARE, 100.0)["endpoint"].tolist() == [7, 9]


@pytest.mark.parametrize("data", [b"", b"x", told(rows(2), 100.0), told(rows(), 100.0) + b"x"])
def test_bytes_that_are_not_as_many_rows_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="are not 3 rows"):
        heard(data, ENDPOINTS, HARDWARE, 100.0)


def test_a_batch_is_bounded() -> None:
    many = MOST_ROWS + 1
    with pytest.raises(ValueError, match="are not"):
        heard(told(rows(many), 100.0), np.zeros(many, np.int64), np.zeros(many, np.int64), 100.0)


@given(st.binary(min_size=3 * EXPERIENCE.itemsize, max_size=3 * EXPERIENCE.itemsize))
def test_of_any_bytes_only_what_can_be_learned_from_comes_through(data: bytes) -> None:
    assert sane(heard(data, ENDPOINTS, HARDWARE, 100.0)).all()
