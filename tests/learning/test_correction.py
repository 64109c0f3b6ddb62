"""What a correction knows of an endpoint, and how long it believes it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.learning.correction import BOUNDS, TPOT, TTFT, Corrections

NAN = math.nan


def taught(rows: int, ttft: float = 0.6, tpot: float = NAN) -> Corrections:
    """A row a second on slot 0, the last one at second `rows`."""
    corrections = Corrections(capacity=4)
    for second in range(1, rows + 1):
        corrections.observe(0, ttft, tpot, float(second))
    return corrections


def ttft(corrections: Corrections, slot: int = 0) -> float:
    return float(corrections.by_slot[TTFT, slot])


class TestEvidence:
    def test_nothing_seen_corrects_nothing(self) -> None:
        assert not Corrections(capacity=4).by_slot.any()

    @pytest.mark.parametrize(("rows", "share"), [(1, 1 / 4), (3, 3 / 6), (9, 9 / 12)])
    def test_few_rows_are_believed_by_their_number_over_three_more(self, rows: int, share: float) -> None:
        assert ttft(taught(rows)) == pytest.approx(0.6 * share, rel=0.02)

    def test_many_rows_are_believed_nearly_whole(self) -> None:
        assert ttft(taught(200)) == pytest.approx(0.6, rel=0.06)

    def test_the_first_rows_count_alike(self) -> None:
        corrections = Corrections(capacity=4)
        for second, residual in enumerate((1.2, 0.0, 0.0, 0.0)):
            corrections.observe(0, residual, NAN, float(second))
        assert ttft(corrections) == pytest.approx(1.2 / 4 * 4 / 7, rel=0.02)

    def test_a_slower_engine_is_known_within_ten_of_its_rows(self) -> None:
        corrections = taught(100, ttft=0.0)
        for second in range(101, 111):
            corrections.observe(0, math.log(2), NAN, float(second))
        assert ttft(corrections) > 0.6 * math.log(2)

    def test_the_targets_are_apart_and_an_unknown_one_stays(self) -> None:
        corrections = taught(30, tpot=-0.3)
        before = corrections.by_slot[TPOT, 0]
        corrections.observe(0, 0.6, NAN, 31.0)
        assert before == corrections.by_slot[TPOT, 0] == pytest.approx(-0.3, rel=0.1)

    def test_other_slots_learn_nothing(self) -> None:
        assert not taught(30).by_slot[:, 1:].any()


class TestTime:
    def test_silence_takes_a_correction_back(self) -> None:
        corrections = taught(100)
        corrections.settle(100 + 300.0)
        assert 0.4 * 0.6 < ttft(corrections) < 0.5 * 0.6
        corrections.settle(100 + 10 * 300.0)
        assert abs(ttft(corrections)) < 0.001

    def test_a_row_after_long_silence_weighs_more_than_what_was_known(self) -> None:
        corrections = taught(100)
        corrections.observe(0, 0.0, NAN, 100 + 3600.0)
        assert abs(ttft(corrections)) < 0.05

    @given(pauses=st.lists(st.floats(0.01, 400), max_size=10))
    def test_how_often_it_settles_does_not_matter(self, pauses: list[float]) -> None:
        often, once = taught(20), taught(20)
        now = 20.0
        for pause in pauses:
            now += pause
            often.settle(now)
        often.observe(0, -0.2, 0.1, now)
        once.observe(0, -0.2, 0.1, now)
        assert np.array_equal(often.by_slot, once.by_slot)

    def test_a_clock_that_stands_or_steps_back_ages_nothing(self) -> None:
        corrections = taught(100)
        before = ttft(corrections)
        corrections.settle(50.0)
        assert ttft(corrections) == pytest.approx(before)


class TestChange:
    def test_after_a_drift_the_next_rows_outweigh_the_old(self) -> None:
        slow, fast = taught(100, ttft=0.0), taught(100, ttft=0.0)
        fast.hurry(0)
        for second in range(101, 105):
            slow.observe(0, 0.7, NAN, float(second))
            fast.observe(0, 0.7, NAN, float(second))
        assert ttft(fast) > 0.6 * 0.7 > 1.2 * ttft(slow)

    def test_hurry_ends_by_itself(self) -> None:
        corrections = taught(100, ttft=0.0)
        corrections.hurry(0)
        for second in range(101, 121):
            corrections.observe(0, 0.0, NAN, float(second))
        corrections.observe(0, 1.0, NAN, 121.0)
        assert ttft(corrections) == pytest.approx(0.12, rel=0.1)

    def test_a_new_model_brings_corrections_of_its_own(self) -> None:
        corrections = taught(100, tpot=0.5)
        corrections.restart(0, -0.2, NAN, 20, 101.0)
        assert ttft(corrections) == pytest.approx(-0.2 * 20 / 23)
        assert corrections.by_slot[TPOT, 0] == 0
        corrections.observe(0, -0.2, NAN, 102.0)
        assert ttft(corrections) == pytest.approx(-0.2 * 21 / 24, rel=0.01)

    def test_the_next_owner_of_a_slot_starts_from_nothing(self) -> None:
        corrections = taught(100, tpot=0.5)
        corrections.clear(0)
        assert not corrections.by_slot.any()
        corrections.observe(0, 0.4, NAN, 200.0)
        assert ttft(corrections) == pytest.approx(0.1)

    def test_room_grows_and_keeps_what_is_known(self) -> None:
        corrections = taught(100)
        before = ttft(corrections)
        corrections.ensure(100)
        corrections.observe(99, 0.4, NAN, 100.0)
        assert corrections.by_slot.shape[1] >= 100
        assert ttft(corrections) == before
        assert ttft(corrections, 99) == pytest.approx(0.1)


class TestHostile:
    @given(st.lists(st.tuples(st.floats(), st.floats(), st.floats(0, 1e9)), max_size=40))
    def test_no_row_takes_a_correction_out_of_its_bounds(self, rows: list[tuple[float, float, float]]) -> None:
        corrections = Corrections(capacity=1)
        for first, second, now in rows:
            corrections.observe(0, first, second, now)
            corrections.settle(now)
            corrections.restart(0, second, first, 7, now) if first > 1 else corrections.hurry(0)
            assert (np.abs(corrections.by_slot[:, 0]) <= np.array(BOUNDS, np.float32)).all()

    def test_one_absurd_row_says_no_more_than_the_bound(self) -> None:
        absurd, bound = taught(50, ttft=0.0), taught(50, ttft=0.0)
        absurd.observe(0, 9.0, NAN, 51.0)
        bound.observe(0, BOUNDS[TTFT], NAN, 51.0)
        assert ttft(absurd) == ttft(bound) < 0.2

    def test_an_endpoint_that_left_is_nobody(self) -> None:
        corrections = taught(10)
        before = corrections.by_slot.copy()
        corrections.observe(-1, 1.0, 1.0, 11.0)
        corrections.restart(-1, 1.0, 1.0, 9, 11.0)
        corrections.clear(-1)
        assert np.array_equal(corrections.by_slot, before)

    def test_a_half_life_of_nothing_is_refused(self) -> None:
        with pytest.raises(ValueError, match="half_life_s"):
            Corrections(half_life_s=0.0)
