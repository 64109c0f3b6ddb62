"""A lean connection between a socket and its calls: a transport that a test plays, and an HTTP/2 client in bytes."""

import asyncio
from collections.abc import Callable
from functools import partial

import pytest
from wire_peer import REQUEST, Frame, data, request, settings, window_update

from picker.server.lean import CROWDED, Answer, Call, Line, Shell
from picker.wire import echo as wire
from picker.wire.frames import ACK, HEAD, PREFACE, Kind, frame
from picker.wire.limits import WireLimits

LIMITS = WireLimits()
PIECE = b"x" * 16_000


class Socket(asyncio.Transport):
    """An asyncio transport that keeps what is written."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.reading, self.closed, self.aborted = True, False, False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def frames(self, kind: Kind) -> list[Frame]:
        """All that was written so far."""
        found, rest = [], b"".join(self.writes)
        while rest:
            word, flags, stream = HEAD.unpack_from(rest)
            end = HEAD.size + (word >> 8)
            found.append(Frame(word & 0xFF, flags, stream, rest[HEAD.size : end]))
            rest = rest[end:]
        return [each for each in found if each.kind == kind]


class Echo:
    """A call that sends every message back."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.heard: list[bytes] = []
        self.ended = ""

    def message(self, data: bytes) -> None:
        self.heard.append(data)
        self.line.send([data])

    def half_closed(self) -> None:
        self.line.finish()

    def close(self, code: str) -> None:
        assert not self.ended
        self.ended = code


class Broken(Echo):
    def message(self, data: bytes) -> None:
        raise ZeroDivisionError


class House:
    def __init__(self, made: Callable[[Line], Echo] = Echo, limits: WireLimits = LIMITS) -> None:
        self.limits, self.longest = limits, 20_000
        self.echo: wire.Echo | None = None
        self.answer: Answer = self._answer
        self.calls: list[Echo] = []
        self.connections = 0
        self._made = made

    def _answer(self, line: Line, path: str, metadata: object) -> Call | None:
        if not path.startswith("/test."):
            return None
        self.calls.append(self._made(line))
        return self.calls[-1]

    def came(self, shell: Shell) -> None:
        self.connections += 1

    def went(self, shell: Shell) -> None:
        self.connections -= 1


def connected(house: House, *said: bytes) -> tuple[Shell, Socket]:
    """A connection whose client has said this much."""
    shell, socket = Shell(house), Socket()
    shell.connection_made(socket)
    shell.data_received(b"".join((PREFACE, settings(), frame(Kind.SETTINGS, ACK, 0), *said)))
    return shell, socket


async def test_what_one_turn_brings_is_answered_in_one_write() -> None:
    shell, socket = connected(House())
    socket.writes.clear()
    shell.data_received(request(1) + data(1, b"a", b"b") + request(3) + data(3, b"c", end=True))
    assert len(socket.writes) == 1
    assert [each.payload[5:] for each in socket.frames(Kind.DATA)] == [b"a", b"b", b"c"]


async def test_a_call_that_fails_ends_with_internal_and_no_other_does() -> None:
    made = iter((Broken, Echo))
    house = House(lambda line: next(made)(line))
    _, socket = connected(house, request(1), request(3), data(1, b"a"), data(3, b"b"))
    broken, other = house.calls
    assert (broken.ended, other.ended) == ("INTERNAL", "")
    assert other.heard == [b"b"]
    assert {each.stream for each in socket.frames(Kind.DATA)} == {3}
    assert b"grpc-status\x0213" in socket.frames(Kind.HEADERS)[0].payload
    assert not socket.closed


async def test_a_call_that_cannot_even_begin_ends_alone() -> None:
    def never(line: Line) -> Echo:
        raise ZeroDivisionError

    _, socket = connected(House(never), request(1))
    assert b"grpc-status\x0213" in socket.frames(Kind.HEADERS)[0].payload
    assert not socket.closed


async def test_a_message_that_is_too_long_to_send_ends_its_stream() -> None:
    house = House()
    _, socket = connected(house, request(1), *[data(1, b"x" * 1000)] * 2)
    house.longest = 999
    _, short = connected(house, request(1), data(1, b"x" * 1000))
    assert len(socket.frames(Kind.DATA)) == 2
    assert b"grpc-status\x018" in short.frames(Kind.HEADERS)[0].payload


async def test_a_path_that_nobody_hears_is_unimplemented() -> None:
    fields = [(name, "/nobody/Hears" if name == ":path" else value) for name, value in REQUEST]
    _, socket = connected(House(), request(1, fields=fields))
    assert b"grpc-status\x0212" in socket.frames(Kind.HEADERS)[0].payload


async def test_a_lost_connection_ends_every_call_once() -> None:
    house = House()
    shell, _ = connected(house, request(1), request(3))
    shell.connection_lost(None)
    assert [call.ended for call in house.calls] == ["CANCELLED"] * 2
    assert house.connections == 0


async def test_while_the_socket_takes_nothing_nothing_is_read_or_written() -> None:
    shell, socket = connected(House(), request(1))
    socket.writes.clear()
    shell.pause_writing()
    assert not socket.reading
    shell.data_received(data(1, b"on its way"))
    assert socket.writes == []
    shell.resume_writing()
    assert socket.reading
    assert [each.payload[5:] for each in socket.frames(Kind.DATA)] == [b"on its way"]


async def test_a_socket_that_takes_nothing_for_too_long_is_given_up() -> None:
    shell, socket = connected(House(limits=WireLimits(stall_s=0.01)))
    shell.pause_writing()
    while not socket.aborted:
        await asyncio.sleep(0.01)


async def test_a_stream_whose_answer_nobody_takes_is_given_no_more_room() -> None:
    house = House()
    shell, socket = connected(house, window_update(0, 1 << 24), request(1))
    sent = 0

    def room() -> int:
        given = sum(int.from_bytes(each.payload, "big") for each in socket.frames(Kind.WINDOW_UPDATE) if each.stream)
        return LIMITS.stream_window + given - sent

    def send_all() -> None:
        nonlocal sent
        while room() >= len(PIECE) + 5:
            shell.data_received(data(1, PIECE))
            sent += len(PIECE) + 5

    send_all()
    assert CROWDED < sent < CROWDED + 3 * LIMITS.stream_window
    stopped = sent
    shell.data_received(window_update(1, 4 << 20))
    send_all()
    assert sent > stopped


async def test_a_draining_connection_is_closed_after_its_last_stream() -> None:
    shell, socket = connected(House(), request(1))
    shell.drain()
    assert not socket.closed
    ping = socket.frames(Kind.PING)[0]
    shell.data_received(frame(Kind.PING, ACK, 0, ping.payload) + data(1, b"last", end=True))
    assert socket.frames(Kind.DATA)[-1].payload[5:] == b"last"
    assert socket.closed


async def test_a_connection_that_is_shut_ends_its_streams_and_is_closed() -> None:
    house = House()
    shell, socket = connected(house, request(1))
    shell.shut()
    assert house.calls[0].ended == "CANCELLED"
    assert socket.closed
    assert socket.frames(Kind.GOAWAY)


async def test_what_is_no_http_2_is_told_so_and_closed() -> None:
    shell, socket = Shell(House()), Socket()
    shell.connection_made(socket)
    shell.data_received(b"GET / HTTP/1.1\r\nHost: picker\r\n\r\n")
    assert socket.closed


@pytest.mark.parametrize("seconds", ["1m", "0m"])
async def test_a_call_whose_time_is_up_is_closed(seconds: str) -> None:
    house = House()
    connected(house, request(1, ("grpc-timeout", seconds)))
    while not (house.calls and house.calls[0].ended):
        await asyncio.sleep(0.001)
    assert house.calls[0].ended == "CANCELLED"


async def test_what_a_call_says_later_is_written_in_the_next_turn() -> None:
    house = House()
    _, socket = connected(house, request(1), request(3))
    socket.writes.clear()
    for call in house.calls:
        call.line.later(partial(call.line.send, [b"later"]))
    assert socket.writes == []
    await asyncio.sleep(0)
    assert len(socket.writes) == 1
    assert len(socket.frames(Kind.DATA)) == 2
    house.calls[0].line.finish()
    house.calls[0].line.later(lambda: pytest.fail("it has ended"))
