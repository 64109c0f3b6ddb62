"""When queues are said to grow everywhere."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from picker.learning.saturation import Saturation

PREFILL_MS = 80.0


def watch() -> Saturation:
    return Saturation(look_back_s=10.0, prefills=4.0)


def waits(prefills: float, endpoints: int = 8) -> NDArray[np.float64]:
    return np.full(endpoints, prefills * PREFILL_MS)


def served(load: float, seconds: int, seed: int = 0, engines: int = 8) -> Saturation:
    """Poisson arrivals at `load` of what the engines can do, each to the shortest queue, of exponential work."""
    rng, saturation = np.random.default_rng(seed), watch()
    work = np.zeros(engines)
    for second in range(seconds):
        for _ in range(rng.poisson(load * engines / (PREFILL_MS / 1e3))):
            work = np.maximum(0.0, work - PREFILL_MS / engines / load)
            work[work.argmin()] += rng.exponential(PREFILL_MS)
        saturation.look(float(second), work, PREFILL_MS)
        if saturation.tripped:
            break
    return saturation


def flooded() -> Saturation:
    saturation = watch()
    for second in range(15):
        saturation.look(float(second), waits(float(second)), PREFILL_MS)
    return saturation


@pytest.mark.parametrize("prefill_ms", [5.0, 80.0, 4000.0])
def test_waits_that_grow_at_every_endpoint_trip_it_whatever_a_prefill_takes(prefill_ms: float) -> None:
    saturation = watch()
    for second in range(15):
        saturation.look(float(second), np.full(8, second * prefill_ms), prefill_ms)
    assert saturation.tripped


def test_long_waits_that_do_not_grow_are_a_busy_pool() -> None:
    saturation, rng = watch(), np.random.default_rng(0)
    for second in range(2000):
        saturation.look(float(second), waits(5.0) * rng.uniform(0.8, 1.2), PREFILL_MS)
        assert not saturation.tripped


@pytest.mark.parametrize("load", [0.5, 0.9])
def test_a_pool_that_keeps_up_never_trips_it(load: float) -> None:
    assert not served(load, seconds=300).tripped


def test_a_pool_that_falls_behind_by_a_fifth_trips_it_within_a_minute() -> None:
    assert all(served(1.2, seconds=60, seed=seed).tripped for seed in range(5))


def test_a_flood_that_rises_slowly_is_one_too() -> None:
    saturation = watch()
    for second in range(600):
        saturation.look(float(second), waits(0.05 * second), PREFILL_MS)
    assert saturation.tripped


def test_a_step_to_longer_waits_is_no_growth() -> None:
    saturation = watch()
    for second in range(30):
        saturation.look(float(second), waits(1.0 if second < 15 else 6.0), PREFILL_MS)
        assert not saturation.tripped


def test_looks_may_come_more_often_than_needed() -> None:
    saturation = watch()
    for tenth in range(150):
        saturation.look(tenth / 10, waits(tenth / 10), PREFILL_MS)
    assert saturation.tripped


def test_what_was_before_a_pause_is_no_part_of_a_trend() -> None:
    saturation = watch()
    for second in (0, 1, 2, 3, 4, 100, 101):
        saturation.look(float(second), waits(float(second)), PREFILL_MS)
    assert not saturation.tripped


def test_waits_that_grow_but_stay_short_are_a_morning() -> None:
    saturation = watch()
    for second in range(30):
        saturation.look(float(second), waits(second / 10), PREFILL_MS)
    assert not saturation.tripped


def test_some_endpoints_with_room_are_a_pool_with_room() -> None:
    saturation = watch()
    for second in range(30):
        queued = waits(float(second))
        queued[:3] = 0.0
        saturation.look(float(second), queued, PREFILL_MS)
    assert not saturation.tripped


def test_a_single_idle_newcomer_does_not_hide_a_full_pool() -> None:
    saturation = watch()
    for second in range(15):
        queued = waits(float(second))
        queued[0] = 0.0
        saturation.look(float(second), queued, PREFILL_MS)
    assert saturation.tripped


def test_it_ends_when_waits_have_been_short_for_as_long() -> None:
    saturation = flooded()
    for second in range(15, 24):
        saturation.look(float(second), waits(1.0), PREFILL_MS)
        assert saturation.tripped
    for second in range(24, 27):
        saturation.look(float(second), waits(1.0), PREFILL_MS)
    assert not saturation.tripped


def test_it_goes_on_while_waits_stay_long_without_growing() -> None:
    saturation = flooded()
    for second in range(15, 60):
        saturation.look(float(second), waits(6.0), PREFILL_MS)
    assert saturation.tripped


def test_hasty_looks_make_no_trend() -> None:
    saturation = watch()
    for millisecond in range(3000):
        saturation.look(millisecond / 1e3, waits(millisecond / 50), PREFILL_MS)
    assert not saturation.tripped


def test_looks_at_nothing_are_none() -> None:
    saturation = watch()
    for second in range(30):
        saturation.look(float(second), np.empty(0), PREFILL_MS)
        saturation.look(float(second), np.full(4, math.nan), PREFILL_MS)
        saturation.look(float(second), waits(float(second)), 0.0)
        saturation.look(float(second), waits(float(second)), math.nan)
    assert not saturation.tripped
    assert saturation.prefills == 0.0
