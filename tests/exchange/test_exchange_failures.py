"""Refusals: the table, their form on the wire, and what the exchange refuses by itself."""

import json

import pytest
from ext_proc_messages import (
    BUFFERED,
    FDS,
    POST,
    RESPONSE_TRAILERS,
    STREAMED,
    forwarded,
    kinds,
    replies,
    request_body,
    request_headers,
    response_body,
    response_headers,
    set_headers,
)

from picker.exchange.decode import BodyMode
from picker.exchange.events import Ending, ProtocolError, RequestEnded, RequestRefused
from picker.exchange.failures import FAILURES, Failure, Refusal, bad_request, internal_error, no_endpoints
from picker.exchange.machine import Exchange, ExchangeSettings
from picker.proto.ext_proc_pb2 import ImmediateResponse, ProcessingRequest

PROTOCOL = [
    (Failure.BAD_REQUEST, 400, None),
    (Failure.BODY_TOO_LARGE, 413, None),
    (Failure.NOT_CACHED, 412, None),
    (Failure.NO_ENDPOINTS, 503, "rejected-no-endpoints"),
    (Failure.EMPTY_SUBSET, 503, "rejected-no-endpoints"),
    (Failure.SCREENED_OUT, 503, "rejected-no-endpoints"),
    (Failure.FILTERED_OUT, 503, "rejected-no-endpoints"),
    (Failure.SATURATED, 429, "rejected-saturated"),
    (Failure.NOT_ADMITTED, 429, "rejected-saturated"),
    (Failure.QUEUE_FULL, 429, "rejected-saturated"),
    (Failure.QUEUE_FULL_EMPTY_POOL, 503, "rejected-no-endpoints"),
    (Failure.QUEUE_EXPIRED, 429, "rejected-ttl-expired"),
    (Failure.QUEUE_EXPIRED_EMPTY_POOL, 503, "rejected-ttl-expired"),
    (Failure.CLIENT_GONE, 503, "rejected-context-cancelled"),
    (Failure.SHUTTING_DOWN, 503, "rejected-shutting-down"),
    (Failure.EVICTED, 429, "evicted"),
    (Failure.EVICTED_QUEUE_PRESSURE, 429, "evicted-queue-pressure"),
    (Failure.EVICTED_PRIORITY, 429, "evicted-priority"),
    (Failure.INTERNAL, 500, None),
]


def refused(refusal: Refusal) -> ImmediateResponse:
    exchange = Exchange()
    exchange.receive(request_headers(end=True))
    exchange.refuse(refusal)
    (reply,) = replies(exchange)
    assert exchange.done
    return reply.immediate_response


def test_every_failure_is_in_the_protocols_table() -> None:
    assert {row[0] for row in PROTOCOL} == set(Failure) == set(FAILURES)


@pytest.mark.parametrize(("failure", "status", "dropped"), PROTOCOL)
def test_client_gets_status_json_error_and_headers(failure: Failure, status: int, dropped: str | None) -> None:
    reply = refused(Refusal(failure))
    headers = set_headers(reply.headers)
    error = json.loads(reply.body)["error"]
    assert reply.status.code == status
    assert headers["content-type"] == "application/json"
    assert headers.get("x-llm-d-request-dropped-reason") == dropped
    assert ("retry-after" in headers) == (status in (429, 503))
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["code"] == failure.value
    assert reply.details == f"picker_{failure.value}"


def test_what_is_known_about_the_request_replaces_the_tables_words() -> None:
    reply = refused(bad_request("no such field", status=404, param="messages[0]", code="unknown_field"))
    assert reply.status.code == 404
    assert json.loads(reply.body)["error"] == {
        "message": "no such field",
        "type": "invalid_request_error",
        "param": "messages[0]",
        "code": "unknown_field",
    }


def test_retry_after_can_be_told() -> None:
    assert set_headers(refused(Refusal(Failure.SATURATED, retry_after_s=30)).headers)["retry-after"] == "30"
    assert no_endpoints("none in zone b").status == 503
    assert internal_error().retry_after is None


@pytest.mark.parametrize("text", ['quote " and \\', "line\nbreak", "\ud800 lone", "\x00", "é" * 1000])
def test_any_text_makes_a_valid_error_body(text: str) -> None:
    assert json.loads(refused(bad_request(text)).body)["error"]["message"] == text


def test_eviction_works_in_any_phase() -> None:
    for exchange in (Exchange(), forwarded(), forwarded(response=FDS)):
        exchange.refuse(Refusal(Failure.EVICTED))
        assert kinds(replies(exchange)) == ["immediate_response"]
        assert exchange.disconnected() == [RequestEnded(Ending.REFUSED)]


def test_a_refusal_after_the_end_says_nothing() -> None:
    exchange = forwarded()
    exchange.disconnected()
    exchange.refuse(Refusal(Failure.EVICTED))
    assert exchange.data_to_send() == []


class TestBodyLimit:
    SETTINGS = ExchangeSettings(max_body_bytes=10)

    def test_body_at_the_limit_passes(self) -> None:
        exchange = Exchange(self.SETTINGS)
        exchange.receive(request_headers({**POST, "content-length": "10"}))
        assert len(exchange.receive(request_body(b"x" * 10, end=True))) == 1
        assert replies(exchange) == []

    @pytest.mark.parametrize("mode", [FDS, BUFFERED])
    def test_body_above_the_limit_gets_413(self, mode: BodyMode) -> None:
        exchange = Exchange(self.SETTINGS)
        exchange.receive(request_headers(request=mode))
        events = exchange.receive(request_body(b"x" * 11))
        assert isinstance(events[0], RequestRefused)
        assert events[1] == RequestEnded(Ending.REFUSED)
        assert replies(exchange)[-1].immediate_response.status.code == 413

    @pytest.mark.parametrize("declared", ["11", "9" * 30])
    def test_declared_length_above_the_limit_is_not_read_at_all(self, declared: str) -> None:
        exchange = Exchange(self.SETTINGS)
        events = exchange.receive(request_headers({**POST, "content-length": declared}))
        assert isinstance(events[0], RequestRefused)
        assert exchange.done

    @pytest.mark.parametrize("declared", ["-1", "ten", "", "١١"])
    def test_unreadable_length_is_left_to_the_proxy(self, declared: str) -> None:
        assert Exchange(self.SETTINGS).receive(request_headers({**POST, "content-length": declared})) == []


class TestNonsense:
    def test_garbage_before_the_pick_is_refused_with_500(self) -> None:
        exchange = Exchange()
        exchange.receive(request_headers())
        events = exchange.receive(b"\xff\xff\xff")
        assert isinstance(events[0], ProtocolError)
        assert events[1] == RequestEnded(Ending.REFUSED)
        assert replies(exchange)[0].immediate_response.status.code == 500

    def test_garbage_during_an_answer_that_passes_by_lets_it_go_on(self) -> None:
        exchange = forwarded(response=STREAMED)
        exchange.receive(response_headers())
        exchange.data_to_send()
        events = exchange.receive(b"\xff\xff\xff")
        assert [type(events[0]), events[1]] == [ProtocolError, RequestEnded(Ending.DETACHED)]
        assert replies(exchange) == []
        assert exchange.done

    def test_garbage_during_an_echo_cuts_the_answer_visibly(self) -> None:
        exchange = forwarded(response=FDS)
        exchange.receive(response_headers())
        exchange.data_to_send()
        exchange.receive(b"\xff\xff\xff")
        assert kinds(replies(exchange)) == ["immediate_response"]

    @pytest.mark.parametrize("message", [b"", ProcessingRequest(attributes={}).SerializeToString(), b"\xda\x03\x00"])
    def test_unknown_part_is_told_and_otherwise_ignored(self, message: bytes) -> None:
        exchange = Exchange()
        exchange.receive(request_headers())
        assert [type(event) for event in exchange.receive(message)] == [ProtocolError]
        assert exchange.receive(request_body(b"{}", end=True))
        assert not exchange.done

    @pytest.mark.parametrize(
        "messages",
        [
            [request_body(b"{}")],
            [response_body(b"{}")],
            [RESPONSE_TRAILERS],
            [request_headers(), request_headers()],
            [request_headers(), request_body(b"", end=True), request_body(b"more")],
            [response_headers(), response_headers()],
            [response_headers(), request_headers(end=True)],
            [request_headers(), request_headers(end=True)],
            [request_headers(), response_body(b"", end=True)],
        ],
    )
    def test_out_of_order_messages_end_the_exchange(self, messages: list[bytes]) -> None:
        exchange = Exchange()
        events = [event for message in messages for event in exchange.receive(message)]
        assert isinstance(events[-2], ProtocolError)
        assert isinstance(events[-1], RequestEnded)
        assert exchange.done
