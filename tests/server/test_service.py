"""What the access log owes a service, and what happens when it does not pay."""

from typing import Any

import pytest
from ext_proc_messages import NONE, SSE, request_body, request_headers, response_headers
from small_service import ADDRESSES, CHAT, POST, Clock, Peers, in_flight, make_service, queued

from picker.exchange.access_log import AccessRecord
from picker.routing.decisions import Decision
from picker.routing.outcome import Fault
from picker.server.conversation import Conversation
from picker.server.service import LOG_GRACE_S, UNSURE_S, Service


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(clock: Clock) -> Service:
    return make_service(clock)


def unseen(service: Service, *, answering: bool = True) -> Decision:
    """A request whose stream is over and whose answer goes on out of sight."""
    conversation = Conversation(service)
    conversation.receive(request_headers(POST, response=NONE))
    conversation.receive(request_body(CHAT, end=True))
    if answering:
        conversation.receive(response_headers(SSE))
    conversation.close()
    return service.router.log.last(1)[0]


def record(flight: int | None, *, ended: bool = True, **facts: Any) -> AccessRecord:
    return AccessRecord(flight, ended, 200, **facts)


def result(service: Service) -> dict[str, float]:
    """Access-log records by what became of them."""
    (family,) = service.metrics.log_records.collect()
    return {sample.labels["result"]: sample.value for sample in family.samples}


def test_the_end_in_the_log_releases_and_tells_the_facts(service: Service) -> None:
    service.access_log_opened()
    decision = unseen(service)
    told = record(
        decision.flight,
        served=ADDRESSES[0],
        ttft_s=0.25,
        duration_s=1.25,
        prompt_tokens=120,
        cached_tokens=64,
        completion_tokens=5,
    )
    service.logged(told)
    facts = decision.outcome
    assert (facts.status, facts.served, facts.complete) == (200, ADDRESSES[0], True)
    assert (facts.ttft_s, facts.duration_s, facts.tpot_s) == (0.25, 1.25, 0.25)
    assert (facts.prompt_tokens, facts.cached_tokens, facts.completion_tokens) == (120, 64, 5)
    assert in_flight(service) == 0


def test_a_first_byte_in_the_log_ends_the_prefill_only(service: Service) -> None:
    decision = unseen(service)
    service.logged(record(decision.flight, ended=False, ttft_s=0.25))
    assert (queued(service), in_flight(service)) == (0, 1)


def test_an_answer_that_was_cut_off_is_not_complete(service: Service) -> None:
    decision = unseen(service)
    service.logged(record(decision.flight, flags=("downstream_connection_termination",)))
    assert decision.outcome.complete is False
    assert in_flight(service) == 0


def test_the_same_end_told_twice_counts_once(service: Service) -> None:
    decision = unseen(service)
    for _ in range(2):
        service.logged(record(decision.flight))
    assert result(service) == {"end": 1, "late": 1}
    assert in_flight(service) == 0


def test_a_record_without_a_flight_is_nobodys(service: Service) -> None:
    unseen(service)
    service.logged(record(None))
    assert result(service) == {"foreign": 1}
    assert in_flight(service) == 1


def test_a_log_that_comes_before_the_streams_end_is_enough(service: Service, clock: Clock) -> None:
    service.access_log_opened()
    conversation = Conversation(service)
    conversation.receive(request_headers(POST, response=NONE))
    conversation.receive(request_body(CHAT, end=True))
    (decision,) = service.router.log.last(1)
    service.logged(record(decision.flight))
    conversation.close()
    clock.now += 2 * LOG_GRACE_S
    assert service.sweep() == 0


def test_with_a_log_connected_a_long_answer_is_waited_for(service: Service, clock: Clock) -> None:
    service.access_log_opened()
    unseen(service)
    clock.now += 100 * LOG_GRACE_S
    assert service.sweep() == 0
    assert in_flight(service) == 1


def test_without_a_log_an_unseen_answer_is_given_up_after_the_grace(service: Service, clock: Clock) -> None:
    unseen(service)
    clock.now += LOG_GRACE_S
    assert service.sweep() == 0
    clock.now += 0.1
    assert service.sweep() == 1
    assert in_flight(service) == 0


def test_a_request_that_ended_before_its_answer_is_not_waited_for_long(service: Service, clock: Clock) -> None:
    # Envoy that lost its client before it read the pick logs the request without a flight.
    service.access_log_opened()
    unseen(service, answering=False)
    clock.now += UNSURE_S
    assert service.sweep() == 0
    clock.now += 0.1
    assert service.sweep() == 1


def test_an_answer_that_the_log_speaks_of_is_waited_for_though_its_headers_were_not_shown(
    service: Service, clock: Clock
) -> None:
    service.access_log_opened()
    decision = unseen(service, answering=False)
    service.logged(record(decision.flight, ended=False))
    clock.now += 10 * UNSURE_S
    assert service.sweep() == 0


def test_a_stream_that_breaks_just_after_a_log_is_not_waited_for_long(service: Service, clock: Clock) -> None:
    for _ in range(2):
        service.access_log_opened()
    service.access_log_closed()
    unseen(service)
    clock.now += LOG_GRACE_S + 0.1
    assert service.sweep() == 1


def test_what_a_broken_log_owed_is_given_up_even_if_another_log_is_connected(service: Service, clock: Clock) -> None:
    for _ in range(2):
        service.access_log_opened()
    lost, kept = unseen(service), unseen(service)
    service.access_log_closed()
    clock.now += 0.2
    service.logged(record(kept.flight, ended=False))
    clock.now += LOG_GRACE_S
    assert service.sweep() == 1
    assert (lost.ended, kept.ended) == (True, False)


def test_flights_without_any_word_are_swept_in_the_end(service: Service, clock: Clock) -> None:
    service.access_log_opened()
    decision = unseen(service)
    clock.now += service.router.settings.sweep_after_s + 1
    assert service.sweep() == 1
    assert (decision.ended, decision.outcome.complete) == (True, False)


def test_a_record_of_another_workers_flight_is_handed_over(clock: Clock) -> None:
    service = make_service(clock, worker=0, workers=2)
    service.relay = peers = Peers()
    told = record(7)
    service.logged(told)
    assert peers.sent == [(1, told)]
    peers.full = True
    service.logged(told)
    assert result(service) == {"relayed": 1, "lost": 1}


def test_a_log_at_another_worker_counts_as_connected_and_its_break_is_told(clock: Clock) -> None:
    service = make_service(clock, worker=0, workers=2)
    service.relay = peers = Peers(live=True)
    assert service.access_log_live
    peers.live = False
    assert not service.access_log_live
    service.access_log_opened()
    service.access_log_closed()
    assert peers.broken == 1


def test_workers_count_flights_apart_from_a_given_start(clock: Clock) -> None:
    services = [make_service(clock, worker=worker, workers=3, first_flight=1000) for worker in range(3)]
    flights = [[unseen(service).flight for _ in range(2)] for service in services]
    assert [[flight % 3 for flight in each] for each in flights] == [[0, 0], [1, 1], [2, 2]]
    assert min(min(each) for each in flights) == 1000


def test_observed_prompt_lengths_teach_the_reader(service: Service) -> None:
    before = service.reader.ratios.ratio("m")
    for _ in range(20):
        service.logged(record(unseen(service).flight, prompt_tokens=100, cached_tokens=0))
    assert service.reader.ratios.ratio("m") != before


GAVE_UP = "downstream_connection_termination"
NO_CONNECTION = ("upstream_connection_failure", "upstream_retry_limit_exceeded")


@pytest.mark.parametrize(
    ("status", "flags", "fault"),
    [
        (200, (), None),
        (404, (), None),
        (500, (), Fault.BROKEN),
        (501, (), None),
        (503, ("upstream_retry_limit_exceeded",), Fault.BROKEN),
        (504, ("upstream_request_timeout",), None),
        (503, ("upstream_overflow",), None),
        (503, ("no_healthy_upstream",), None),
        (503, NO_CONNECTION, Fault.UNREACHED),
        (503, ("upstream_connection_termination",), Fault.BROKEN),
        (200, ("upstream_protocol_error",), Fault.BROKEN),
        (200, (GAVE_UP,), None),
        (200, ("upstream_remote_reset", GAVE_UP), None),
        (500, (GAVE_UP,), None),
        (0, (GAVE_UP,), None),
    ],
)
def test_an_end_speaks_against_its_endpoint_only_where_neither_client_nor_proxy_made_it(
    service: Service, status: int, flags: tuple[str, ...], fault: Fault | None
) -> None:
    decision = unseen(service, answering=False)
    service.logged(AccessRecord(decision.flight, True, status, flags, served=decision.addresses[0]))
    assert decision.outcome.fault is fault
    assert service.router.failing.counts[Fault.BROKEN] == (fault is Fault.BROKEN)
    assert service.router.failing.counts[Fault.UNREACHED] == (fault is Fault.UNREACHED)


def test_what_the_log_tells_of_a_failing_endpoint_keeps_the_next_request_away_until_its_time_is_over(
    service: Service, clock: Clock
) -> None:
    decision = unseen(service, answering=False)
    first, second = decision.addresses[:2]
    service.logged(record(decision.flight, ended=False, served=first))
    clock.now += 1.1
    service.logged(record(decision.flight, served=second, ttft_s=1.05))
    clock.now += 0.9
    assert unseen(service).left_out == (first,)
    clock.now += 0.2
    assert unseen(service).left_out == ()
