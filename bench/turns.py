"""Bytes written at a port in turns, from a plain socket: Envoy's at a picker, or so many of nothing at a floor."""

import socket
import struct
import time
from collections.abc import Iterator, Sequence

from bench.backends import CHUNK
from bench.prompts import chat_requests
from bench.rounds import SIZES
from bench.service_time import answered, words
from bench.wire_cost import block, data, greeting
from bench.workers import STREAMS
from picker.server.up.ports import HOST
from picker.wire.frames import END_HEADERS, END_STREAM, HEAD, Kind, frame

SIZES_OF_TURNS = struct.Struct("!II")
"""What a floor is told first: bytes of a turn, and of the answer to it."""
PATIENCE_S = 30.0
_PAUSE_S = 0.3
"""So that what begins a connection is not read together with what is measured."""


def at_floor(port: int, asked: int, answer: int, gap_s: float, turns: int) -> None:
    """Each turn is over with so many bytes of answer. Raises OSError."""
    with _opened(port, SIZES_OF_TURNS.pack(asked, answer)) as line:
        for _ in _paced(line, [bytes(asked)] * turns, gap_s):
            if len(line.recv(answer, socket.MSG_WAITALL)) < answer:
                raise ConnectionError("the floor is gone")


def at_picker(port: int, kind: str, together: int, gap_s: float, turns: int, seed: int) -> None:
    """So many requests or chunks a turn, by the response path that echoes; it is over when all its streams have ended,
    or all its chunks are answered. Raises OSError."""
    first, rest = _chunks(together, turns, seed) if kind == "chunk" else _requests(SIZES[kind], together, turns, seed)
    over = (Kind.DATA, 0) if kind == "chunk" else (Kind.HEADERS, END_HEADERS | END_STREAM)
    with _opened(port, first) as line:
        line.recv(1 << 20)
        line.settimeout(PATIENCE_S)
        heard = frames(line)
        for _ in _paced(line, rest, gap_s):
            for _ in range(together):
                next(each for each in heard if each == over)


def _requests(size: int, together: int, turns: int, seed: int) -> tuple[bytes, list[bytes]]:
    """What begins the connection, and each turn."""
    requests = iter(chat_requests(together * turns, size, seed=seed))
    numbers = iter(range(1, 1 << 31, 2))

    def whole(number: int) -> bytes:
        body = next(requests).partition(b"\r\n\r\n")[2]
        return _stream(number, words(body, echo=True)) + frame(Kind.DATA, END_STREAM, number)

    return greeting(), [b"".join(whole(next(numbers)) for _ in range(together)) for _ in range(turns)]


def _chunks(together: int, turns: int, seed: int) -> tuple[bytes, list[bytes]]:
    """The same; what begins the connection are streams whose answers have begun."""
    requests = chat_requests(STREAMS, SIZES["2k"], seed=seed, stream=True)
    headers, chunk, _ = answered([CHUNK])
    numbers = range(1, 2 * STREAMS, 2)
    begun = [
        _stream(number, [*words(request.partition(b"\r\n\r\n")[2], echo=True)[:3], headers])
        for number, request in zip(numbers, requests, strict=True)
    ]
    pieces = [data(number, chunk) for number in numbers]
    return greeting() + b"".join(begun), [
        b"".join(pieces[(turn * together + at) % STREAMS] for at in range(together)) for turn in range(turns)
    ]


def _stream(number: int, messages: Sequence[bytes]) -> bytes:
    opening = frame(Kind.HEADERS, END_HEADERS, number, block())
    return opening + b"".join(data(number, message) for message in messages)


def frames(line: socket.socket) -> Iterator[tuple[int, int]]:
    """Kind and flags of each frame that comes. Raises OSError."""
    unread = b""
    while received := line.recv(1 << 18):
        unread += received
        at = 0
        while len(unread) >= at + HEAD.size:
            head, flags, _ = HEAD.unpack_from(unread, at)
            if len(unread) < at + HEAD.size + (head >> 8):
                break
            yield head & 0xFF, flags
            at += HEAD.size + (head >> 8)
        unread = unread[at:]
    raise ConnectionError("the picker hung up")


def _opened(port: int, first: bytes) -> socket.socket:
    line = socket.create_connection((HOST, port))
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    line.sendall(first)
    time.sleep(_PAUSE_S)
    return line


def _paced(line: socket.socket, turns: Sequence[bytes], gap_s: float) -> Iterator[None]:
    """Write a turn every `gap_s`, or as soon as the caller has heard the answer to the one before."""
    due = time.monotonic()
    for turn in turns:
        due = max(due + gap_s, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
        line.sendall(turn)
        yield
