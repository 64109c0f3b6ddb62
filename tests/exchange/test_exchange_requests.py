"""The request side: when a pick is asked for, and what goes back to Envoy with it."""

import pytest
from ext_proc_messages import (
    BUFFERED,
    FDS,
    NONE,
    PICK,
    POST,
    REQUEST_TRAILERS,
    STREAMED,
    ends,
    kinds,
    replies,
    request_body,
    request_headers,
    set_headers,
    streamed_body,
)

from picker.exchange.decode import BodyMode
from picker.exchange.encode import Json
from picker.exchange.events import RequestArrived
from picker.exchange.machine import Answer, Exchange, ExchangeSettings
from picker.proto.ext_proc_pb2 import CommonResponse, HeaderValueOption, ProcessingRequest, ProcessingResponse

OVERWRITE = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD


def arrived(exchange: Exchange, *messages: bytes) -> RequestArrived:
    events = [event for message in messages for event in exchange.receive(message)]
    assert len(events) == 1
    assert isinstance(events[0], RequestArrived)
    return events[0]


def common(reply: ProcessingResponse) -> CommonResponse:
    found: CommonResponse = getattr(reply, str(reply.WhichOneof("response"))).response
    return found


class TestFullDuplex:
    def test_nothing_is_said_before_the_pick(self) -> None:
        exchange = Exchange()
        event = arrived(
            exchange, request_headers(), request_body(b"ab"), request_body(b"cd"), request_body(b"", end=True)
        )
        assert event.body == b"abcd"
        assert event.has_body
        assert (event.method, event.path, event.request_id) == ("POST", "/v1/completions", "r1")
        assert replies(exchange) == []

    def test_header_reply_then_the_untouched_body(self) -> None:
        exchange = Exchange()
        arrived(exchange, request_headers(), request_body(b"abcd"), request_body(b"", end=True))
        exchange.answer(PICK)
        found = replies(exchange)
        assert kinds(found) == ["request_headers", "request_body"]
        assert streamed_body(found, "request_body") == b"abcd"
        assert ends(found, "request_body") == [True]

    def test_large_body_goes_out_in_chunks_of_at_most_62000_bytes(self) -> None:
        exchange = Exchange()
        arrived(exchange, request_headers(), request_body(b"x" * 150_000, end=True))
        exchange.answer(PICK)
        found = replies(exchange)
        sizes = [len(common(r).body_mutation.streamed_response.body) for r in found[1:]]
        assert sizes == [62_000, 62_000, 26_000]
        assert ends(found, "request_body") == [False, False, True]

    def test_empty_body_is_one_empty_last_chunk(self) -> None:
        exchange = Exchange()
        assert arrived(exchange, request_headers(), request_body(b"", end=True)).has_body
        exchange.answer(PICK)
        found = replies(exchange)
        assert kinds(found) == ["request_headers", "request_body"]
        assert ends(found, "request_body") == [True]

    def test_trailers_end_the_request_and_follow_the_body(self) -> None:
        exchange = Exchange()
        assert arrived(exchange, request_headers(), request_body(b"ab"), REQUEST_TRAILERS).body == b"ab"
        exchange.answer(PICK)
        found = replies(exchange)
        assert kinds(found) == ["request_headers", "request_body", "request_trailers"]
        assert ends(found, "request_body") == [False]

    def test_changed_body_gets_its_length_where_the_client_declared_one(self) -> None:
        exchange = Exchange()
        headers = {**POST, "content-length": "4"}
        arrived(exchange, request_headers(headers), request_body(b"abcd", end=True))
        exchange.answer(Answer(("10.0.0.1:8000",), body=b"changed"))
        found = replies(exchange)
        assert set_headers(common(found[0]).header_mutation)["content-length"] == "7"
        assert streamed_body(found, "request_body") == b"changed"


class TestBuffered:
    def test_header_reply_at_once_then_the_pick_on_the_body_reply(self) -> None:
        exchange = Exchange()
        assert exchange.receive(request_headers(request=BUFFERED)) == []
        assert kinds(replies(exchange)) == ["request_headers"]
        assert arrived(exchange, request_body(b"abcd", end=True)).body == b"abcd"
        exchange.answer(PICK)
        (reply,) = replies(exchange)
        assert reply.WhichOneof("response") == "request_body"
        assert "x-gateway-destination-endpoint" in set_headers(common(reply).header_mutation)
        assert reply.dynamic_metadata.fields["envoy.lb"].struct_value.fields["picker-flight"].string_value == "7"

    def test_unchanged_body_is_not_mutated_at_all(self) -> None:
        exchange = Exchange()
        exchange.receive(request_headers(request=BUFFERED))
        exchange.receive(request_body(b"abcd", end=True))
        exchange.answer(PICK)
        reply = replies(exchange)[-1]
        assert not common(reply).HasField("body_mutation")
        assert "content-length" not in set_headers(common(reply).header_mutation)

    @pytest.mark.parametrize("body", [b"changed", b""])
    def test_changed_body_and_its_length_go_together(self, body: bytes) -> None:
        exchange = Exchange()
        exchange.receive(request_headers(request=BUFFERED))
        exchange.receive(request_body(b"abcd", end=True))
        exchange.answer(Answer(("10.0.0.1:8000",), body=body))
        reply = common(replies(exchange)[-1])
        assert reply.body_mutation.WhichOneof("mutation") == "body"
        assert reply.body_mutation.body == body
        assert set_headers(reply.header_mutation)["content-length"] == str(len(body))

    def test_body_before_trailers_is_whole_without_end_of_stream(self) -> None:
        exchange = Exchange()
        exchange.receive(request_headers(request=BUFFERED))
        assert arrived(exchange, request_body(b"abcd")).body == b"abcd"
        exchange.answer(PICK)
        exchange.receive(REQUEST_TRAILERS)
        assert kinds(replies(exchange)) == ["request_headers", "request_body", "request_trailers"]


class TestHeadersAlone:
    @pytest.mark.parametrize("mode", [FDS, BUFFERED, STREAMED, NONE])
    def test_request_without_body_is_answered_on_its_headers(self, mode: BodyMode) -> None:
        exchange = Exchange()
        event = arrived(exchange, request_headers(end=True, request=mode))
        assert (event.has_body, event.body) == (False, b"")
        exchange.answer(PICK)
        assert kinds(replies(exchange)) == ["request_headers"]

    @pytest.mark.parametrize("mode", [NONE, STREAMED, BodyMode.BUFFERED_PARTIAL])
    def test_a_body_that_cannot_be_held_is_not_waited_for(self, mode: BodyMode) -> None:
        exchange = Exchange()
        event = arrived(exchange, request_headers(request=mode))
        assert (event.has_body, event.body) == (True, b"")

    def test_no_reply_overtakes_the_header_reply(self) -> None:
        exchange = Exchange()
        arrived(
            exchange,
            request_headers(request=STREAMED),
        )
        exchange.receive(request_body(b"ab"))
        exchange.receive(request_body(b"", end=True))
        assert replies(exchange) == []
        exchange.answer(PICK)
        found = replies(exchange)
        assert kinds(found) == ["request_headers", "request_body", "request_body"]
        assert not common(found[1]).HasField("body_mutation")


class TestThePick:
    def pick(
        self, headers: dict[str, str] | list[tuple[str, str]], clear_route_cache: bool = True
    ) -> ProcessingResponse:
        exchange = Exchange(ExchangeSettings(clear_route_cache=clear_route_cache), new_id=lambda: "made")
        arrived(exchange, request_headers(headers, end=True))
        exchange.answer(PICK)
        return replies(exchange)[0]

    def test_header_and_metadata_say_the_same_ordered_list(self) -> None:
        reply = self.pick(POST)
        option = common(reply).header_mutation.set_headers[0]
        metadata = reply.dynamic_metadata.fields["envoy.lb"].struct_value.fields
        assert option.header.raw_value == b"10.0.0.1:8000,10.0.0.2:8000"
        assert option.append_action == OVERWRITE
        assert metadata["x-gateway-destination-endpoint"].string_value == option.header.raw_value.decode()

    def test_further_metadata_and_headers_ride_along(self) -> None:
        exchange = Exchange()
        arrived(exchange, request_headers(end=True))
        scores = {"10.0.0.1:8000": 0.5, "10.0.0.2:8000": 2}
        exchange.answer(
            Answer(
                ("10.0.0.1:8000",),
                headers=(("x-data-parallel-rank", "1"),),
                metadata={"scores": scores, "tried": ["a", True]},
            )
        )
        reply = replies(exchange)[0]
        metadata = reply.dynamic_metadata.fields["envoy.lb"].struct_value.fields
        assert dict(metadata["scores"].struct_value.items()) == scores
        assert list(metadata["tried"].list_value) == ["a", True]
        assert set_headers(common(reply).header_mutation)["x-data-parallel-rank"] == "1"

    def test_route_is_chosen_again_unless_told_otherwise(self) -> None:
        assert common(self.pick(POST)).clear_route_cache
        assert not common(self.pick(POST, clear_route_cache=False)).clear_route_cache

    def test_missing_request_id_is_made_and_set(self) -> None:
        reply = self.pick({":method": "GET", ":path": "/"})
        assert set_headers(common(reply).header_mutation)["x-request-id"] == "made"
        assert "x-request-id" not in set_headers(common(self.pick(POST)).header_mutation)

    @pytest.mark.parametrize(
        "name",
        [
            "X-Gateway-Destination-Endpoint-Served",
            "x-gateway-destination-endpoint-fallbacks",
            "x-gateway-destination-endpoint-subset",
            "target-pod",
            "picker-flight",
            "x-prefiller-host-port",
        ],
    )
    def test_steering_headers_of_clients_are_not_seen_and_are_removed(self, name: str) -> None:
        exchange = Exchange()
        event = arrived(exchange, request_headers({**POST, name: "6.6.6.6:6"}, end=True))
        exchange.answer(PICK)
        assert name.lower() not in event.headers
        assert common(replies(exchange)[0]).header_mutation.remove_headers == [name.lower()]

    def test_destination_of_a_client_is_not_seen_and_is_overwritten(self) -> None:
        exchange = Exchange()
        event = arrived(exchange, request_headers({**POST, "x-gateway-destination-endpoint": "6.6.6.6:6"}, end=True))
        exchange.answer(PICK)
        mutation = common(replies(exchange)[0]).header_mutation
        assert "x-gateway-destination-endpoint" not in event.headers
        assert set_headers(mutation)["x-gateway-destination-endpoint"] == "10.0.0.1:8000,10.0.0.2:8000"


class TestReadingHeaders:
    def test_names_are_lowered_and_repeated_values_joined(self) -> None:
        headers = [*POST.items(), ("X-A", "1"), ("x-a", "2")]
        assert arrived(Exchange(), request_headers(headers, end=True)).headers == {"x-request-id": "r1", "x-a": "1, 2"}

    def test_value_is_read_where_raw_value_is_not_used(self) -> None:
        said = ProcessingRequest()
        said.request_headers.end_of_stream = True
        said.request_headers.headers.headers.add(key=":path", value=b"/old\xff")
        assert arrived(Exchange(), said.SerializeToString()).path == "/old\ufffd"

    @pytest.mark.parametrize(
        ("hint", "subset"),
        [
            (["10.0.0.1:8000", "10.0.0.2"], ("10.0.0.1:8000", "10.0.0.2")),
            ("10.0.0.1:8000, 10.0.0.2:8000", ("10.0.0.1:8000", "10.0.0.2:8000")),
            ("10.0.0.1:8000", ("10.0.0.1:8000",)),
            ([], ()),
            ("", ()),
            (5, ()),
        ],
    )
    def test_subset_is_a_list_or_one_string(self, hint: Json, subset: tuple[str, ...]) -> None:
        metadata = {"envoy.lb.subset_hint": {"x-gateway-destination-endpoint-subset": hint}}
        assert arrived(Exchange(), request_headers(end=True, metadata=metadata)).subset == subset

    def test_no_hint_means_no_restriction(self) -> None:
        assert arrived(Exchange(), request_headers(end=True)).subset is None
        assert arrived(Exchange(), request_headers(end=True, metadata={"envoy.lb.subset_hint": {}})).subset is None


def test_modes_of_a_proxy_that_does_not_announce_them_are_taken_from_the_settings() -> None:
    exchange = Exchange(ExchangeSettings(request_body=BUFFERED))
    exchange.receive(request_headers(request=None))
    assert kinds(replies(exchange)) == ["request_headers"]
    assert Exchange().receive(request_headers(request=None)) == []


def test_an_answer_that_comes_too_late_has_no_effect() -> None:
    exchange = Exchange()
    arrived(exchange, request_headers(end=True))
    exchange.disconnected()
    assert not exchange.answer(PICK)
    assert exchange.data_to_send() == []
