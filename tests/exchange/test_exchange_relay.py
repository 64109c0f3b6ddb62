"""The short way of a chunk through an echoed answer says what the long way does."""

import pytest
from ext_proc_messages import (
    FDS,
    NONE,
    add_metadata,
    forwarded,
    response_body,
    response_headers,
)
from hypothesis import example, given
from hypothesis import strategies as st

from picker.exchange import decode, encode
from picker.exchange.decode import BodyMode
from picker.exchange.machine import Exchange
from picker.exchange.relay import relayed
from picker.proto.ext_proc_pb2 import HttpBody
from picker.proto.ext_proc_pb2 import ProcessingRequest as Said

# Lengths around which the varints of a body, of its part and of its reply grow.
sizes = st.one_of(st.integers(0, 300), st.integers(16_370, 16_390), st.sampled_from([20_000, 62_000, 62_001]))


def metadata(size: int) -> bytes:
    said = Said()
    add_metadata(said, {"envoy.lb": {"k": "v" * size}})
    return said.SerializeToString()


behind = st.sampled_from([b"", b"\x42\x00"]) | st.integers(0, 16_000).map(metadata)


def in_full(message: bytes) -> tuple[bytes, bytes] | None:
    """What decoding and encoding make of a chunk that is not the last."""
    heard = decode.message(message)
    if heard is None or heard.part != "response_body" or heard.end or not heard.body:
        return None
    return heard.body, b"".join(encode.streamed(encode.RESPONSE_BODY, heard.body, end=False))


@given(sizes, behind)
def test_a_usual_chunk_is_read_and_answered_as_in_full(size: int, behind: bytes) -> None:
    body = HttpBody(body=b"c" * size)
    message = Said(response_body=body).SerializeToString() + behind
    assert relayed(message) == (in_full(message) if body.ByteSize() < 1 << 14 else None)


@given(sizes, behind, st.integers(0, 12), st.integers(0, 255))
@example(0, b"", 1, 0)
@example(128, b"", 1, 130)
@example(5, metadata(20_000), 1, 7)
def test_whatever_the_bytes_it_says_the_same_or_nothing(size: int, behind: bytes, place: int, byte: int) -> None:
    damaged = bytearray(Said(response_body=HttpBody(body=b"c" * size)).SerializeToString() + behind)
    damaged[place : place + 1] = bytes([byte])
    assert relayed(bytes(damaged)) in (None, in_full(bytes(damaged)))


@given(st.binary(max_size=40))
def test_arbitrary_bytes_are_no_chunk_unless_they_are_one(message: bytes) -> None:
    assert relayed(message) in (None, in_full(message))


@pytest.mark.parametrize(
    "message",
    [
        Said(request_body=HttpBody(body=b"chunk")),
        Said(response_body=HttpBody(body=b"chunk", end_of_stream=True)),
        Said(response_body=HttpBody(end_of_stream=True)),
        Said(response_body=HttpBody()),
    ],
)
def test_a_request_an_end_and_an_empty_piece_go_the_long_way(message: Said) -> None:
    assert relayed(message.SerializeToString()) is None


def answering(mode: BodyMode) -> Exchange:
    exchange = forwarded(response=mode)
    exchange.receive(response_headers())
    exchange.data_to_send()
    return exchange


def test_only_an_echoed_answer_that_has_begun_and_not_ended_is_relayed() -> None:
    chunk, echoed = response_body(b"chunk"), answering(FDS)
    assert forwarded(response=FDS).relay(chunk) is None
    assert answering(NONE).relay(chunk) is None
    assert echoed.relay(chunk) == in_full(chunk)
    echoed.receive(response_body(b"", end=True))
    assert echoed.relay(chunk) is None


def test_what_is_relayed_changes_nothing_for_what_follows() -> None:
    long, short = answering(FDS), answering(FDS)
    long.receive(response_body(b"chunk"))
    long.data_to_send()
    short.relay(response_body(b"chunk"))
    last = response_body(b"", end=True)
    assert (short.receive(last), short.data_to_send()) == (long.receive(last), long.data_to_send())
