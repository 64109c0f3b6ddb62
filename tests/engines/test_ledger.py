"""The life of a flight, seen from outside."""

import math

import pytest

from picker.engines import ledger as column
from picker.engines.ledger import GONE, Ledger


def held(ledger: Ledger, slot: int = 0) -> tuple[float, float, float, float]:
    """(in flight, prefilling, queued tokens, decode tokens) of a slot."""
    in_flight, prefilling, queued, decode = ledger.columns[:4, slot].tolist()
    return in_flight, prefilling, queued, decode


def reserved(*flights: int, at: float = 0.0, new: float = 100, prompt: float = 300) -> Ledger:
    ledger = Ledger(capacity=4)
    for flight in flights:
        ledger.reserve(flight, 0, new, prompt, at)
    return ledger


class TestLife:
    def test_a_pick_counts_at_once(self) -> None:
        assert held(reserved(1, 2)) == (2, 2, 200, 0)

    def test_the_first_byte_turns_prefill_into_decode_once(self) -> None:
        ledger = reserved(1)
        ledger.first_byte(1, 1.0)
        ledger.first_byte(1, 2.0)
        assert held(ledger) == (1, 0, 0, 300)
        flight = ledger.release(1)
        assert flight is not None
        assert flight.first_byte_at == 1.0

    def test_progress_counts_the_answer_and_never_goes_back(self) -> None:
        ledger = reserved(1)
        ledger.first_byte(1, 1.0)
        for seen in (1, 5, 3):
            ledger.progress(1, seen)
        assert held(ledger) == (1, 0, 0, 305)

    def test_release_gives_everything_back_exactly_once(self) -> None:
        ledger = reserved(1)
        ledger.first_byte(1, 1.0)
        ledger.progress(1, 7)
        flight = ledger.release(1)
        assert flight is not None
        assert (flight.slot, flight.new_tokens, flight.completion_tokens) == (0, 100, 7)
        assert held(ledger) == (0, 0, 0, 0)
        assert ledger.release(1) is None
        assert held(ledger) == (0, 0, 0, 0)

    def test_calls_about_an_unknown_flight_do_nothing(self) -> None:
        ledger = reserved(1)
        ledger.release(1)
        ledger.first_byte(1, 1.0)
        ledger.progress(1, 5)
        ledger.move(1, 2)
        assert held(ledger) == held(ledger, 2) == (0, 0, 0, 0)

    def test_a_served_endpoint_other_than_the_picked_takes_the_flight(self) -> None:
        ledger = reserved(1, 2)
        ledger.move(1, 3)
        assert held(ledger, 0) == (1, 1, 100, 0)
        assert held(ledger, 3) == (1, 1, 100, 0)

    def test_an_id_reserved_again_replaces_the_first_pick(self) -> None:
        ledger = reserved(1)
        ledger.reserve(1, 2, 50, 60, 1.0)
        assert held(ledger, 0) == (0, 0, 0, 0)
        assert held(ledger, 2) == (1, 1, 50, 0)

    @pytest.mark.parametrize("tokens", [math.nan, -5.0, -math.inf])
    def test_an_estimate_that_is_no_number_counts_as_nothing(self, tokens: float) -> None:
        assert held(reserved(1, new=tokens, prompt=tokens)) == (1, 1, 0, 0)

    def test_an_absurd_estimate_is_bounded_and_fully_given_back(self) -> None:
        ledger = reserved(1, 2, new=math.inf, prompt=1e300)
        assert held(ledger)[2] == 2 * 2**31
        ledger.release(1)
        ledger.release(2)
        assert held(ledger) == (0, 0, 0, 0)


class TestLostFlights:
    def test_a_sweep_releases_what_is_too_old_and_returns_it(self) -> None:
        ledger = reserved(1, at=0.0)
        ledger.reserve(2, 0, 10, 10, 50.0)
        assert [flight.id for flight in ledger.sweep(100.0, 60.0)] == [1]
        assert held(ledger) == (1, 1, 10, 0)
        assert ledger.sweep(100.0, 60.0) == []
        assert ledger.release(1) is None

    def test_a_full_ledger_gives_up_its_oldest_flight(self) -> None:
        ledger = Ledger(max_flights=2)
        for flight in (1, 2, 3):
            ledger.reserve(flight, 0, 10, 10, float(flight))
        assert (len(ledger), ledger.overflowed) == (2, 1)
        assert held(ledger) == (2, 2, 20, 0)
        assert ledger.release(1) is None

    def test_a_gone_endpoints_flights_never_touch_the_next_owner_of_its_row(self) -> None:
        ledger = reserved(1)
        ledger.forget(0)
        ledger.reserve(2, 0, 10, 20, 1.0)
        ledger.first_byte(1, 2.0)
        ledger.progress(1, 9)
        flight = ledger.release(1)
        assert flight is not None
        assert flight.slot == GONE
        assert held(ledger) == (1, 1, 10, 0)

    def test_a_flight_of_a_gone_endpoint_may_be_served_by_another(self) -> None:
        ledger = reserved(1)
        ledger.forget(0)
        ledger.move(1, 2)
        assert held(ledger, 2) == (1, 1, 100, 0)


class TestOldestPrefill:
    def test_it_is_the_age_of_the_first_unanswered_request(self) -> None:
        ledger = reserved(1, at=0.0)
        ledger.reserve(2, 0, 10, 10, 3.0)
        assert ledger.oldest_prefill_s(0, 10.0) == 10.0
        ledger.first_byte(1, 5.0)
        assert ledger.oldest_prefill_s(0, 10.0) == 7.0
        ledger.release(2)
        assert ledger.oldest_prefill_s(0, 10.0) == 0.0

    def test_a_moved_request_keeps_its_age(self) -> None:
        ledger = reserved(1, at=0.0)
        ledger.reserve(2, 3, 10, 10, 4.0)
        ledger.move(1, 3)
        assert ledger.oldest_prefill_s(3, 10.0) == 10.0
        ledger.release(1)
        assert ledger.oldest_prefill_s(3, 10.0) == 6.0


class TestCorrectionByTheScrape:
    """Flights of second 0; scrapes begin at second 10 and later, far past the grace of 2 s."""

    def scraped(self, ledger: Ledger, running: float, waiting: float = 0, times: int = 2, at: float = 10.0) -> Ledger:
        for i in range(times):
            ledger.observe(0, running, waiting, at + i)
        return ledger

    def test_what_two_scrapes_running_do_not_show_no_longer_counts(self) -> None:
        ledger = self.scraped(reserved(1, 2, 3), running=1)
        assert held(ledger)[0] == 1

    def test_one_scrape_alone_changes_nothing(self) -> None:
        ledger = self.scraped(reserved(1, 2, 3), running=0, times=1)
        assert held(ledger) == (3, 3, 300, 0)
        self.scraped(ledger, running=3, times=1)
        self.scraped(ledger, running=0, times=1)
        assert held(ledger) == (3, 3, 300, 0)

    def test_the_lesser_of_two_shortfalls_counts(self) -> None:
        ledger = reserved(1, 2, 3)
        ledger.observe(0, 0, 0, 10.0)
        ledger.observe(0, 2, 0, 11.0)
        assert held(ledger)[0] == 2

    def test_a_pick_within_the_grace_is_trusted_though_the_engine_does_not_show_it(self) -> None:
        ledger = self.scraped(reserved(1, at=9.0), running=0, at=10.0, times=2)
        assert held(ledger) == (1, 1, 100, 0)

    def test_an_engine_that_shows_as_many_or_more_changes_nothing(self) -> None:
        ledger = self.scraped(reserved(1, 2), running=1, waiting=7)
        assert held(ledger) == (2, 2, 200, 0)

    def test_the_oldest_are_presumed_ended_first(self) -> None:
        ledger = reserved(1, at=0.0)
        ledger.reserve(2, 0, 7, 7, 1.0)
        self.scraped(ledger, running=0, waiting=1)
        assert held(ledger) == (1, 1, 7, 0)

    def test_an_engine_with_no_queue_that_runs_only_our_decoding_ones_has_no_prefill_left(self) -> None:
        ledger = reserved(1, 2, at=0.0)
        ledger.first_byte(1, 1.0)
        ledger.first_byte(2, 1.0)
        ledger.reserve(3, 0, 100, 100, 2.0)
        self.scraped(ledger, running=2)
        assert held(ledger) == (2, 0, 0, 600)

    def test_a_presumed_flight_that_shows_life_counts_again(self) -> None:
        ledger = self.scraped(reserved(1), running=0)
        ledger.first_byte(1, 12.0)
        assert held(ledger) == (1, 0, 0, 300)
        self.scraped(ledger, running=0, at=13.0)
        ledger.progress(1, 4)
        assert held(ledger) == (1, 0, 0, 304)

    def test_an_engine_that_shows_it_again_brings_it_back(self) -> None:
        ledger = self.scraped(reserved(1), running=0)
        assert held(ledger)[0] == 0
        self.scraped(ledger, running=1, at=12.0, times=1)
        assert held(ledger) == (1, 1, 100, 0)

    def test_the_late_end_of_a_presumed_flight_takes_nothing_away(self) -> None:
        ledger = self.scraped(reserved(1), running=0)
        ledger.reserve(2, 0, 10, 10, 12.0)
        flight = ledger.release(1)
        assert flight is not None
        assert held(ledger) == (1, 1, 10, 0)


def test_picks_are_counted_for_good() -> None:
    ledger = reserved(1, 2)
    ledger.release(1)
    ledger.move(2, 3)
    assert ledger.columns[column.PICKS].tolist() == [2, 0, 0, 1]


@pytest.mark.parametrize("slot", [4, 1000])
def test_a_slot_without_room_is_refused_and_nothing_is_kept(slot: int) -> None:
    ledger = Ledger(capacity=4)
    with pytest.raises(IndexError):
        ledger.reserve(1, slot, 10, 10, 0.0)
    assert len(ledger) == 0
    ledger.ensure(slot + 1)
    ledger.reserve(1, slot, 10, 10, 0.0)
    assert held(ledger, slot) == (1, 1, 10, 0)


def test_the_prefill_first_in_line_begins_when_the_one_before_it_has_its_first_byte() -> None:
    ledger = Ledger()
    ledger.reserve(1, slot=0, new_tokens=100, prompt_tokens=100, now=1.0)
    ledger.reserve(2, slot=0, new_tokens=100, prompt_tokens=100, now=2.0)
    assert ledger.columns[column.HEAD_SINCE, 0] == 1.0
    ledger.first_byte(1, now=5.0)
    assert ledger.columns[column.HEAD_SINCE, 0] == 5.0
    ledger.first_byte(2, now=6.0)
    assert ledger.columns[column.HEAD_SINCE, 0] == math.inf
