"""The router: what a caller of `pick` can rely on."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from picker.engines import ledger as own
from picker.engines.approximate import ApproximateIndex
from picker.engines.index import PrefixIndex
from picker.engines.rows import Rows
from picker.policies.learned import Learned
from picker.policies.policy import Scores
from picker.policies.registry import REGISTRY
from picker.pool.view import Endpoint
from picker.requests.request import Api, Hints, Request
from picker.routing.hits import PrefixHits
from picker.routing.outcome import Fault, Outcome
from picker.routing.router import NoEndpoint, Router, RouterSettings

ADDRESSES = [f"10.0.0.{i}:8000" for i in range(1, 5)]


def make_router(policy: str = "multiplicative", addresses: list[str] = ADDRESSES, **settings: Any) -> Router:
    return router_with({}, policy, addresses, **settings)


def router_with(
    parts: dict[str, Any], policy: str = "multiplicative", addresses: list[str] = ADDRESSES, **settings: Any
) -> Router:
    rng = np.random.default_rng(7)
    hits = PrefixHits(PrefixIndex(), ApproximateIndex(), ApproximateIndex(ttl_s=2.0))
    router = Router(REGISTRY[policy]({}, rng), hits, rng, settings=RouterSettings(**settings), **parts)
    router.update_pool(Endpoint(address) for address in addresses)
    return router


def prompt(tokens: int = 1000, seed: int = 0, request_id: str = "") -> Request:
    chain = np.random.default_rng(seed).integers(1, 2**63, tokens // 64, dtype=np.uint64)
    return Request(model="m", prompt_tokens=tokens, chain=chain, block_tokens=64.0, hints=Hints(request_id=request_id))


def in_flight(router: Router) -> list[float]:
    return [float(n) for n in router.ledger.columns[own.IN_FLIGHT, router.pool.view.slots]]


def test_a_pick_reserves_and_its_end_releases_once() -> None:
    router = make_router()
    decision = router.pick(prompt(), None, now=0.0)
    assert sum(in_flight(router)) == 1
    assert router.ended(decision.flight, Outcome(status=200)) is decision
    assert router.ended(decision.flight, Outcome(status=200)) is None
    assert in_flight(router) == [0, 0, 0, 0]


def test_what_a_pick_leaves_to_later_ones_waits_and_yet_comes_before_them() -> None:
    waiting: list[Callable[[], None]] = []
    router = router_with({"later": waiting.append})
    first = router.pick(prompt(), None, now=0.0)
    assert (sum(in_flight(router)), len(router.log), len(waiting)) == (1, 0, 1)
    again = router.pick(prompt(), None, now=0.1)
    assert len(router.log) == 1
    assert again.rows.hit_tokens[first.chosen] > 0
    for work in waiting:
        work()
    assert [decision.flight for decision in router.log.last(9)] == [again.flight, first.flight]


def test_picks_are_the_same_whether_the_rest_of_them_waits_or_not() -> None:
    at_once, waiting = make_router("learned"), router_with({"later": lambda work: None}, "learned")
    for i in range(200):
        request = prompt(seed=i % 7)
        picks = [router.pick(request, None, now=i / 50) for router in (at_once, waiting)]
        assert picks[0].addresses == picks[1].addresses
        for router, decision in zip((at_once, waiting), picks, strict=True):
            if i % 3:
                router.first_byte(decision.flight, i / 50 + 0.01)
                router.ended(decision.flight, Outcome(status=200, ttft_s=0.01, completion_tokens=9))
    assert in_flight(at_once) == in_flight(waiting)


def test_what_fails_after_a_pick_touches_neither_it_nor_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[Exception] = []
    router = router_with({"later": lambda work: None, "failed": failures.append})
    monkeypatch.setattr(router.policy, "picked", lambda *_: 1 / 0)
    first, second = (router.pick(prompt(), None, now=float(i)) for i in range(2))
    assert [type(failure) for failure in failures] == [ZeroDivisionError]
    assert {first.flight, second.flight} == {flight for flight in range(9) if router.is_open(flight)}


def test_a_burst_of_500_requests_sees_itself() -> None:
    router = make_router()
    for i in range(500):
        router.pick(prompt(seed=i), None, now=i / 500)
    assert max(in_flight(router)) <= 2 * min(in_flight(router))


def test_the_destination_list_has_the_pick_first_and_no_endpoint_twice() -> None:
    decision = make_router(destinations=3).pick(prompt(), None, now=0.0)
    assert len(set(decision.addresses)) == 3
    assert decision.scores.cost[decision.order[0]] == decision.scores.cost.min()


def test_a_subset_restricts_pick_and_fallbacks() -> None:
    decision = make_router().pick(prompt(), ["10.0.0.2:8000", "10.0.0.3"], now=0.0)
    assert set(decision.addresses) == {"10.0.0.2:8000", "10.0.0.3:8000"}


@pytest.mark.parametrize("subset", [[], ["10.9.9.9:8000"]])
def test_a_subset_without_a_ready_endpoint_picks_nothing(subset: list[str]) -> None:
    router = make_router()
    with pytest.raises(NoEndpoint):
        router.pick(prompt(), subset, now=0.0)
    assert in_flight(router) == [0, 0, 0, 0]


def test_an_empty_pool_picks_nothing() -> None:
    with pytest.raises(NoEndpoint):
        make_router(addresses=[]).pick(prompt(), None, now=0.0)


def test_the_second_turn_of_a_conversation_returns_to_its_endpoint() -> None:
    router = make_router()
    first = router.pick(prompt(2000), None, now=0.0)
    router.ended(first.flight, Outcome(status=200))
    second = router.pick(prompt(2000), None, now=10.0)
    assert second.addresses[0] == first.addresses[0]
    assert second.predicted_hit_tokens > 1900


def test_after_a_fallback_the_reservation_stands_where_the_request_is() -> None:
    router = make_router()
    decision = router.pick(prompt(), None, now=0.0)
    router.served(decision.flight, decision.addresses[1])
    assert in_flight(router)[decision.order[1]] == 1
    assert in_flight(router)[decision.chosen] == 0


def test_an_endpoint_that_leaves_takes_its_counts_along_and_its_running_answers_end_quietly() -> None:
    router = make_router()
    flights = [router.pick(prompt(seed=i), None, now=0.0).flight for i in range(8)]
    router.update_pool([])
    router.update_pool(Endpoint(f"10.0.1.{i}:8000") for i in range(4))
    for flight in flights:
        router.ended(flight, Outcome(status=200))
    assert in_flight(router) == [0, 0, 0, 0]


def test_a_flight_that_nobody_ends_is_swept() -> None:
    router = make_router(sweep_after_s=100.0)
    router.pick(prompt(), None, now=0.0)
    assert router.sweep(now=99.0) == 0
    assert router.sweep(now=101.0) == 1
    assert in_flight(router) == [0, 0, 0, 0]


def test_open_flights_are_bounded_and_the_oldest_gives_way() -> None:
    router = make_router(max_flights=10)
    first = router.pick(prompt(), None, now=0.0).flight
    for i in range(10):
        router.pick(prompt(seed=i), None, now=1.0)
    assert not router.is_open(first)
    assert sum(in_flight(router)) == 10


def test_flight_ids_of_workers_never_meet() -> None:
    ids = [make_router(worker=w, workers=3).pick(prompt(), None, now=0.0).flight % 3 for w in range(3)]
    assert ids == [0, 1, 2]


def test_a_decision_is_found_by_its_request_id_with_its_outcome() -> None:
    router = make_router()
    decision = router.pick(prompt(request_id="abc"), None, now=0.0)
    router.ended(decision.flight, Outcome(status=200, ttft_s=0.5))
    (found,) = router.log.by_request_id("abc")
    assert found.ended
    assert found.outcome.ttft_s == 0.5


def exact_prompt(tokens: int, seed: int = 0) -> Request:
    chain = np.random.default_rng(seed).integers(1, 2**63, tokens // 16, dtype=np.uint64)
    return Request(model="m", prompt_tokens=tokens, chain=chain, block_tokens=16.0, exact=True)


def test_a_burst_of_equal_prompts_sees_itself_before_any_engine_announces_its_blocks() -> None:
    router = make_router(addresses=[])
    router.update_pool(Endpoint(address, kv_events="tcp://10.0.0.9:5557") for address in ADDRESSES)
    first = router.pick(exact_prompt(4000), None, now=0.0)
    router.ended(first.flight, Outcome(status=200))
    soon, later = router.pick(exact_prompt(4000), None, now=0.1), router.pick(exact_prompt(4000), None, now=60.0)
    assert 4000 - 8 * 16 <= soon.rows.hit_tokens[first.chosen] <= 4000
    assert later.rows.hit_tokens.max() == 0


def test_endpoints_without_events_are_answered_from_own_picks() -> None:
    router = make_router()
    first = router.pick(exact_prompt(4000), None, now=0.0)
    assert router.pick(exact_prompt(4000), None, now=60.0).rows.hit_tokens[first.chosen] == 4000


@pytest.mark.parametrize("streamed", [True, False])
def test_only_the_first_byte_of_a_streamed_answer_is_its_first_token(streamed: bool) -> None:
    router = make_router("learned")
    for i in range(5):
        decision = router.pick(prompt(seed=i), None, now=float(i))
        decision.outcome.streamed = streamed
        router.first_byte(decision.flight, i + 0.2)
        router.ended(decision.flight, Outcome(status=200, ttft_s=0.2, duration_s=0.5, completion_tokens=4))
    assert isinstance(router.policy, Learned)
    assert router.policy.learner.guard.numbers["rows"] == (5 if streamed else 0)
    assert router.policy.learner.drain(9.0)["whole"].tolist() == [not streamed] * 5


def unreachable(router: Router, now: float, seed: int = 0) -> str:
    """A pick whose endpoint refuses the connection, so that the next of the list serves; returns its address."""
    decision = router.pick(prompt(seed=seed), None, now)
    router.served(decision.flight, decision.addresses[1], now + 0.1)
    router.ended(decision.flight, Outcome(status=200, complete=True), now + 0.2)
    return decision.addresses[0]


def test_an_endpoint_that_refused_a_connection_is_in_no_list_for_a_second() -> None:
    router = make_router(destinations=4)
    dead = unreachable(router, 0.0)
    soon = [router.pick(prompt(seed=i), None, now=0.3 + i / 100) for i in range(20)]
    assert not any(dead in decision.addresses for decision in soon)
    assert {decision.left_out for decision in soon} == {(dead,)}
    assert router.pick(prompt(seed=99), None, now=1.2).left_out == ()


def test_exactly_one_pick_tries_it_and_its_first_byte_brings_it_back() -> None:
    router = make_router()
    dead = unreachable(router, 0.0)
    later = [router.pick(prompt(seed=i), None, now=2.0) for i in range(40)]
    (trial,) = [decision for decision in later if decision.addresses[0] == dead]
    router.first_byte(trial.flight, 2.1, status=200)
    assert [router.pick(prompt(seed=i), None, now=2.2).left_out for i in range(9)] == [()] * 9


def test_a_black_hole_gets_few_of_many_requests() -> None:
    """An endpoint that answers 500 in no time looks idle, and idle looks best."""
    router, seen = make_router("least-request"), []
    for i in range(600):
        now = i / 100
        decision = router.pick(prompt(seed=i), None, now)
        bad = decision.addresses[0] == ADDRESSES[0]
        seen.append(bad)
        if bad:
            router.served(decision.flight, ADDRESSES[0], now)
            router.first_byte(decision.flight, now, 0.001, 500)
            router.ended(decision.flight, Outcome(status=500, complete=True, fault=Fault.BROKEN), now)
    assert 3 <= sum(seen) <= 6
    assert sum(seen[:9]) >= 3


def test_where_all_but_what_fails_is_excluded_by_the_policy_the_pick_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    router = make_router("least-request")
    dead = unreachable(router, 0.0)
    ranked = router.policy.score

    def only_the_dead(request: Request, rows: Rows, now: float) -> Scores:
        there = rows.slots == router.pool.view.slots[ADDRESSES.index(dead)]
        return Scores(np.where(there, ranked(request, rows, now).cost, np.inf))

    monkeypatch.setattr(router.policy, "score", only_the_dead)
    decision = router.pick(prompt(), None, now=0.3)
    assert (decision.addresses, decision.left_out) == ((dead,), ())


def test_one_endpoint_is_picked_whatever_it_does() -> None:
    router = make_router(addresses=ADDRESSES[:1])
    for i in range(9):
        decision = router.pick(prompt(seed=i), None, now=i / 10)
        assert decision.addresses == (ADDRESSES[0],)
        router.ended(decision.flight, Outcome(status=503, served=ADDRESSES[0], fault=Fault.UNREACHED), now=i / 10)


@pytest.mark.parametrize("served", ["192.0.2.1:80", ADDRESSES[0]])
def test_who_serves_is_believed_to_be_no_fallback_where_it_is_none_of_ours_or_the_pick(served: str) -> None:
    router = make_router(addresses=ADDRESSES[:1])
    router.served(router.pick(prompt(), None, now=0.0).flight, served, 0.1)
    assert router.failing.known == {}


def test_a_later_word_about_who_serves_stands_for_the_one_before() -> None:
    router = make_router()
    decision = router.pick(prompt(), None, now=0.0)
    for position in range(3):
        router.served(decision.flight, decision.addresses[position], 0.1)
    assert in_flight(router)[decision.order[2]] == 1 == sum(in_flight(router))
    assert set(router.failing.known) == {int(decision.rows.slots[row]) for row in decision.order[:2]}


@pytest.mark.parametrize("outcome", [Outcome(), Outcome(status=404, complete=True), Outcome(status=504)])
def test_an_end_that_says_nothing_of_the_endpoint_counts_nowhere(outcome: Outcome) -> None:
    router = make_router()
    for i in range(9):
        router.ended(router.pick(prompt(seed=i), None, now=0.0).flight, outcome, 0.1)
    assert router.failing.known == {}


@pytest.mark.parametrize("other", [Request(), Request(api=Api.TOKENIZE, model="m")])
def test_an_answer_that_the_model_had_no_part_in_says_nothing(other: Request) -> None:
    """A list of models, say, which an engine may give whose model cannot run."""
    router = make_router(addresses=ADDRESSES[:2])
    broken = Outcome(status=500, complete=True, served=ADDRESSES[0], fault=Fault.BROKEN)
    for _ in range(6):
        router.ended(router.pick(other, None, now=0.0).flight, broken)
    assert router.failing.known == {}
    for i in range(3):
        router.ended(router.pick(prompt(seed=i), [ADDRESSES[0]], now=0.1).flight, broken)
        well = router.pick(other, [ADDRESSES[0]], now=0.1)
        router.first_byte(well.flight, 0.2, status=200)
        router.ended(well.flight, Outcome(status=200, complete=True))
    assert router.pick(prompt(), None, now=0.3).left_out == (ADDRESSES[0],)


def test_an_endpoint_that_takes_the_place_of_one_that_failed_is_trusted() -> None:
    router = make_router()
    dead = unreachable(router, 0.0)
    staying = [Endpoint(address) for address in ADDRESSES if address != dead]
    for pool in (staying, [*staying, Endpoint("10.0.0.9:8000")]):
        router.update_pool(pool)
    assert router.pick(prompt(), None, now=0.3).left_out == ()


def test_an_error_that_is_answered_at_once_is_no_fast_answer_to_learn_from() -> None:
    router = make_router("learned")
    for i in range(5):
        decision = router.pick(prompt(seed=i), None, now=float(i))
        router.served(decision.flight, decision.addresses[0], i + 0.01)
        router.first_byte(decision.flight, i + 0.01, 0.01, 500)
        router.ended(decision.flight, Outcome(status=500, ttft_s=0.01, complete=True, fault=Fault.BROKEN), i + 0.01)
        unreachable(router, i + 0.5, seed=10 + i)
    assert isinstance(router.policy, Learned)
    learner = router.policy.learner
    assert (learner.guard.numbers["rows"], len(learner.drain(9.0))) == (0, 0)
