"""The last rows of each endpoint, held against a new model."""

import math

import numpy as np
import pytest
from experience_rows import learnable

from picker.learning.model import Model
from picker.learning.recent import ROWS, Recent
from picker.learning.training import train


@pytest.fixture(scope="module")
def model() -> Model:
    made = train(learnable(300), 1)
    assert made is not None
    return made


def test_an_endpoint_that_is_twice_as_slow_is_known_at_once_whatever_was_trained_on(model: Model) -> None:
    recent, rows = Recent(), learnable(40, start=1000)
    for i in range(40):
        row = rows[i : i + 1].copy()
        row["ttft_ms"] *= 1 + i % 2
        recent.remember(i % 2, row)
    corrections = dict(recent.corrections(model))
    assert corrections[1].log_ttft - corrections[0].log_ttft == pytest.approx(math.log(2), abs=0.2)
    assert corrections[0].rows == ROWS


def test_what_is_written_into_a_row_later_counts(model: Model) -> None:
    recent, row = Recent(), learnable(1)
    row["tpot_ms"] = np.nan
    recent.remember(3, row)
    assert math.isnan(dict(recent.corrections(model))[3].log_tpot)
    row["tpot_ms"] = 20.0
    assert math.isfinite(dict(recent.corrections(model))[3].log_tpot)


def test_a_slot_that_was_cleared_has_no_rows(model: Model) -> None:
    recent = Recent()
    recent.remember(0, learnable(1))
    recent.clear(0)
    assert dict(recent.corrections(model)) == {}
