"""One ext_proc stream: what Envoy says becomes a pick, and what becomes of the answer ends it."""

import json
from collections.abc import Mapping

import pytest
from ext_proc_messages import (
    BUFFERED,
    FDS,
    NONE,
    OK,
    SSE,
    STREAMED,
    request_body,
    request_headers,
    response_body,
    response_headers,
    set_headers,
    streamed_body,
)
from google.protobuf.struct_pb2 import Struct
from small_service import ADDRESSES, CHAT, POST, Clock, in_flight, make_service, queued

from picker.engines.metrics import EngineSample
from picker.exchange.decode import BodyMode
from picker.exchange.machine import ExchangeSettings
from picker.proto.ext_proc_pb2 import ProcessingResponse as Reply
from picker.requests.request import BadRequest
from picker.routing.outcome import Fault, Outcome
from picker.server.config import PickerConfig
from picker.server.conversation import Conversation
from picker.server.service import Service

USAGE = {"prompt_tokens": 120, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 64}}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(clock: Clock) -> Service:
    return make_service(clock)


def read(replies: list[bytes]) -> list[Reply]:
    return [Reply.FromString(reply) for reply in replies]


def ask(
    conversation: Conversation,
    body: bytes = CHAT,
    response: BodyMode = NONE,
    request: BodyMode = FDS,
    headers: Mapping[str, str] | None = None,
) -> list[Reply]:
    """Headers and body of a request, as Envoy would send them."""
    said = conversation.receive(request_headers({**POST, **(headers or {})}, request=request, response=response))
    return read(said + conversation.receive(request_body(body, end=True)))


def destinations(replies: list[Reply]) -> list[str]:
    mutation = next(reply for reply in replies if reply.HasField("dynamic_metadata"))
    part = mutation.request_headers if mutation.HasField("request_headers") else mutation.request_body
    return set_headers(part.response.header_mutation)["x-gateway-destination-endpoint"].split(",")


def beside(replies: list[Reply]) -> Struct:
    """What the pick's metadata say."""
    found = next(reply for reply in replies if reply.HasField("dynamic_metadata")).dynamic_metadata["envoy.lb"]
    assert isinstance(found, Struct)
    return found


def outcome(service: Service) -> Outcome:
    (decision,) = service.router.log.last(1)
    return decision.outcome


def test_a_whole_request_is_picked_for_and_counted(service: Service) -> None:
    replies = ask(Conversation(service))
    assert set(destinations(replies)) == set(ADDRESSES)
    assert streamed_body(replies, "request_body") == CHAT
    assert in_flight(service) == 1
    assert queued(service) > 100


def test_the_flight_travels_in_metadata_that_no_client_can_write(service: Service) -> None:
    replies = ask(Conversation(service))
    (decision,) = service.router.log.last(1)
    assert beside(replies[:1])["picker-flight"] == str(decision.flight)


def test_a_body_that_had_to_change_goes_out_changed(service: Service) -> None:
    body = json.loads(CHAT)
    replies = ask(Conversation(service), json.dumps({**body, "kv_transfer_params": {"a": 1}}).encode())
    assert json.loads(streamed_body(replies, "request_body")) == body


@pytest.mark.parametrize("body", [b"{", b"", b'{"messages": []}', b'{"model": "m", "messages": 7}', b"\xff"])
def test_a_body_that_cannot_be_read_is_refused_and_nothing_is_reserved(service: Service, body: bytes) -> None:
    conversation = Conversation(service)
    (reply,) = ask(conversation, body)
    assert reply.immediate_response.status.code == 400
    assert json.loads(reply.immediate_response.body)["error"]["message"]
    assert conversation.done
    assert in_flight(service) == 0


def test_an_empty_pool_is_a_503_that_says_when_to_come_back(clock: Clock) -> None:
    (reply,) = ask(Conversation(make_service(clock, addresses=())))
    assert reply.immediate_response.status.code == 503
    headers = {h.header.key: h.header.raw_value for h in reply.immediate_response.headers.set_headers}
    assert headers["retry-after"] == b"1"


def test_a_request_that_is_not_admitted_is_a_429_that_says_why_and_reserves_nothing(clock: Clock) -> None:
    service = make_service(clock, admits=lambda request, rows: False)
    (reply,) = ask(Conversation(service))
    assert reply.immediate_response.status.code == 429
    headers = {h.header.key: h.header.raw_value for h in reply.immediate_response.headers.set_headers}
    assert headers["x-llm-d-request-dropped-reason"] == b"rejected-saturated"
    assert in_flight(service) == 0


def test_a_full_pool_turns_away_sheddable_objectives_alone(clock: Clock) -> None:
    service = make_service(clock, admits=PickerConfig().admission())
    service.reader.follow({"batch": -1, "chat": 5}, ())
    for slot in service.router.pool.view.slots.tolist():
        service.router.table.observe(slot, EngineSample(running=9, waiting=9), clock(), 0.0)

    answers = [
        ask(Conversation(service), headers={"x-llm-d-inference-objective": name})[0] for name in ("batch", "chat", "?")
    ]

    assert [answer.HasField("immediate_response") for answer in answers] == [True, False, False]
    assert answers[0].immediate_response.status.code == 429


def test_a_subset_that_names_nobody_is_a_503(service: Service) -> None:
    conversation = Conversation(service)
    hint = {"envoy.lb.subset_hint": {"x-gateway-destination-endpoint-subset": "10.9.9.9:1"}}
    conversation.receive(request_headers(POST, metadata=hint))
    (reply,) = read(conversation.receive(request_body(CHAT, end=True)))
    assert reply.immediate_response.status.code == 503


def test_a_subset_is_passed_over_where_the_operator_says_so(service: Service) -> None:
    service.honour_subset = False
    conversation = Conversation(service)
    hint = {"envoy.lb.subset_hint": {"x-gateway-destination-endpoint-subset": "10.9.9.9:1"}}
    conversation.receive(request_headers(POST, metadata=hint))
    assert destinations(read(conversation.receive(request_body(CHAT, end=True))))[0] in ADDRESSES


def test_scores_travel_beside_the_pick_where_they_are_wanted_and_the_best_is_the_pick(service: Service) -> None:
    service.emit_scores = True
    found = ask(Conversation(service))
    told = beside(found)["x-gateway-destination-endpoint-scores"]
    assert isinstance(told, Struct)
    scores = {address: score.number_value for address, score in told.fields.items()}
    assert scores.keys() == set(ADDRESSES)
    assert scores[destinations(found)[0]] == max(scores.values())


def test_nobody_is_told_scores_unasked(service: Service) -> None:
    found = ask(Conversation(service))
    assert "x-gateway-destination-endpoint-scores" not in beside(found)


def test_what_breaks_inside_is_a_500_of_this_request_alone(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(service.router.policy, "score", broken)
    (reply,) = ask(Conversation(service))
    assert reply.immediate_response.status.code == 500
    assert b"ZeroDivision" not in reply.immediate_response.body
    monkeypatch.undo()
    assert destinations(ask(Conversation(service)))


def test_a_slow_reading_is_left_to_the_shell_and_resumed(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.reader, "is_slow", lambda _: True)
    conversation = Conversation(service)
    assert ask(conversation) == []
    assert conversation.slow is not None
    assert destinations(read(conversation.resume(service.reader.finish(conversation.slow))))
    assert conversation.slow is None


def test_a_slow_reading_that_fails_is_refused(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.reader, "is_slow", lambda _: True)
    conversation = Conversation(service)
    ask(conversation)
    (reply,) = read(conversation.resume(BadRequest("no such id", param="prompt")))
    assert reply.immediate_response.status.code == 400


def test_a_client_that_goes_during_a_slow_reading_reserves_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.reader, "is_slow", lambda _: True)
    conversation = Conversation(service)
    ask(conversation)
    draft = conversation.slow
    conversation.close()
    assert draft is not None
    assert conversation.resume(service.reader.finish(draft)) == []
    assert in_flight(service) == 0


def test_an_echoed_answer_tells_all_its_facts(service: Service, clock: Clock) -> None:
    conversation = Conversation(service)
    ask(conversation, response=FDS)
    clock.now += 0.25
    served = {"envoy.lb": {"x-gateway-destination-endpoint-served": ADDRESSES[0]}}
    conversation.receive(response_headers(SSE, metadata=served))
    clock.now += 0.25
    assert streamed_body(read(conversation.receive(response_body(b"data: {}\n\n"))), "response_body")
    assert queued(service) == 0
    clock.now += 1.0
    conversation.receive(response_body(b"data: %s\n\n" % json.dumps({"usage": USAGE}).encode()))
    conversation.receive(response_body(b"", end=True))
    facts = outcome(service)
    assert (facts.status, facts.served, facts.streamed, facts.complete) == (200, ADDRESSES[0], True, True)
    assert (facts.prompt_tokens, facts.cached_tokens, facts.completion_tokens) == (120, 64, 3)
    assert (facts.ttft_s, facts.duration_s, facts.tpot_s) == (0.5, 1.5, 0.5)
    assert conversation.done
    assert in_flight(service) == 0


def test_what_a_relayed_chunk_tells_counts_and_only_the_first_chunk_goes_the_long_way(service: Service) -> None:
    conversation = Conversation(service)
    ask(conversation, response=FDS)
    conversation.receive(response_headers(SSE))
    chunk = response_body(b"data: %s\n\n" % json.dumps({"usage": USAGE}).encode())
    assert conversation.relay(chunk) is None
    conversation.receive(response_body(b"data: {}\n\n"))
    relayed = conversation.relay(chunk)
    assert relayed is not None
    assert b"usage" in streamed_body(read([relayed]), "response_body")
    assert conversation.relay(response_body(b"", end=True)) is None
    conversation.receive(response_body(b"", end=True))
    assert outcome(service).completion_tokens == 3


def test_an_answer_that_breaks_off_is_released_and_not_complete(service: Service) -> None:
    conversation = Conversation(service)
    ask(conversation, response=FDS)
    conversation.receive(response_headers(SSE))
    conversation.receive(response_body(b"data: {}\n\n"))
    conversation.close()
    assert (outcome(service).status, outcome(service).complete) == (200, False)
    assert in_flight(service) == 0


@pytest.mark.parametrize("status", ["200", "404", "500", "501", "503", "504"])
def test_an_echoed_error_of_the_endpoint_counts_against_it(service: Service, status: str) -> None:
    conversation = Conversation(service)
    ask(conversation, response=FDS)
    conversation.receive(response_headers({":status": status}))
    conversation.receive(response_body(b"{}", end=True))
    counted = service.router.failing.counts[Fault.BROKEN]
    assert counted == (status in ("500", "503"))
    assert (outcome(service).fault is Fault.BROKEN) == bool(counted)


def test_closing_twice_changes_nothing(service: Service) -> None:
    conversation = Conversation(service)
    ask(conversation, response=FDS)
    conversation.close()
    conversation.close()
    assert in_flight(service) == 0


def test_an_unseen_answer_stays_counted_until_the_access_log_speaks(service: Service) -> None:
    conversation = Conversation(service)
    ask(conversation)
    conversation.receive(response_headers(SSE))
    conversation.close()
    assert in_flight(service) == 1
    assert outcome(service).status == 200


def test_a_detached_answer_keeps_the_first_byte_that_was_seen(clock: Clock) -> None:
    service = make_service(clock, exchange=ExchangeSettings(detach=True))
    service.access_log_opened()
    conversation = Conversation(service)
    ask(conversation, response=STREAMED)
    conversation.receive(response_headers(SSE))
    clock.now += 0.125
    conversation.receive(response_body(b"data: {}\n\n"))
    assert conversation.done
    conversation.close()
    assert outcome(service).ttft_s == 0.125
    assert queued(service) == 0
    assert in_flight(service) == 1


def test_without_an_access_log_nothing_is_detached(clock: Clock) -> None:
    service = make_service(clock, exchange=ExchangeSettings(detach=True))
    conversation = Conversation(service)
    ask(conversation, response=STREAMED)
    conversation.receive(response_headers(SSE))
    conversation.receive(response_body(b"data: {}\n\n"))
    assert not conversation.done


def test_a_fallback_moves_the_reservation_to_who_serves(service: Service) -> None:
    conversation = Conversation(service)
    picked, instead, _ = destinations(ask(conversation, response=FDS))
    served = {"envoy.lb": {"x-gateway-destination-endpoint-served": instead}}
    conversation.receive(response_headers(OK, metadata=served))
    view, columns = service.router.pool.view, service.router.ledger.columns
    counted = {address: columns[0, view.slots[view.by_address[address]]] for address in (picked, instead)}
    assert counted == {picked: 0, instead: 1}


@pytest.mark.parametrize("request_mode", [FDS, BUFFERED])
def test_a_get_is_picked_for_at_its_headers(service: Service, request_mode: BodyMode) -> None:
    conversation = Conversation(service)
    get = {":method": "GET", ":path": "/v1/models"}
    replies = read(conversation.receive(request_headers(get, end=True, request=request_mode)))
    assert destinations(replies)
    assert queued(service) <= 1


def test_a_stream_can_be_left_unless_its_answer_is_echoed(service: Service) -> None:
    unseen, echoed, reading = Conversation(service), Conversation(service), Conversation(service)
    ask(unseen)
    ask(echoed, response=FDS)
    reading.receive(request_headers(POST))
    assert (unseen.leave(), echoed.leave(), reading.leave()) == (True, False, False)


def test_garbage_ends_the_stream_without_an_exception(service: Service) -> None:
    conversation = Conversation(service)
    (reply,) = read(conversation.receive(b"\xff\xff\xff"))
    assert reply.immediate_response.status.code == 500
    assert conversation.done
    assert service.metrics.protocol_errors.total() == 1
