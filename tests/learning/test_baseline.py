"""What can be expected of a request without a model."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.learning.baseline import AT_PICK, BEFORE_PICK, Baseline, at_pick, before_pick
from picker.policies.example import example_request, example_rows

TRUTH = np.array([2.0, 0.7, 0.3])


def taught(rows: int, truth: np.ndarray = TRUTH, seed: int = 0, baseline: Baseline | None = None) -> Baseline:
    rng = np.random.default_rng(seed)
    baseline = baseline or Baseline(AT_PICK)
    for _ in range(rows):
        x = at_pick(rng.uniform(0, 30_000), int(rng.integers(0, 30)))
        baseline.learn(x, float(truth @ x) + rng.normal(0, 0.2))
    return baseline


def test_it_expects_nothing_before_the_first_row() -> None:
    assert Baseline(AT_PICK).predict(at_pick(1000, 4)) == 0.0


def test_it_finds_what_new_tokens_and_batch_cost() -> None:
    assert taught(300).predict(at_pick(1000, 4)) == pytest.approx(float(TRUTH @ at_pick(1000, 4)), abs=0.1)


def test_it_follows_a_pool_that_changes() -> None:
    slower = TRUTH + np.array([0.7, 0.0, 0.0])
    baseline = taught(4000, slower, baseline=taught(4000))
    assert baseline.predict(at_pick(1000, 4)) == pytest.approx(float(slower @ at_pick(1000, 4)), abs=0.1)


def test_traffic_that_stops_varying_spoils_nothing() -> None:
    baseline = taught(300, baseline=Baseline(AT_PICK, memory_rows=20.0))
    for _ in range(20_000):
        baseline.learn(at_pick(500, 2), float(TRUTH @ at_pick(500, 2)))
    assert baseline.predict(at_pick(500, 2)) == pytest.approx(float(TRUTH @ at_pick(500, 2)), abs=0.01)
    seen, other = np.array(at_pick(500, 2)), np.array(at_pick(30_000, 30))
    smallest = float(TRUTH @ seen) * seen / (seen @ seen)
    assert baseline.predict(at_pick(30_000, 30)) == pytest.approx(float(smallest @ other), rel=0.05)


@given(st.lists(st.tuples(st.floats(), st.floats(), st.floats(-20, 20) | st.just(math.nan)), max_size=30))
def test_no_row_makes_it_say_what_is_no_number(rows: list[tuple[float, float, float]]) -> None:
    baseline = Baseline(AT_PICK)
    for new_tokens, batch, log_ttft in rows:
        baseline.learn(at_pick(new_tokens, batch), log_ttft)
    assert math.isfinite(baseline.predict(at_pick(1000, 4)))


def test_what_is_known_before_the_pick_does_not_tell_who_picks_what() -> None:
    request = example_request(prompt_tokens=1600)
    rows = example_rows(request, hit_tokens=[0, 1600], queued_tokens=[0, 9000])
    swapped = example_rows(request, hit_tokens=[1600, 0], queued_tokens=[9000, 0])
    known = before_pick(1600, rows)
    assert len(known) == BEFORE_PICK
    assert known == before_pick(1600, swapped)


@pytest.mark.parametrize(("size", "memory_rows"), [(0, 100.0), (3, 1.0), (3, math.nan)])
def test_a_baseline_of_nothing_is_refused(size: int, memory_rows: float) -> None:
    with pytest.raises(ValueError, match="size"):
        Baseline(size, memory_rows=memory_rows)
