"""Messages of one shape that are answered without a word to the owner: which are, and what all others do to that."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_peer import (
    ECHO,
    GREETING,
    SHAPE,
    Peer,
    data,
    grpc,
    nested,
    raw,
    request,
    reset,
    settings,
    shaped,
    window_update,
)

from picker.wire.events import Event, MessageReceived, Reason, StreamEnded
from picker.wire.frames import END_STREAM, PADDED, Code, Kind, Setting, frame
from picker.wire.limits import WireLimits

LIMITS = WireLimits()
CHUNK = b"data: {}\n\n"


def answer(payload: bytes) -> bytes:
    return grpc(nested(SHAPE.out, payload))


def echoing(*streams: int, limits: WireLimits = LIMITS) -> Peer:
    """A peer whose streams have an answer that goes on by itself."""
    peer = Peer(limits, echo=ECHO)
    for stream in streams or (1,):
        peer.say(request(stream))
        peer.connection.send_message(stream, b"first")
        peer.connection.echo(stream)
    peer.frames()
    return peer


def said(peer: Peer) -> Iterator[tuple[int, bytes]]:
    return ((each.stream, each.payload) for each in peer.frames(Kind.DATA))


def test_a_message_of_the_shape_goes_back_in_its_other_wrapping_unheard() -> None:
    peer = echoing()
    assert peer.say(data(1, shaped(CHUNK))) == []
    assert [*said(peer)] == [(1, answer(CHUNK))]


def test_many_at_once_go_back_in_order_each_on_its_stream() -> None:
    peer = echoing(1, 3, 5)
    chunks = [(stream, b"%d of %d" % (i, stream)) for i in range(50) for stream in (5, 1, 3)]
    assert peer.say(*(data(stream, shaped(chunk)) for stream, chunk in chunks)) == []
    assert [*said(peer)] == [(stream, answer(chunk)) for stream, chunk in chunks]


@pytest.mark.parametrize("size", [1, 120, 127, 128, 16_000])
def test_lengths_of_every_size_are_written_as_protobuf_does(size: int) -> None:
    peer = echoing()
    assert peer.say(data(1, shaped(b"x" * size))) == []
    assert [*said(peer)] == [(1, answer(b"x" * size))]


def test_what_may_stand_behind_is_left_out_of_the_answer() -> None:
    peer = echoing()
    behind = bytes([SHAPE.behind, 3]) + b"abc"
    assert peer.say(data(1, shaped(CHUNK) + behind)) == []
    assert [*said(peer)] == [(1, answer(CHUNK))]


@pytest.mark.parametrize("chunk", [b'{"stop":no}', b'"stop":no, "stop":no', b'"sto', b'stop"', b"s" * 300])
def test_harmless_words_and_likenesses_of_the_word_are_answered(chunk: bytes) -> None:
    # The end is cut off from what could begin the word.
    assert echoing().say(data(1, shaped(chunk + b"."))) == []


STRANGE = {
    "the word": shaped(b'..."stop"...'),
    "the word, first": shaped(b'"stop"'),
    "the word behind a harmless one": shaped(b'"stop":no "stop":yes'),
    "what makes it harmless is cut off": shaped(b'"stop":n'),
    "the end may be the word's beginning": shaped(b'{}"'),
    "the end is most of the word": shaped(b'{}"stop'),
    "nothing inside": shaped(b""),
    "another field": b"\x32" + shaped(CHUNK)[1:],
    "another field inside": shaped(CHUNK).replace(SHAPE.into[1:2], b"\x12", 1),
    "more inside": nested(SHAPE.into[:1], nested(SHAPE.into[1:], CHUNK) + b"\x10\x01"),
    "something else behind": shaped(CHUNK) + b"\x4a\x01a",
    "something behind what may be behind": shaped(CHUNK) + bytes([SHAPE.behind, 0, SHAPE.behind, 0]),
    "cut off behind": shaped(CHUNK) + bytes([SHAPE.behind, 5]) + b"abc",
    "a length written long": SHAPE.into[:1] + b"\x8c\x00" + shaped(CHUNK)[2:],
    "a length past the end": shaped(CHUNK)[:-1],
    "no bytes at all": b"",
    "one byte": SHAPE.into[:1],
}


@pytest.mark.parametrize("message", STRANGE.values(), ids=STRANGE)
def test_any_other_message_is_heard_and_so_are_those_behind_it(message: bytes) -> None:
    peer = echoing()
    heard = peer.say(data(1, message), data(1, shaped(CHUNK)))
    assert heard == [MessageReceived(1, message), MessageReceived(1, shaped(CHUNK))]
    assert [*said(peer)] == []
    peer.connection.echo(1)
    assert peer.say(data(1, shaped(CHUNK))) == []


@pytest.mark.parametrize(
    "frames",
    [
        frame(Kind.DATA, 0, 1, grpc(shaped(CHUNK), shaped(CHUNK))),
        frame(Kind.DATA, 0, 1, grpc(shaped(CHUNK))[:7]) + frame(Kind.DATA, 0, 1, grpc(shaped(CHUNK))[7:]),
        frame(Kind.DATA, PADDED, 1, b"\2" + grpc(shaped(CHUNK)) + b"\0\0"),
        frame(Kind.DATA, END_STREAM, 1, grpc(shaped(CHUNK))),
    ],
    ids=["two in a frame", "one in two frames", "padded", "the last"],
)
def test_messages_in_frames_of_another_make_are_heard(frames: bytes) -> None:
    heard = echoing().say(frames)
    assert heard[0] == MessageReceived(1, shaped(CHUNK))


def test_a_compressed_message_is_refused_as_ever() -> None:
    peer = echoing()
    assert peer.say(frame(Kind.DATA, 0, 1, b"\1" + grpc(shaped(CHUNK))[1:])) == [StreamEnded(1, Reason.REFUSED)]


@pytest.mark.parametrize("cut", range(1, len(data(1, shaped(CHUNK)))))
def test_a_frame_that_comes_in_two_reads_is_answered_when_it_is_whole(cut: int) -> None:
    peer, whole = echoing(), data(1, shaped(CHUNK))
    assert peer.say(whole + whole[:cut]) == peer.say(whole[cut:]) == []
    assert [*said(peer)] == [(1, answer(CHUNK))] * 2


def test_a_header_block_must_not_be_interrupted_even_so() -> None:
    peer = echoing()
    peer.say(frame(Kind.HEADERS, 0, 3, b""), data(1, shaped(CHUNK)))
    assert peer.error() == Code.PROTOCOL_ERROR


@pytest.mark.parametrize("act", ["send_message", "hold", "window"])
def test_what_else_is_said_of_the_stream_ends_it(act: str) -> None:
    peer = echoing()
    match act:
        case "send_message":
            peer.connection.send_message(1, b"more")
        case "hold":
            peer.connection.hold(1)
        case "window":
            peer.say(window_update(1, 5))
    assert peer.say(data(1, shaped(CHUNK))) == [MessageReceived(1, shaped(CHUNK))]


def test_what_is_said_of_another_stream_does_not() -> None:
    peer = echoing(1, 3)
    peer.connection.send_message(3, b"more")
    peer.say(window_update(3, 5), window_update(0, 5))
    assert peer.say(data(1, shaped(CHUNK)), reset(3), data(1, shaped(CHUNK))) == [StreamEnded(3, Reason.RESET)]


@pytest.mark.parametrize("how", ["finish", "reset"])
def test_a_stream_that_ended_is_not_answered(how: str) -> None:
    peer = echoing()
    getattr(peer.connection, how)(1)
    peer.frames()
    assert peer.say(data(1, shaped(CHUNK))) == []
    assert [*said(peer)] == []


def test_a_stream_that_waits_for_something_is_not_begun_with() -> None:
    peer = Peer(echo=ECHO)
    peer.say(request(1), request(3))
    peer.connection.echo(1)
    peer.connection.send_message(3, b"x" * 70_000)
    peer.connection.echo(3)
    heard = peer.say(data(1, shaped(CHUNK)), data(3, shaped(CHUNK)))
    assert heard == [MessageReceived(1, shaped(CHUNK)), MessageReceived(3, shaped(CHUNK))]


def test_without_a_shape_everything_is_heard() -> None:
    peer = Peer()
    peer.say(request(1))
    peer.connection.send_message(1, b"first")
    peer.connection.echo(1)
    assert peer.say(data(1, shaped(CHUNK))) == [MessageReceived(1, shaped(CHUNK))]


def until_heard(peer: Peer, chunk: bytes) -> list[Event]:
    return next(heard for _ in range(1000) if (heard := peer.say(data(1, shaped(chunk)))))


def test_answers_end_where_a_window_does_and_go_on_behind_those_that_wait() -> None:
    peer, chunk = echoing(), b"x" * 1000
    heard = until_heard(peer, chunk)
    room = 65_535 - len(grpc(b"first"))
    assert len([*said(peer)]) == room // len(answer(chunk))
    for event in heard:
        peer.connection.send_message(event.stream, nested(SHAPE.out, chunk))
    assert sum(len(payload) for _, payload in said(peer)) == room % len(answer(chunk))
    peer.connection.echo(1)
    assert peer.say(data(1, shaped(chunk))) == [MessageReceived(1, shaped(chunk))]
    peer.say(window_update(0, 10**6), window_update(1, 10**6))
    rest = b"".join(payload for _, payload in said(peer))
    peer.connection.echo(1)
    peer.say(data(1, shaped(b"behind")))
    assert answer(chunk).endswith(rest)
    assert [*said(peer)] == [(1, answer(b"behind"))]


def test_answers_of_all_streams_end_where_the_connections_window_does() -> None:
    peer, chunk = Peer(greeting=GREETING + settings((Setting.INITIAL_WINDOW_SIZE, 10**6)), echo=ECHO), b"x" * 1000
    for stream in (1, 3):
        peer.say(request(stream))
        peer.connection.send_message(stream, b"first")
        peer.connection.echo(stream)
    peer.frames()
    chunks = b"".join(data(stream, shaped(chunk)) for _ in range(50) for stream in (1, 3))
    room = 65_535 - 2 * len(grpc(b"first"))
    assert len(peer.say(chunks)) == 100 - room // len(answer(chunk))
    assert len([*said(peer)]) == room // len(answer(chunk))


def test_room_that_is_given_with_the_reserved_bit_set_is_not_lost() -> None:
    peer = echoing()
    peer.say(window_update(0, 10**6), data(1, shaped(CHUNK)), raw(Kind.WINDOW_UPDATE, 0, 1 | 1 << 31, b"\0\0\1\0"))
    peer.connection.send_message(1, b"x" * 70_000)
    assert sum(len(payload) for _, payload in said(peer)) == 65_535 + 256 - len(grpc(b"first"))


def test_a_smaller_initial_window_counts_for_what_goes_back_unheard() -> None:
    peer = echoing()
    peer.say(data(1, shaped(b"x" * 5000)))
    peer.say(settings((Setting.INITIAL_WINDOW_SIZE, 5500)))
    peer.connection.echo(1)
    assert peer.say(data(1, shaped(b"x" * 1000))) == [MessageReceived(1, shaped(b"x" * 1000))]


def test_room_is_given_back_for_what_is_not_heard() -> None:
    limits = WireLimits(stream_window=4000, connection_window=70_000)
    peer = echoing(limits=limits)
    given = {0: 0, 1: 0}
    for _ in range(60):
        for event in peer.say(window_update(0, 1200), window_update(1, 1200), data(1, shaped(b"x" * 1000))):
            peer.connection.send_message(event.stream, b"")
        peer.connection.echo(1)
        for each in peer.frames(Kind.WINDOW_UPDATE):
            given[each.stream] += int.from_bytes(each.payload, "big")
    received = 60 * len(grpc(shaped(b"x" * 1000)))
    assert received - 35_000 - 2000 <= given[0] <= received
    assert received - 2000 - 2000 <= given[1] <= received


def test_streams_that_share_a_place_are_answered_all_the_same() -> None:
    peer = echoing(1, 2049)
    for stream in (1, 2049):
        for event in peer.say(data(stream, shaped(CHUNK))):
            peer.connection.send_message(event.stream, nested(SHAPE.out, CHUNK))
    assert [*said(peer)] == [(1, answer(CHUNK)), (2049, answer(CHUNK))]


def test_a_deadline_ends_it_too() -> None:
    peer = Peer(echo=ECHO)
    peer.say(request(1, ("grpc-timeout", "5S")))
    peer.connection.send_message(1, b"first")
    peer.connection.echo(1)
    assert peer.wait(6) == [StreamEnded(1, Reason.DEADLINE)]
    peer.frames()
    assert peer.say(data(1, shaped(CHUNK))) == []
    assert [*said(peer)] == []


def test_more_than_may_wait_for_the_socket_ends_the_connection() -> None:
    peer = echoing(limits=WireLimits(queued_bytes=3000))
    peer.say(*(data(1, shaped(b"x" * 1000)) for _ in range(4)))
    assert peer.error() == Code.ENHANCE_YOUR_CALM


words = st.lists(st.sampled_from([b'"stop"', b":no", b":n", b'"', b"s", b'"st', b"top", b"x"]), max_size=8)


@given(words)
def test_whether_the_word_is_there_is_what_a_search_says(pieces: list[bytes]) -> None:
    chunk = b"".join(pieces) or b"."
    spoken = any(SHAPE.word in piece for piece in chunk.split(SHAPE.word + SHAPE.harmless))
    begun = any(chunk.endswith(SHAPE.word[:many]) for many in range(1, len(SHAPE.word)))
    assert bool(echoing().say(data(1, shaped(chunk)))) == (spoken or begun)


@given(st.lists(st.integers(0, 300), min_size=1, max_size=60), st.integers(1, 5))
def test_any_number_of_chunks_of_any_size_comes_back_whole(sizes: list[int], streams: int) -> None:
    peer = echoing(*range(1, 2 * streams, 2))
    chunks = [bytes([65 + i % 26]) * (size + 1) for i, size in enumerate(sizes)]
    peer.say(*(data(1 + 2 * (i % streams), shaped(chunk)) for i, chunk in enumerate(chunks)))
    assert b"".join(payload for _, payload in said(peer)) == b"".join(map(answer, chunks))
