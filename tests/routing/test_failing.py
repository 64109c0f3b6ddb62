"""Who is left out for failing, and how long: the rules alone, on a clock of numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from picker.routing.failing import FIRST_S, FRESH_S, LONGEST_S, ROW, TRIAL_S, Failing
from picker.routing.outcome import Fault

POOL = list(range(6))


def candidates(failing: Failing, now: float, slots: list[int] = POOL) -> list[int]:
    kept = failing.spared(slots, now)
    return slots if kept is None else [slots[position] for position in kept]


def out_at_zero(*slots: int) -> Failing:
    """These were out of reach for a pick just before, and that was told at 0."""
    failing = Failing()
    for slot in slots:
        failing.failed(slot, Fault.UNREACHED, -0.1, 0.0)
    return failing


def test_nothing_is_kept_of_endpoints_that_do_not_fail() -> None:
    failing = Failing()
    failing.succeeded(1, 0.0)
    failing.picked(1, 7, 0.0)
    failing.over(1, 7)
    assert (failing.known, candidates(failing, 1.0)) == ({}, POOL)


def test_a_connection_that_failed_leaves_its_endpoint_out_at_once_and_for_a_while() -> None:
    failing = out_at_zero(2)
    assert candidates(failing, 0.99 * FIRST_S) == [0, 1, 3, 4, 5]
    assert candidates(failing, FIRST_S) == POOL


def test_it_takes_several_broken_answers_in_a_row() -> None:
    failing = Failing()
    for i in range(ROW):
        assert candidates(failing, 0.1 * i) == POOL
        failing.failed(2, Fault.BROKEN, 0.0, 0.1 * i)
    assert 2 not in candidates(failing, 0.1 * ROW)


def test_an_answer_that_began_between_them_breaks_the_row() -> None:
    failing = Failing()
    for i in range(5 * ROW):
        failing.failed(2, Fault.BROKEN, 0.0, 0.1 * i)
        if i % ROW == ROW - 2:
            failing.succeeded(2, -9.0)
    assert candidates(failing, 9.0) == POOL


def test_one_pick_tries_an_endpoint_whose_time_is_over_and_the_others_wait_for_what_comes_of_it() -> None:
    failing = out_at_zero(2)
    failing.picked(2, 7, FIRST_S)
    assert 2 not in candidates(failing, FIRST_S)
    failing.succeeded(2, FIRST_S)
    assert (failing.known, candidates(failing, FIRST_S)) == ({}, POOL)


def test_each_trial_that_fails_doubles_the_time_up_to_a_limit() -> None:
    failing, now, waits = out_at_zero(2), FIRST_S, []
    for flight in range(8):
        failing.picked(2, flight, now)
        failing.failed(2, Fault.BROKEN, now, now + 0.1)
        failing.over(2, flight)
        waits.append(failing.known[2].until - now - 0.1)
        now = failing.known[2].until
    assert waits == pytest.approx([2.0, 4.0, 8.0, 16.0, *[LONGEST_S] * 4])


def test_a_trial_that_says_nothing_leaves_it_to_the_next_pick() -> None:
    failing = out_at_zero(2)
    failing.picked(2, 7, FIRST_S)
    failing.over(2, 7)
    assert candidates(failing, FIRST_S) == POOL


def test_a_trial_of_which_nothing_is_heard_is_waited_for_for_a_while() -> None:
    failing = out_at_zero(2)
    failing.picked(2, 7, FIRST_S)
    assert 2 not in candidates(failing, FIRST_S + 0.99 * TRIAL_S)
    assert 2 in candidates(failing, FIRST_S + TRIAL_S)


def test_what_becomes_of_picks_made_before_changes_nothing_any_more() -> None:
    failing = out_at_zero(2)
    for word in range(9):
        failing.failed(2, Fault.BROKEN, -0.1, FIRST_S + word)
        failing.succeeded(2, -0.1)
    assert failing.known[2].until == FIRST_S
    assert candidates(failing, 0.5) == [0, 1, 3, 4, 5]


def test_the_end_of_another_pick_is_not_that_of_the_trial() -> None:
    failing = out_at_zero(2)
    failing.picked(2, 7, FIRST_S)
    failing.over(2, 6)
    assert 2 not in candidates(failing, FIRST_S)


def test_picks_that_go_there_for_want_of_others_are_no_trials_and_double_nothing_but_can_bring_it_back() -> None:
    failing = out_at_zero(*POOL)
    failing.picked(2, 7, 0.5)
    failing.failed(2, Fault.UNREACHED, 0.5, 0.6)
    assert (failing.known[2].until, failing.known[2].trial) == (FIRST_S, None)
    failing.succeeded(2, 0.5)
    assert 2 not in failing.known


def test_a_connection_that_failed_long_ago_is_no_news() -> None:
    failing = Failing()
    failing.failed(2, Fault.UNREACHED, 0.0, 1.1 * FRESH_S)
    assert candidates(failing, 1.1 * FRESH_S) == POOL


def test_of_too_many_those_that_failed_least_stay_and_of_equals_those_that_failed_longest_ago() -> None:
    failing = out_at_zero(0)
    failing.failed(0, Fault.UNREACHED, FIRST_S, FIRST_S)
    for slot in (1, 2, 3):
        failing.failed(slot, Fault.UNREACHED, FIRST_S, FIRST_S + slot / 10)
    assert candidates(failing, FIRST_S + 0.5) == [1, 4, 5]


@pytest.mark.parametrize("slots", [[0], [0, 1], POOL])
def test_where_all_fail_picks_go_on_as_if_nothing_were_known(slots: list[int]) -> None:
    assert candidates(out_at_zero(*POOL), 0.5, slots) == slots


def test_a_subset_is_counted_by_itself() -> None:
    failing = out_at_zero(0, 1)
    assert candidates(failing, 0.5, [0, 2]) == [2]
    assert candidates(failing, 0.5, [0, 2, 3, 4]) == [2, 3, 4]


def test_an_endpoint_that_left_is_forgotten() -> None:
    failing = out_at_zero(2)
    failing.forget(2)
    assert (failing.known, candidates(failing, 0.5)) == ({}, POOL)


def test_people_are_told_why_and_for_how_long() -> None:
    failing = out_at_zero(2)
    assert failing.told(1, 0.25) is None
    assert failing.told(2, 0.25) == {"state": "left out", "because": "unreached", "in_a_row": 1, "for_s": 0.75}
    failing.failed(3, Fault.BROKEN, 0.0, 0.0)
    states = [(failing.told(slot, FIRST_S) or {})["state"] for slot in (2, 3)]
    failing.picked(2, 7, FIRST_S)
    assert [*states, (failing.told(2, FIRST_S) or {})["state"]] == ["due", "suspect", "on trial"]
    assert failing.counts == {Fault.UNREACHED: 1, Fault.BROKEN: 1}


def test_an_endpoint_is_called_left_out_from_the_proof_until_it_serves_trials_and_their_waits_included() -> None:
    failing = Failing()
    failing.failed(3, Fault.BROKEN, 0.0, 0.0)
    called = [failing.left_out()]
    failing.failed(2, Fault.UNREACHED, -0.1, 0.0)
    called.append(failing.left_out())
    failing.picked(2, 7, FIRST_S)
    called.append(failing.left_out())
    failing.succeeded(2, FIRST_S)
    assert [*called, failing.left_out()] == [{}, {2: Fault.UNREACHED}, {2: Fault.UNREACHED}, {}]


@given(st.sets(st.integers(0, 9)), st.lists(st.integers(0, 9), min_size=1, unique=True))
def test_never_more_than_half_are_left_out(failed: set[int], slots: list[int]) -> None:
    kept = candidates(out_at_zero(*failed), 0.5, slots)
    assert len(slots) - len(kept) <= len(slots) // 2
    assert set(slots) - set(kept) <= failed


class Traffic(RuleBasedStateMachine):
    """Picks at random among a pool's candidates, of which some fail; words of them come in any order."""

    @initialize(seed=st.integers(0, 9), bad=st.sets(st.integers(0, 5), max_size=5))
    def begin(self, seed: int, bad: set[int]) -> None:
        self.failing, self.now, self.rng, self.bad = Failing(), 0.0, np.random.default_rng(seed), bad
        self.open: dict[int, tuple[int, float]] = {}
        self.flights = 0

    @rule(s=st.floats(0.01, 5.0))
    def time_passes(self, s: float) -> None:
        self.now += s

    @rule()
    def pick(self) -> None:
        slot, self.flights = int(self.rng.choice(candidates(self.failing, self.now))), self.flights + 1
        on_trial = self.on_trial(slot)
        self.failing.picked(slot, self.flights, self.now)
        self.open[self.flights] = slot, self.now
        # A second trial of an endpoint begins only where the first is over, or silent for too long.
        assert on_trial is None or self.on_trial(slot) == on_trial or self.trial_began(on_trial) <= self.now - TRIAL_S

    def on_trial(self, slot: int) -> int | None:
        record = self.failing.known.get(slot)
        return record.trial if record else None

    def trial_began(self, flight: int) -> float:
        return self.open[flight][1]

    @rule(which=st.integers(0, 99))
    def word_comes(self, which: int) -> None:
        if self.open:
            flight = sorted(self.open)[which % len(self.open)]
            slot, picked_at = self.open[flight]
            if slot in self.bad:
                self.failing.failed(slot, Fault.UNREACHED if slot % 2 else Fault.BROKEN, picked_at, self.now)
            else:
                self.failing.succeeded(slot, picked_at)
            self.failing.over(slot, flight)
            del self.open[flight]

    @rule()
    def all_is_well_again(self) -> None:
        self.bad = set()

    @invariant()
    def half_are_candidates_and_every_one_comes_back(self) -> None:
        assert 2 * len(candidates(self.failing, self.now)) >= len(POOL)
        assert candidates(self.failing, self.now + max(LONGEST_S, TRIAL_S)) == POOL


TestTraffic = Traffic.TestCase
