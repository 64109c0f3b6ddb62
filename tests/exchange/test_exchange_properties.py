"""What holds for every chunking of every body, and for every sequence of messages, sane or not."""

from ext_proc_messages import (
    BUFFERED,
    FDS,
    NONE,
    PICK,
    REQUEST_TRAILERS,
    RESPONSE_TRAILERS,
    STREAMED,
    ends,
    forwarded,
    kinds,
    replies,
    request_body,
    request_headers,
    response_body,
    response_headers,
    streamed_body,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from picker.exchange.encode import CHUNK_BYTES
from picker.exchange.events import RequestArrived, RequestEnded, ResponseData
from picker.exchange.failures import Failure, Refusal
from picker.exchange.machine import Answer, Exchange, ExchangeSettings
from picker.proto.ext_proc_pb2 import ProcessingResponse

# Sizes around the chunk limit matter more than contents.
sizes = st.one_of(st.integers(0, 40), st.integers(CHUNK_BYTES - 2, CHUNK_BYTES + 2), st.integers(0, 3 * CHUNK_BYTES))
chunkings = st.lists(
    st.builds(lambda n, seed: bytes([seed, 255 - seed]) * (n // 2) + b"!" * (n % 2), sizes, st.integers(0, 255)),
    max_size=6,
)


@given(chunkings, st.booleans(), st.booleans())
@settings(max_examples=60)
def test_full_duplex_request_comes_out_as_it_went_in(chunks: list[bytes], late_end: bool, trailers: bool) -> None:
    exchange = Exchange()
    exchange.receive(request_headers())
    whole = b"".join(chunks)
    events = [
        event
        for i, chunk in enumerate(chunks)
        for event in exchange.receive(request_body(chunk, end=not (late_end or trailers) and i == len(chunks) - 1))
    ]
    if trailers:
        events += exchange.receive(REQUEST_TRAILERS)
    elif late_end or not chunks:
        events += exchange.receive(request_body(b"", end=True))
    assert [type(event) for event in events] == [RequestArrived]
    assert isinstance(events[0], RequestArrived)
    assert events[0].body == whole
    exchange.answer(PICK)
    found = replies(exchange)
    check_stream(found, "request_body", whole, trailers=trailers)
    assert kinds(found)[0] == "request_headers"
    assert (kinds(found)[-1] == "request_trailers") == trailers


@given(chunkings, st.booleans())
@settings(max_examples=60)
def test_full_duplex_answer_comes_out_as_it_went_in(chunks: list[bytes], trailers: bool) -> None:
    exchange = forwarded(response=FDS)
    events = exchange.receive(response_headers())
    for chunk in chunks:
        events += exchange.receive(response_body(chunk))
    events += exchange.receive(RESPONSE_TRAILERS if trailers else response_body(b"", end=True))
    found = replies(exchange)
    check_stream(found, "response_body", b"".join(chunks), trailers=trailers)
    assert kinds(found)[0] == "response_headers"
    assert b"".join(event.body for event in events if isinstance(event, ResponseData)) == b"".join(chunks)
    assert isinstance(events[-1], RequestEnded)
    assert events[-1].complete


def check_stream(found: list[ProcessingResponse], part: str, whole: bytes, *, trailers: bool) -> None:
    """The same bytes in the same order, in pieces Envoy takes, and one end that nothing follows."""
    assert streamed_body(found, part) == whole
    pieces = [
        getattr(reply, part).response.body_mutation.streamed_response.body for reply in found if reply.HasField(part)
    ]
    assert all(len(piece) <= CHUNK_BYTES for piece in pieces)
    marks = ends(found, part)
    assert sum(marks) == (0 if trailers else 1)
    assert trailers or marks[-1]


messages = st.one_of(
    st.binary(max_size=30),
    st.builds(
        request_headers,
        end=st.booleans(),
        request=st.sampled_from([None, FDS, BUFFERED, STREAMED, NONE]),
        response=st.sampled_from([FDS, BUFFERED, STREAMED, NONE]),
    ),
    st.builds(request_body, st.binary(max_size=20), end=st.booleans()),
    st.builds(response_headers, end=st.booleans()),
    st.builds(response_body, st.binary(max_size=20), end=st.booleans()),
    st.sampled_from([REQUEST_TRAILERS, RESPONSE_TRAILERS]),
)
owner = st.sampled_from(["answer", "change", "refuse", "leave", "send", "gone"])


@given(st.lists(st.one_of(messages, owner), max_size=14), st.booleans())
@settings(max_examples=400)
def test_any_sequence_ends_once_and_never_raises(steps: list[bytes | str], detach: bool) -> None:
    exchange = Exchange(ExchangeSettings(detach=detach, max_body_bytes=25))
    events, sent = [], []
    for step in steps:
        match step:
            case "answer":
                exchange.answer(PICK)
            case "change":
                exchange.answer(Answer(("10.0.0.1:8000",), body=b"new"))
            case "refuse":
                exchange.refuse(Refusal(Failure.EVICTED))
            case "leave":
                exchange.leave()
            case "send":
                sent += exchange.data_to_send()
            case "gone":
                events += exchange.disconnected()
            case bytes():
                events += exchange.receive(step)
    events += exchange.disconnected()
    sent += exchange.data_to_send()
    assert [isinstance(event, RequestEnded) for event in events] == [False] * (len(events) - 1) + [True]
    assert sum(isinstance(event, RequestArrived) for event in events) <= 1
    assert exchange.done
    found = kinds([ProcessingResponse.FromString(reply) for reply in sent])
    assert "None" not in found
    assert found.count("immediate_response") <= 1
    assert "immediate_response" not in found[:-1]
    for part in ("request_headers", "response_headers", "response_trailers"):
        assert found.count(part) <= 1
