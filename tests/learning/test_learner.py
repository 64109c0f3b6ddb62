"""What the serving process learns from its own picks: a row per answer, corrections in between, and nothing twice."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_model import toy_model

from picker.learning import learner as module
from picker.learning.decision import Stakes
from picker.learning.experience import BY_MODEL, BY_RULE, Experience, sane
from picker.learning.features import TTFT_TERMS
from picker.learning.learner import Learner
from picker.learning.model import Correction
from picker.learning.online_tree import OnlineTrees
from picker.learning.quickscorer import COMPILED
from picker.policies.example import example_request, example_rows
from picker.requests.request import Request

ABSURD = st.floats(-1e30, 1e30) | st.sampled_from([math.nan, math.inf, -math.inf])


class Service:
    """A learner whose picks are numbered from 1, one a second."""

    def __init__(self, **given: Any) -> None:
        self.learner = Learner(**given)
        self.flights = 0
        self.now = 0.0

    def pick(
        self, row: int = 0, request: Request | None = None, by: int = BY_RULE, /, **columns: Sequence[float]
    ) -> int:
        """Row `row` of three equal endpoints is picked."""
        self.now += 1.0
        self.flights += 1
        request = request or example_request(1000, prefix=self.flights)
        rows = example_rows(request, **(columns or {"batch": [0.0] * 3}))
        said = self.learner.predict(request, rows, self.now)
        self.learner.placed(request, rows, row, 200.0, self.now)
        self.learner.reserved(self.flights, request, rows, row, said, by=by, propensity=0.5, weight=1.0, now=self.now)
        return self.flights

    def answer(self, flight: int, ttft_s: float = 0.07, tpot_s: float | None = 0.01, tokens: int = 50) -> None:
        self.learner.first_byte(flight, ttft_s, self.now)
        self.learner.ended(flight, ttft_s, tpot_s, tokens, self.now)

    def serve(self, count: int, row: int = 0, ttft_s: float = 0.07, **columns: Sequence[float]) -> None:
        for _ in range(count):
            self.answer(self.pick(row, **columns), ttft_s)

    def drain(self) -> Experience:
        return self.learner.drain(self.now)

    def predicted(self, **columns: Sequence[float]) -> list[float]:
        """TTFT in ms of a request of 1,000 tokens on each endpoint, corrections included."""
        request = example_request(1000)
        said = self.learner.predict(request, example_rows(request, **(columns or {"batch": [0.0] * 3})), self.now)
        assert said.said is not None
        return [float(ms) for ms in np.exp(said.said.log_ttft + said.correction[0])]


class TestExperience:
    def test_an_answer_becomes_one_row_of_what_was_known_and_what_came(self) -> None:
        service = Service()
        flight = service.pick(1, None, BY_MODEL, batch=[0.0, 4.0, 9.0], queued_tokens=[0.0, 3000.0, 0.0])
        service.answer(flight, ttft_s=0.2, tpot_s=0.015, tokens=80)
        (row,) = service.drain()
        assert (row["at_s"], row["by"], row["propensity"]) == (1.0, BY_MODEL, 0.5)
        assert (row["ttft_ms"], row["tpot_ms"], row["output_tokens"]) == pytest.approx((200.0, 15.0, 80.0))
        terms = dict(zip(TTFT_TERMS, row["ttft_terms"].tolist(), strict=True))
        assert (terms["new_k"], terms["queued_k"], terms["batch"]) == pytest.approx((1.0, 3.0, 4.0))
        assert not len(service.drain())

    def test_rows_come_in_the_order_of_their_ends(self) -> None:
        service = Service()
        for flight in [service.pick() for _ in range(3)][::-1]:
            service.answer(flight)
        assert service.drain()["at_s"].tolist() == [3.0, 2.0, 1.0]

    def test_an_answer_of_one_token_has_no_tpot(self) -> None:
        service = Service()
        service.answer(service.pick(), tpot_s=None)
        (row,) = service.drain()
        assert math.isnan(row["tpot_ms"])
        assert sane(np.array([row])).all()

    def test_an_answer_without_a_first_token_teaches_nothing(self) -> None:
        service = Service()
        service.learner.ended(service.pick(), None, None, 0, service.now)
        assert not len(service.drain())

    def test_a_request_that_another_endpoint_served_teaches_nothing(self) -> None:
        service = Service()
        flight = service.pick()
        service.learner.dropped(flight)
        service.answer(flight)
        assert not len(service.drain())

    @settings(max_examples=50)
    @given(st.lists(st.tuples(st.sampled_from(["pick", "first", "end", "drop", "left"]), st.integers(1, 8))))
    def test_whatever_the_order_of_events_a_flight_leaves_at_most_one_row(self, events: list[tuple[str, int]]) -> None:
        service = Service()
        service.learner.adopt(toy_model(), 0.0)
        dropped, ended = set[int](), set[int]()
        for kind, which in events:
            match kind:
                case "pick":
                    service.pick(which % 3)
                case "first":
                    service.learner.first_byte(which, 0.1, service.now)
                case "drop":
                    service.learner.dropped(which)
                    dropped |= {which} - ended if which <= service.flights else set()
                case "left":
                    service.learner.left(which % 3)
                case _:
                    service.learner.ended(which, 0.1, 0.01, 5, service.now)
                    ended |= {which} - dropped if which <= service.flights else set()
        rows = service.drain()
        assert sorted(rows["at_s"].tolist()) == sorted(ended - dropped)
        assert sane(rows).all()

    @given(ttft_s=ABSURD, tpot_s=ABSURD | st.none())
    def test_absurd_latencies_make_a_row_for_the_trainer_to_drop_and_correct_little(
        self, ttft_s: float, tpot_s: float | None
    ) -> None:
        service = Service()
        service.learner.adopt(toy_model(), 0.0)
        service.answer(service.pick(), ttft_s, tpot_s)
        assert len(service.drain()) == 1
        ttft, tpot = service.learner.corrections.by_slot[:, 0].tolist()
        assert ttft == 0.0 or (0 < ttft_s < 600 and abs(ttft) <= 1.5)
        assert tpot == 0.0 or (tpot_s is not None and tpot_s > 0 and abs(tpot) <= 1.0)


class TestWholeAnswers:
    def test_one_becomes_a_row_of_its_whole_time(self) -> None:
        service = Service()
        service.learner.answered(service.pick(), 0.9, 80, service.now)
        (row,) = service.drain()
        assert (row["whole"], row["ttft_ms"], row["output_tokens"]) == pytest.approx((1, 900.0, 80.0))
        assert np.isnan(row["tpot_ms"])

    @pytest.mark.parametrize(("answer_s", "tokens"), [(0.9, None), (0.9, 0), (0.0, 80), (1e9, 80)])
    def test_without_the_number_of_its_tokens_or_a_sane_time_it_teaches_nothing(
        self, answer_s: float, tokens: int | None
    ) -> None:
        service = Service()
        service.learner.answered(service.pick(), answer_s, tokens, service.now)
        assert not len(service.drain())

    def test_an_endpoint_that_answers_as_predicted_is_not_taken_for_a_slow_one(self) -> None:
        service = Service()
        service.learner.adopt(toy_model(), 0.0)
        for _ in range(20):
            service.learner.answered(service.pick(), 0.07 + 99 * 0.008, 100, service.now)
        assert service.predicted()[0] == pytest.approx(70, rel=0.1)

    def test_an_endpoint_slower_than_the_model_says_is_known_after_a_few_of_them(self) -> None:
        service = Service()
        service.learner.adopt(toy_model(), 0.0)
        for _ in range(10):
            service.learner.answered(service.pick(), 2 * (0.07 + 99 * 0.008), 100, service.now)
        assert service.predicted()[0] == pytest.approx(140, rel=0.2)


class TestEndpoints:
    def test_the_next_owner_of_a_slot_has_another_number(self) -> None:
        service = Service()
        service.serve(1, row=0)
        service.serve(1, row=1)
        service.learner.left(0)
        service.serve(1, row=0)
        service.learner.left(0)
        service.serve(1, row=0)
        numbers = service.drain()["endpoint"].tolist()
        assert len(set(numbers)) == 4

    def test_an_answer_that_outlives_its_endpoint_is_that_endpoints_row_and_corrects_nobody(self) -> None:
        service = Service()
        service.learner.adopt(toy_model(), 0.0)
        before = service.pick(0)
        service.learner.left(0)
        service.answer(service.pick(0))
        alone = service.learner.corrections.by_slot.copy()
        service.answer(before, ttft_s=5.0, tpot_s=0.5)
        assert np.array_equal(service.learner.corrections.by_slot, alone)
        first, second = service.drain()["endpoint"].tolist()
        assert first != second

    def test_a_newcomer_has_a_head_start_until_it_has_ten_rows(self) -> None:
        service = Service()
        service.learner.adopt(toy_model(), 0.0)
        service.serve(10, row=0)
        known, unknown, _ = service.predicted()
        assert unknown == pytest.approx(known * math.exp(-0.2), rel=0.02)

    @pytest.mark.parametrize("compiled", [COMPILED, False])
    def test_who_was_not_picked_yet_has_been_waiting_for_ever(
        self, compiled: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "COMPILED", compiled)
        service = Service()
        service.learner.adopt(toy_model(), 0.0)
        told = list[tuple[int, float]]()
        for row in (1, 0, 2):
            service.serve(3, row=row)
            request = example_request(1000)
            rows, stakes = example_rows(request, batch=[0.0] * 3), Stakes(1000.0, 100.0, 0.0, 0.0)
            opinion = service.learner.judge(request, rows, stakes, service.now + 5.0)
            told.append((opinion.longest, opinion.left_out_s))
        assert told == [(0, math.inf), (2, math.inf), (1, 11.0)]


class TestCorrections:
    def test_an_endpoint_slower_than_the_model_says_is_known_after_a_few_rows(self) -> None:
        service = Service()
        service.learner.adopt(toy_model(), 0.0)
        service.serve(10, row=0, ttft_s=0.14)
        service.serve(10, row=1, ttft_s=0.07)
        slow, usual, _ = service.predicted()
        assert slow == pytest.approx(140, rel=0.2)
        assert usual == pytest.approx(70, rel=0.05)

    def test_the_first_byte_told_twice_counts_once(self) -> None:
        service, other = Service(), Service()
        for each in (service, other):
            each.learner.adopt(toy_model(), 0.0)
        flight = service.pick()
        for _ in range(5):
            service.learner.first_byte(flight, 0.3, service.now)
        service.learner.ended(flight, 0.3, None, 5, service.now)
        other.answer(other.pick(), ttft_s=0.3, tpot_s=None)
        assert service.predicted() == other.predicted()
        assert service.learner.guard.numbers["rows"] == 1

    def test_a_first_byte_told_only_at_the_end_counts_as_well(self) -> None:
        service = Service()
        service.learner.adopt(toy_model(), 0.0)
        service.learner.ended(service.pick(), 0.3, None, 5, service.now)
        assert service.learner.guard.numbers["rows"] == 1
        assert service.learner.corrections.by_slot[0, 0] > 0

    def test_a_new_model_is_not_corrected_for_what_the_one_before_it_missed(self) -> None:
        service = Service()
        service.learner.adopt(toy_model(), 0.0)
        service.serve(20, row=0, ttft_s=0.2)
        service.learner.adopt(toy_model(ttft={"one": 200.0}, version=2), service.now)
        assert service.predicted()[0] == pytest.approx(200, rel=0.02)

    def test_a_model_brings_its_word_on_an_endpoint_that_has_not_answered_here(self) -> None:
        service = Service()
        service.pick(0)
        service.learner.adopt(toy_model(corrections={1: Correction(-0.5, math.nan, 20)}), service.now)
        corrected, unknown, _ = service.predicted()
        assert corrected == pytest.approx(unknown * math.exp(-0.5 * 20 / 23))

    def test_without_corrections_no_endpoint_is_told_apart(self) -> None:
        service = Service(correct=False)
        service.learner.adopt(toy_model(), 0.0)
        for row in range(3):
            service.serve(10, row=row, ttft_s=0.1 * (row + 1))
        assert service.predicted() == pytest.approx([70.0] * 3)

    def test_an_endpoint_that_changes_is_told_to_the_trainer(self) -> None:
        service = Service()
        service.learner.adopt(toy_model(), 0.0)
        service.serve(40, row=0)
        assert not service.learner.forgotten
        service.serve(40, row=0, ttft_s=0.2)
        number = int(service.drain()["endpoint"][0])
        (endpoint, since), *_ = service.learner.forgotten
        assert (endpoint, 40.0 < since <= 70.0) == (number, True)


class TestCaches:
    """Caches of 4,000 tokens; the same prompt of 1,000 comes every two seconds, and one of 3,000 that is new."""

    def chance(self, kv_tokens: list[float]) -> list[float]:
        service = Service()
        for _ in range(60):
            service.pick(0, example_request(1000, prefix=64), kv_tokens=kv_tokens)
            service.pick(0, example_request(3000, prefix=64 * int(service.now)), kv_tokens=kv_tokens)
        request = example_request(1000)
        rows = example_rows(request, kv_tokens=kv_tokens)
        return [float(chance) for chance in service.learner.predict(request, rows, service.now).chance]

    def test_what_is_evicted_may_be_asked_for_again_where_the_cache_is_full(self) -> None:
        full, empty = self.chance([4000.0, 4000.0])
        assert 0.0 < full <= 1.0
        assert empty == 0.0

    def test_a_cache_of_unknown_size_evicts_nobody(self) -> None:
        assert self.chance([0.0, 0.0]) == [0.0, 0.0]


class TestOnlineTrees:
    """Endpoints with a queue are twice as slow as the base says; no endpoint is slow as such."""

    def taught(self, **given: Any) -> Service:
        service = Service(correct=False, **given)
        service.learner.adopt(toy_model(ttft={"one": 50.0}, tpot={"one": 8.0}), 0.0)
        for i in range(400):
            slow = i % 2
            columns = {"waiting": [5.0 * slow] * 3}
            flight = service.pick(i % 3, **columns)
            service.answer(flight, ttft_s=0.05 * (1 + slow), tpot_s=0.008 * (1 + slow))
        return service

    def test_they_learn_what_the_base_misses(self) -> None:
        service = self.taught(online=OnlineTrees())
        assert service.predicted(waiting=[5.0, 0.0, 5.0]) == pytest.approx([100, 50, 100], rel=0.1)
        request = example_request(1000)
        said = service.learner.predict(request, example_rows(request, waiting=[5.0, 0.0]), service.now).said
        assert said is not None
        assert np.exp(said.log_tpot) == pytest.approx([16, 8], rel=0.1)

    def test_without_them_the_base_stays_as_it_is(self) -> None:
        assert self.taught().predicted(waiting=[5.0, 0.0, 5.0]) == pytest.approx([50] * 3)

    def test_they_and_the_corrections_outlive_a_new_model(self) -> None:
        service = Service(online=OnlineTrees())
        service.learner.adopt(toy_model(), 0.0)
        service.serve(60, row=0, ttft_s=0.14)
        before = service.predicted()
        service.learner.adopt(toy_model(version=2), service.now)
        assert service.predicted() == before
        assert before[0] == pytest.approx(140, rel=0.1)


class TestBounds:
    def test_rows_that_nobody_drains_go_oldest_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_OUTBOX", 5)
        service = Service()
        service.serve(8)
        assert service.learner.overflowed == 3
        assert service.drain()["at_s"].tolist() == [4.0, 5.0, 6.0, 7.0, 8.0]

    def test_picks_that_never_end_are_kept_up_to_a_bound(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_PENDING", 5)
        service = Service()
        flights = [service.pick() for _ in range(8)]
        for flight in flights:
            service.answer(flight)
        assert len(service.drain()) == 5

    def test_drifts_that_nobody_takes_out_are_kept_up_to_a_bound(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_FORGOTTEN", 3)
        service = Service()
        service.learner.adopt(toy_model(), 0.0)
        for slow in range(20):
            service.serve(20, row=0, ttft_s=0.3 if slow % 2 else 0.03)
        assert len(service.learner.forgotten) == 3
