"""Any bytes in any pieces, any owner, any windows: what always holds."""

import itertools
import random
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given
from hypothesis import settings as tries
from hypothesis import strategies as st
from wire_judge import Client, Echoed, Judge
from wire_peer import GREETING, SMALL, block, data, grpc, raw, request, reset, settings, shaped, window_update

from picker.wire.connection import Connection
from picker.wire.frames import END_HEADERS, Kind, Setting, frame
from picker.wire.limits import WireLimits

PATIENT = tries(deadline=None, suppress_health_check=[HealthCheck.too_slow])
SIZES = st.sampled_from([0, 1, 4, 5, 100, 1000, 2999, 3000, 3001, 10_000, 70_000])
FLAGS = st.sampled_from([0, 0, 1, 4, 5, 8, 9, 0x20, 0x25, 0xFF])
WINDOWS = st.sampled_from([0, 1, 500, 65_535, 2**31 - 1])
OPENING = st.sampled_from([2, 2, 2, 2, 2, 2, 4, 0, -2, 1])
"""Streams are counted from the newest one: 2 is the next."""
RECENT = st.sampled_from([0, 0, 0, 0, -2, -2, -2, -4, -4, -6, 2, -1])
SIZE = st.integers(0, 4000)


Said = st.SearchStrategy[tuple[int, Callable[[int], bytes]]]


def said(offsets: st.SearchStrategy[int], *strategies: st.SearchStrategy[Any], by: Callable[..., bytes]) -> Said:
    return st.tuples(offsets, st.tuples(*strategies).map(lambda values: lambda stream: by(stream, *values)))


opened = said(OPENING, st.booleans(), by=lambda stream, end: request(stream, end=end))
timed = said(OPENING, by=lambda stream: request(stream, ("grpc-timeout", "5S")))
begun = said(OPENING, by=lambda stream: frame(Kind.HEADERS, 0, stream, block()[:9]))
continued = said(RECENT, by=lambda stream: frame(Kind.CONTINUATION, END_HEADERS, stream, block()[9:]))
messages = said(RECENT, SIZE, st.booleans(), by=lambda stream, size, end: data(stream, b"m" * size, end=end))
chunks = said(RECENT, SIZE, by=lambda stream, size: data(stream, shaped(b"c" * size)))
pieces = said(RECENT, SIZE, SIZE, by=lambda stream, size, cut: frame(Kind.DATA, 0, stream, grpc(b"m" * size)[:cut]))
rests = said(RECENT, SIZE, by=lambda stream, size: frame(Kind.DATA, 0, stream, b"m" * size + b"\1\0\0\0\0"))
rooms = said(RECENT, WINDOWS, by=window_update)
windows = said(RECENT, WINDOWS, by=lambda _, size: settings((Setting.INITIAL_WINDOW_SIZE, size)))
resets = said(RECENT, by=reset)
rare = st.one_of(
    said(RECENT, st.sampled_from([16_384, 20_000]), by=lambda _, size: settings((Setting.MAX_FRAME_SIZE, size))),
    said(RECENT, by=lambda _: window_update(0, 100_000)),
    said(
        RECENT,
        st.integers(0, 11),
        FLAGS,
        st.binary(max_size=20),
        by=lambda stream, kind, flags, payload: raw(kind, flags, stream, payload),
    ),
    said(RECENT, st.binary(max_size=20), by=lambda _, noise: noise),
)
frames = st.one_of(
    opened,
    opened,
    opened,
    timed,
    begun,
    continued,
    messages,
    messages,
    chunks,
    chunks,
    pieces,
    rests,
    rooms,
    windows,
    resets,
    rare,
)


def spoken(offset: int, by: Callable[[int], bytes], newest: int) -> tuple[int, bytes]:
    """The frame, and which stream is the newest after it."""
    stream = max(0, newest + offset)
    return stream if offset == 2 else newest, by(stream)


class Played(Judge):
    """A judge for steps that name streams as frames do, from the newest one."""

    newest = -1

    def play(self, act: str, offset: int, argument: Any) -> None:
        stream = max(0, self.newest + offset)
        match act:
            case "say":
                self.newest, data = spoken(offset, argument, self.newest)
                self.say(data)
            case "send":
                self.send(stream, b"a" * argument)
            case "finish":
                self.finish(stream, argument)
            case "reset":
                self.reset(stream)
            case "hold":
                self.connection.hold(stream)
            case "release":
                self.connection.release(stream)
            case "echo":
                self.send(stream, b"go on")
                self.connection.echo(stream)
            case "wait":
                self.wait(argument)
            case "drain":
                self.connection.go_away()


says = frames.map(lambda frame: ("say", *frame))
steps = st.one_of(
    says,
    says,
    says,
    st.tuples(st.just("send"), RECENT, SIZES),
    st.tuples(st.just("finish"), RECENT, st.integers(0, 16)),
    st.tuples(st.sampled_from(["hold", "release", "reset"]), RECENT, st.none()),
    st.tuples(st.just("echo"), RECENT, st.none()),
    st.tuples(st.just("echo"), RECENT, st.none()),
    st.tuples(st.just("wait"), RECENT, st.sampled_from([0.0, 1.0, 20.0, 61.0])),
    st.tuples(st.sampled_from(["hold", "release", "drain"]), RECENT, st.none()),
)


@given(st.lists(steps, max_size=40))
@tries(PATIENT, max_examples=150)
def test_whatever_both_sides_do_the_judge_has_no_objection(script: list[tuple[str, int, Any]]) -> None:
    judge = Played(SMALL)
    judge.say(GREETING)
    for step in script:
        judge.play(*step)
    judge.end()


@given(st.lists(frames, max_size=20), st.lists(st.integers(0, 3000), max_size=8))
@tries(PATIENT, max_examples=80)
def test_events_and_answers_do_not_depend_on_how_the_bytes_are_cut(
    script: list[tuple[int, Callable[[int], bytes]]], cuts: list[int]
) -> None:
    whole, pieces = Connection(SMALL, 0.0), Connection(SMALL, 0.0)
    stream, newest = GREETING, -1
    for offset, by in script:
        newest, frame = spoken(offset, by, newest)
        stream += frame
    edges = sorted({0, *(cut for cut in cuts if cut < len(stream)), len(stream)})
    heard = [event for start, end in itertools.pairwise(edges) for event in pieces.receive(stream[start:end], 0.0)]
    assert heard == whole.receive(stream, 0.0)
    assert pieces.data_to_send() == whole.data_to_send()
    assert pieces.closing == whole.closing


@given(st.binary(max_size=200))
@tries(PATIENT, max_examples=50)
def test_bytes_that_are_no_frames_at_all(noise: bytes) -> None:
    judge = Judge(SMALL)
    judge.say(GREETING + noise)
    judge.end()


@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=8), st.binary(max_size=8)), max_size=6), st.binary(max_size=60)
)
@tries(PATIENT, max_examples=50)
def test_header_blocks_of_any_bytes(fields: list[tuple[bytes, bytes]], noise: bytes) -> None:
    judge = Judge(SMALL)
    named = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in fields)
    judge.say(GREETING + request(1, *named))
    judge.say(frame(Kind.HEADERS, END_HEADERS, 3, noise))
    judge.end()


@given(
    bodies=st.lists(st.lists(st.sampled_from([0, 1, 900, 3000, 3000]), min_size=1, max_size=9), min_size=1, max_size=4),
    cut=st.sampled_from([700, 1999, 16_384]),
    padding=st.sampled_from([0, 0, 1, 255]),
    window=st.sampled_from([0, 1, 999, 65_535, 10**6]),
    more=st.sampled_from([700, 5000]),
    together=st.sampled_from([0, 1000, 1000, 10_000]),
    order=st.randoms(use_true_random=False),
)
@tries(PATIENT, max_examples=25)
def test_a_peer_that_keeps_to_the_windows_gets_every_message_there_and_back(
    bodies: list[list[int]], cut: int, padding: int, window: int, more: int, together: int, order: random.Random
) -> None:
    """Also where all streams are in the middle of a message, and where the connection's window is what is missing."""
    client = Client(WireLimits(message_bytes=3000, assembling_bytes=10_000, stream_window=1000), bodies, window)
    for _ in range(120):
        client.turn(order.choice(list(client.messages)), cut, padding, more, together)
    for _ in range(100):
        for stream in client.messages:
            client.turn(stream, cut, padding, 5000)
        if client.done:
            break
    assert client.heard == client.messages
    assert client.done
    client.judge.end()


@given(
    bodies=st.lists(st.lists(st.integers(1, 400), min_size=1, max_size=30), min_size=1, max_size=4),
    cut=st.sampled_from([16_384, 16_384, 300]),
    window=st.sampled_from([0, 999, 65_535, 10**6]),
    more=st.sampled_from([700, 5000]),
    together=st.sampled_from([0, 1000, 10_000]),
    order=st.randoms(use_true_random=False),
)
@tries(PATIENT, max_examples=40)
def test_what_goes_back_unheard_is_as_if_it_had_been_heard(
    bodies: list[list[int]], cut: int, window: int, more: int, together: int, order: random.Random
) -> None:
    client = Echoed(WireLimits(message_bytes=3000, stream_window=2000), bodies, window)
    for _ in range(200):
        client.turn(order.choice(list(client.messages)), cut, 0, more, together)
    for _ in range(200):
        for stream in client.messages:
            client.turn(stream, cut, 0, 5000)
        if client.done:
            break
    assert client.done
    assert client.answered == client.wanted
    client.judge.end()
