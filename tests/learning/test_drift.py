"""When an endpoint is said to have become another one."""

import math

import numpy as np
import pytest

from picker.learning.drift import Drift

SPREAD = 0.3


def residuals(seed: int, rows: int, spread: float = SPREAD) -> list[float]:
    """Heavy-tailed: Student's t with 3 degrees of freedom."""
    quiet = np.random.default_rng(seed).standard_t(3, rows) * spread / math.sqrt(3)
    return [float(residual) for residual in quiet]


def alarms(drift: Drift, stream: list[float], slot: int = 0) -> list[int]:
    """Positions in the stream at which the slot is said to have drifted."""
    return [i for i, residual in enumerate(stream) if drift.observe(slot, residual)]


@pytest.mark.parametrize("shift", [0.4, -0.4, math.log(2)])
def test_a_shift_is_noticed_within_two_dozen_rows_of_the_endpoint(shift: float) -> None:
    delays = []
    for seed in range(20):
        drift = Drift()
        alarms(drift, residuals(seed, 200))
        delays.append(alarms(drift, [shift + residual for residual in residuals(100 + seed, 200)])[0])
    assert np.median(delays) <= 15
    assert np.quantile(delays, 0.9) <= 24


@pytest.mark.parametrize("spread", [0.1, 0.3, 0.6])
def test_an_endpoint_that_stays_the_same_is_hardly_ever_accused(spread: float) -> None:
    drift = Drift()
    count = sum(len(alarms(drift, residuals(seed, 5000, spread), slot=seed)) for seed in range(4))
    assert count <= 8


def test_an_endpoint_is_judged_against_itself() -> None:
    drift = Drift()
    assert not alarms(drift, [1.0 + residual for residual in residuals(1, 300)], slot=0)
    assert not alarms(drift, residuals(2, 300), slot=1)


def test_drifted_endpoints_wait_to_be_read() -> None:
    drift = Drift()
    alarms(drift, residuals(3, 100), slot=7)
    assert drift.drifted == set()
    alarms(drift, [1.0] * 20, slot=7)
    assert drift.drifted == {7}


def test_the_new_level_is_the_normal_one_after_a_drift() -> None:
    drift = Drift()
    alarms(drift, residuals(4, 100))
    assert len(alarms(drift, [1.0 + residual for residual in residuals(5, 500)])) == 1


def test_the_next_owner_of_a_slot_has_no_past() -> None:
    drift = Drift()
    alarms(drift, [*residuals(6, 100), *[1.0] * 20])
    drift.clear(0)
    assert drift.drifted == set()
    assert not alarms(drift, [1.0 + residual for residual in residuals(7, 100)])


def test_numbers_that_are_none_are_no_rows() -> None:
    drift = Drift()
    assert not any(drift.observe(0, residual) for residual in [math.nan, math.inf, -math.inf] * 50)
    assert not any(drift.observe(-1, residual) for residual in [0.0] * 50 + [1.0] * 50)
