"""The response side: what is told, what is sent back, and when an exchange is done."""

import pytest
from ext_proc_messages import (
    BUFFERED,
    FDS,
    NONE,
    OK,
    RESPONSE_TRAILERS,
    SSE,
    STREAMED,
    ends,
    forwarded,
    kinds,
    replies,
    request_body,
    request_headers,
    response_body,
    response_headers,
    set_headers,
    streamed_body,
)

from picker.exchange.decode import BodyMode
from picker.exchange.events import Ending, RequestEnded, ResponseData, ResponseStarted
from picker.exchange.machine import Exchange, ExchangeSettings

SERVED = {"envoy.lb": {"x-gateway-destination-endpoint-served": "10.0.0.2:8000"}}


def ended(ending: Ending) -> RequestEnded:
    return RequestEnded(ending)


class TestHeaders:
    def test_status_type_and_served_endpoint_are_told(self) -> None:
        (event,) = forwarded().receive(response_headers(SSE, metadata=SERVED))
        assert event == ResponseStarted(200, "10.0.0.2:8000", "text/event-stream; charset=utf-8", streaming=True)

    def test_served_endpoint_falls_back_to_the_upstream_address(self) -> None:
        (event,) = forwarded().receive(response_headers(attributes={"upstream.address": "10.0.0.3:8000"}))
        assert isinstance(event, ResponseStarted)
        assert event.served == "10.0.0.3:8000"

    @pytest.mark.parametrize("headers", [{}, {"status": "200"}, {":status": "²00"}, {":status": "abc"}])
    def test_only_a_readable_pseudo_header_is_a_status(self, headers: dict[str, str]) -> None:
        (event,) = forwarded().receive(response_headers(headers))
        assert isinstance(event, ResponseStarted)
        assert event.status == 0

    def test_served_endpoint_can_be_told_to_the_client(self) -> None:
        exchange = forwarded(exchange=Exchange(ExchangeSettings(served_header="x-served")))
        exchange.receive(response_headers(metadata=SERVED))
        mutation = replies(exchange)[0].response_headers.response.header_mutation
        assert set_headers(mutation) == {"x-served": "10.0.0.2:8000"}

    @pytest.mark.parametrize(("metadata", "serving"), [(SERVED, "10.0.0.2:8000"), ({}, "10.0.0.1:8000")])
    def test_a_header_of_the_answer_can_be_made_from_who_serves_or_was_picked(
        self, metadata: dict[str, dict[str, str]], serving: str
    ) -> None:
        settings = ExchangeSettings(answer_header=lambda address: ("x-from", address))
        exchange = forwarded(exchange=Exchange(settings))
        exchange.receive(response_headers(metadata=metadata))
        mutation = replies(exchange)[0].response_headers.response.header_mutation
        assert set_headers(mutation) == {"x-from": serving}

    def test_no_header_is_made_for_an_answer_that_envoy_gave_by_itself(self) -> None:
        exchange = Exchange(ExchangeSettings(answer_header=lambda address: ("x-from", address)))
        exchange.receive(request_headers())
        exchange.receive(response_headers({":status": "413"}))
        assert not replies(exchange)[-1].response_headers.response.HasField("header_mutation")

    def test_answer_without_a_body_is_whole(self) -> None:
        exchange = forwarded()
        assert exchange.receive(response_headers({":status": "204"}, end=True))[-1] == ended(Ending.ANSWERED)
        assert kinds(replies(exchange)) == ["response_headers"]
        assert exchange.done

    def test_envoy_may_answer_by_itself_before_any_pick(self) -> None:
        exchange = Exchange()
        exchange.receive(request_headers(request=BUFFERED))
        (event,) = exchange.receive(response_headers({":status": "413"}))
        assert isinstance(event, ResponseStarted)
        assert event.status == 413
        assert kinds(replies(exchange)) == ["request_headers", "response_headers"]

    def test_the_rest_of_a_request_is_not_replied_to_once_its_answer_has_begun(self) -> None:
        exchange = Exchange()
        exchange.receive(request_headers())
        exchange.receive(response_headers({":status": "504"}))
        assert exchange.receive(request_body(b"late", end=True)) == []
        assert kinds(replies(exchange)) == ["response_headers"]

    def test_envoy_may_answer_before_the_request_was_shown_at_all(self) -> None:
        assert isinstance(Exchange().receive(response_headers({":status": "401"}))[0], ResponseStarted)


class TestBodies:
    def test_full_duplex_sends_every_byte_back(self) -> None:
        exchange = forwarded(response=FDS)
        exchange.receive(response_headers(SSE))
        events = exchange.receive(response_body(b"one")) + exchange.receive(response_body(b"", end=True))
        found = replies(exchange)
        assert events == [ResponseData(b"one"), ResponseData(b"", end=True), ended(Ending.ANSWERED)]
        assert kinds(found) == ["response_headers", "response_body", "response_body"]
        assert streamed_body(found, "response_body") == b"one"
        assert ends(found, "response_body") == [False, True]
        assert exchange.done

    @pytest.mark.parametrize("mode", [STREAMED, BUFFERED])
    def test_other_modes_let_the_bytes_pass_unchanged(self, mode: BodyMode) -> None:
        exchange = forwarded(response=mode)
        exchange.receive(response_headers())
        assert exchange.receive(response_body(b"one", end=True))[0] == ResponseData(b"one", end=True)
        assert not replies(exchange)[1].response_body.response.HasField("body_mutation")
        assert exchange.done

    def test_trailers_end_the_answer(self) -> None:
        exchange = forwarded(response=FDS)
        exchange.receive(response_headers())
        exchange.receive(response_body(b"one"))
        assert exchange.receive(RESPONSE_TRAILERS) == [ended(Ending.ANSWERED)]
        found = replies(exchange)
        assert kinds(found) == ["response_headers", "response_body", "response_trailers"]
        assert ends(found, "response_body") == [False]


class TestEndings:
    def test_an_answer_that_is_not_shown_ends_elsewhere(self) -> None:
        exchange = forwarded(response=NONE)
        exchange.receive(response_headers())
        assert not exchange.done
        assert exchange.disconnected() == [ended(Ending.DETACHED)]

    @pytest.mark.parametrize("mode", [STREAMED, BUFFERED, FDS])
    def test_an_answer_that_breaks_off_is_aborted(self, mode: BodyMode) -> None:
        exchange = forwarded(response=mode)
        exchange.receive(response_headers())
        assert exchange.disconnected() == [ended(Ending.ABORTED)]

    def test_a_client_that_goes_before_the_pick_aborts(self) -> None:
        exchange = Exchange()
        exchange.receive(request_headers())
        assert exchange.disconnected() == [ended(Ending.ABORTED)]

    def test_the_end_is_told_once(self) -> None:
        exchange = forwarded()
        exchange.disconnected()
        assert exchange.disconnected() == []
        assert exchange.receive(response_headers()) == []

    @pytest.mark.parametrize(("ending", "complete"), [(each, each is Ending.ANSWERED) for each in Ending])
    def test_only_a_whole_answer_is_complete(self, ending: Ending, complete: bool) -> None:
        assert RequestEnded(ending).complete is complete


class TestDetach:
    def detaching(self, response: BodyMode) -> Exchange:
        exchange = forwarded(response=response, exchange=Exchange(ExchangeSettings(detach=True)))
        exchange.receive(response_headers(SSE))
        return exchange

    def test_streamed_answer_is_let_go_after_its_first_bytes(self) -> None:
        exchange = self.detaching(STREAMED)
        assert exchange.receive(response_body(b"")) == [ResponseData(b"")]
        assert exchange.receive(response_body(b"one")) == [ResponseData(b"one"), ended(Ending.DETACHED)]
        assert kinds(replies(exchange)) == ["response_headers", "response_body", "response_body"]
        assert exchange.done

    def test_answer_of_one_chunk_is_seen_to_its_end(self) -> None:
        assert self.detaching(STREAMED).receive(response_body(b"all", end=True))[-1] == ended(Ending.ANSWERED)

    def test_full_duplex_answer_is_never_let_go(self) -> None:
        exchange = self.detaching(FDS)
        assert exchange.receive(response_body(b"one")) == [ResponseData(b"one")]
        assert not exchange.leave()
        assert not exchange.done


class TestLeave:
    @pytest.mark.parametrize("mode", [NONE, STREAMED, BUFFERED])
    def test_a_request_with_its_pick_can_be_handed_back(self, mode: BodyMode) -> None:
        exchange = forwarded(response=mode)
        assert exchange.leave()
        assert exchange.disconnected() == [ended(Ending.DETACHED)]

    def test_a_request_without_its_pick_cannot(self) -> None:
        exchange = Exchange()
        exchange.receive(request_headers())
        assert not exchange.leave()

    def test_an_echoed_answer_cannot(self) -> None:
        exchange = forwarded(response=FDS)
        exchange.receive(response_headers(OK))
        assert exchange.echoing
        assert not exchange.leave()
