"""How fast prefill comes to an endpoint, and for how long its cache remembers."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picker.learning.pressure import MARKS, RATE_S, Pressure

HERE, ELSEWHERE = np.array([3]), np.array([7])


def rate(pressure: Pressure, now: float, slots: np.ndarray = HERE) -> float:
    return float(pressure.prefill_rate(slots, now)[0])


def memory(pressure: Pressure, now: float, slots: np.ndarray = HERE) -> float:
    return float(pressure.memory_s(slots, now)[0])


def steady(pressure: Pressure, seconds: int, tokens: float, kv_tokens: float, start: int = 0) -> None:
    """Every second so many tokens of KV are written, half of them prefill."""
    for second in range(start, start + seconds):
        pressure.placed(3, tokens / 2, tokens / 2, kv_tokens, float(second))


class TestRate:
    def test_it_settles_at_what_comes_per_second(self) -> None:
        pressure = Pressure()
        steady(pressure, 200, tokens=4000, kv_tokens=0)
        assert rate(pressure, 199.5) == pytest.approx(2.0, rel=0.05)

    def test_it_fades_when_nothing_comes(self) -> None:
        pressure = Pressure()
        pressure.placed(3, 8000.0, 0.0, 0.0, 10.0)
        assert rate(pressure, 10.0) == pytest.approx(8 / RATE_S)
        assert rate(pressure, 10.0 + RATE_S) == pytest.approx(8 / RATE_S / np.e)

    def test_each_endpoint_has_its_own_and_none_before_its_first_pick(self) -> None:
        pressure = Pressure()
        pressure.placed(3, 8000.0, 0.0, 0.0, 10.0)
        assert rate(pressure, 10.0, ELSEWHERE) == 0.0

    def test_a_burst_sees_itself(self) -> None:
        pressure = Pressure()
        for _ in range(5):
            pressure.placed(3, 1000.0, 0.0, 0.0, 10.0)
        assert rate(pressure, 10.0) == pytest.approx(5 / RATE_S)


class TestMemory:
    def test_a_cache_that_is_not_full_forgets_nothing(self) -> None:
        pressure = Pressure()
        steady(pressure, 99, tokens=1000, kv_tokens=100_000)
        assert memory(pressure, 99.0) == np.inf

    def test_it_is_the_time_in_which_a_cacheful_was_written(self) -> None:
        pressure = Pressure()
        steady(pressure, 500, tokens=1000, kv_tokens=100_000)
        assert memory(pressure, 499.0) == pytest.approx(100, rel=2 / MARKS)

    def test_faster_writes_shorten_it(self) -> None:
        pressure = Pressure()
        steady(pressure, 500, tokens=1000, kv_tokens=100_000)
        steady(pressure, 100, tokens=4000, kv_tokens=100_000, start=500)
        assert memory(pressure, 599.0) == pytest.approx(25, rel=0.1)

    def test_where_nothing_is_written_blocks_stay_and_grow_older(self) -> None:
        pressure = Pressure()
        steady(pressure, 500, tokens=1000, kv_tokens=100_000)
        assert memory(pressure, 799.0) == pytest.approx(400, rel=0.02)

    def test_a_cache_of_unknown_size_is_not_taken_to_be_full(self) -> None:
        pressure = Pressure()
        steady(pressure, 500, tokens=100_000, kv_tokens=0)
        assert memory(pressure, 500.0) == np.inf

    @settings(max_examples=50)
    @given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 5000)), min_size=1, max_size=200))
    def test_whatever_is_written_it_is_off_by_little_more_than_a_mark(self, writes: list[tuple[float, int]]) -> None:
        """What has gone was written before the tail, but for a mark and the largest write."""
        pressure, now, kv_tokens, log = Pressure(), 0.0, 20_000, list[tuple[float, int]]()
        for gap, tokens in writes:
            now += gap
            pressure.placed(3, float(tokens), 0.0, kv_tokens, now)
            log.append((now, tokens))
        remembered = memory(pressure, now)
        if remembered == np.inf:
            assert sum(tokens for _, tokens in log) <= kv_tokens
        else:
            since = sum(tokens for at, tokens in log if now - at <= remembered)
            assert kv_tokens - 5000 <= since
            after = sum(tokens for at, tokens in log if now - at < remembered)
            assert after <= kv_tokens + kv_tokens / MARKS + 5000


class TestSlots:
    def test_the_next_owner_of_a_slot_starts_from_nothing(self) -> None:
        pressure = Pressure()
        steady(pressure, 500, tokens=1000, kv_tokens=10_000)
        pressure.clear(3)
        assert (rate(pressure, 500.0), memory(pressure, 500.0)) == (0.0, np.inf)
        pressure.placed(3, 100.0, 0.0, 10_000, 500.0)
        assert memory(pressure, 501.0) == np.inf

    def test_slots_beyond_the_first_ones_are_made_room_for(self) -> None:
        pressure = Pressure(capacity=1)
        pressure.placed(500, 1000.0, 0.0, 0.0, 1.0)
        assert rate(pressure, 1.0, np.array([500])) == pytest.approx(1 / RATE_S)

    def test_history_is_kept_in_a_bounded_number_of_marks(self) -> None:
        pressure, sizes = Pressure(), []
        for start in (0, 1000, 2000):
            steady(pressure, 1000, tokens=1000, kv_tokens=100_000, start=start)
            sizes.append(len(pickle.dumps(pressure)))
        assert max(sizes) <= 1.05 * sizes[0]
