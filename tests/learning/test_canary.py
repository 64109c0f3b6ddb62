"""When a few picks left to the other one tell who is better."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.learning.canary import Canary, Moments
from picker.learning.experience import BY_MODEL, BY_RULE

SHARE = 0.05
EACH = {BY_RULE: 1 / SHARE, BY_MODEL: 1 / (1 - SHARE)}


def canary(fewest_rows: float = 30.0) -> Canary:
    return Canary(z=3.25, margin=0.05, fewest_rows=fewest_rows, window_s=600.0, window_rows=10_000.0)


def trip(arms: Canary, seed: int, rows: int, model_worse_by: float, start_s: float = 0.0) -> int | None:
    """Row, at 20 a second, after which the verdict changed; heavy tails, and slow shocks that both arms share."""
    rng = np.random.default_rng(seed)
    noise, steps, draws = rng.standard_t(3, rows) * 0.35, rng.normal(0, 0.03, rows), rng.random(rows)
    shock = 0.0
    for i in range(rows):
        shock = 0.995 * shock + steps[i]
        by = BY_RULE if draws[i] < SHARE else BY_MODEL
        if arms.observe(by, noise[i] + shock + model_worse_by * by, EACH[by], start_s + i / 20):
            arms.restart()
            return i
    return None


@pytest.mark.parametrize("seed", range(3))
def test_arms_that_are_alike_stay_so_for_20_000_rows(seed: int) -> None:
    assert trip(canary(), seed, 20_000, 0.0) is None


@pytest.mark.parametrize("seed", range(5))
def test_a_better_model_is_never_accused(seed: int) -> None:
    assert trip(canary(), seed, 5000, -0.2) is None


@pytest.mark.parametrize(("worse", "rows"), [(math.log(1.2), 10_000), (math.log(2), 1500)])
def test_a_worse_model_is_found_out(worse: float, rows: int) -> None:
    assert all(trip(canary(), seed, rows, worse) is not None for seed in range(5))


def test_no_verdict_without_rows_enough_of_both() -> None:
    arms = canary()
    for i in range(29):
        arms.observe(BY_RULE, 0.0, 20.0, float(i))
        arms.observe(BY_MODEL, 1.5, 1.0, float(i))
    assert not arms.tripped
    assert not arms.enough


def test_the_way_back_asks_for_fresh_rows_and_no_loss() -> None:
    arms = canary()
    assert trip(arms, 0, 5000, 0.7) is not None
    assert arms.rows == (0.0, 0.0)
    assert trip(arms, 1, 5000, 0.3, start_s=300.0) is None
    assert trip(arms, 2, 5000, -0.3, start_s=600.0) is not None
    assert not arms.tripped


def test_the_model_may_cost_its_own_requests_a_little() -> None:
    arms = canary()
    for i in range(2000):
        arms.observe(BY_RULE, 0.1 * (-1) ** i, 1.0, i / 20)
        arms.observe(BY_MODEL, 0.1 * (-1) ** i + 0.04, 1.0, i / 20)
        assert not arms.tripped


def test_no_loss_that_chance_could_hide_is_no_way_back() -> None:
    arms = canary()
    assert trip(arms, 0, 5000, 0.7) is not None
    for i in range(100):
        arms.observe(BY_RULE, (-1) ** i, 1.0, 300 + i)
        arms.observe(BY_MODEL, (-1) ** i, 1.0, 300 + i)
    assert arms.tripped
    assert arms.difference == pytest.approx(0.0, abs=0.02)


def test_what_shakes_the_whole_pool_shakes_both_arms() -> None:
    """The rule has more of its picks in a bad minute; their weights say so."""
    arms, rng = canary(), np.random.default_rng(0)
    for i in range(12_000):
        bad = i // 1200 % 2
        share = 0.2 if bad else 0.05
        by = BY_RULE if rng.random() < share else BY_MODEL
        arms.observe(by, 0.6 * bad + rng.normal(0, 0.3), 1 / share if by == BY_RULE else 1 / (1 - share), i / 20)
    assert abs(arms.difference) < 0.08


def test_old_rows_are_forgotten() -> None:
    arms = canary()
    for i in range(200):
        arms.observe(BY_RULE, 1.0, 1.0, i / 20)
        arms.observe(BY_MODEL, 0.0, 1.0, i / 20)
    for i in range(200):
        arms.observe(BY_RULE, 0.0, 1.0, 3600 + i / 20)
        arms.observe(BY_MODEL, 0.0, 1.0, 3600 + i / 20)
    assert arms.difference == pytest.approx(0.0, abs=0.01)


@given(
    st.lists(st.tuples(st.sampled_from((BY_RULE, BY_MODEL)), st.floats(), st.floats(), st.floats(0, 1e6)), max_size=40)
)
def test_numbers_stay_numbers_whatever_comes(rows: list[tuple[int, float, float, float]]) -> None:
    arms = canary(fewest_rows=2.0)
    for by, beyond, weight, now in rows:
        arms.observe(by, beyond, weight, now)
        assert math.isfinite(arms.z)
        assert math.isfinite(arms.difference)


@given(st.lists(st.tuples(st.floats(-2, 2), st.integers(1, 5)), min_size=2, max_size=30))
def test_a_weight_of_three_is_three_rows_of_one(rows: list[tuple[float, int]]) -> None:
    weighted, repeated = Moments(), Moments()
    for value, weight in rows:
        weighted.add(value, weight)
        for _ in range(weight):
            repeated.add(value)
    assert weighted.mean == pytest.approx(repeated.mean, abs=1e-9)
    assert weighted.scatter == pytest.approx(repeated.scatter, abs=1e-9)
    assert weighted.rows <= repeated.rows + 1e-9
