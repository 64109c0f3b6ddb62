"""CPU time of `picker/wire` alone, in process: `python -m bench.wire_cost`.

A peer's bytes are prepared beforehand; each turn gives a connection what a socket would, and takes what it would write.
Each number is the best of several runs, in microseconds of CPU time, on a core that others may share.
"""

import json
import time
from collections.abc import Callable

from hpack import Encoder

from picker.proto.ext_proc_pb2 import HttpBody, ProcessingRequest
from picker.server.lean_calls import ECHOED
from picker.wire.connection import Connection
from picker.wire.echo import Echo
from picker.wire.events import HalfClosed, MessageReceived
from picker.wire.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES,
    PREFACE,
    Kind,
    Setting,
    frame,
    settings,
    window_update,
)
from picker.wire.limits import WireLimits

RUNS = 7
TURNS = 2000
REPLY = b"r" * 300
_PEER_WINDOW = 2**30


def main() -> None:
    """Prints one JSON object."""
    numbers = {
        "chunk_us": best(chunks, 1),
        "chunk_8_a_turn_us": best(chunks, 8),
        "echo_us": best(echoes, 1),
        "echo_8_a_turn_us": best(echoes, 8),
        "request_headers_us": best(requests, 0),
        "request_2k_us": best(requests, 2_000),
        "request_32k_us": best(requests, 32_000),
        "request_2k_8_a_turn_us": best(requests, 2_000, 8),
        "request_2k_new_headers_us": best(requests, 2_000, 1, True),
    }
    print(json.dumps({name: round(value, 2) for name, value in numbers.items()}, indent=1))


def best(measure: Callable[..., float], *arguments: object) -> float:
    return min(measure(*arguments) for _ in range(RUNS))


def chunks(a_turn: int) -> float:
    """A message of 200 bytes in, one of 20 out, on a stream that stays open: both windows kept."""
    connection = ready()
    connection.receive(frame(Kind.HEADERS, END_HEADERS, 1, block()), 0.0)
    turn = data(1, b"c" * 200) * a_turn
    reply = b"a" * 20
    begin = time.process_time()
    for _ in range(TURNS):
        for event in connection.receive(turn, 0.0):
            if isinstance(event, MessageReceived):
                connection.send_message(event.stream, reply)
        connection.data_to_send()
    return (time.process_time() - begin) * 1e6 / (TURNS * a_turn)


def echoes(a_turn: int) -> float:
    """The same with a message of 200 bytes that goes back unheard."""
    connection = Connection(WireLimits(), 0.0, Echo(ECHOED))
    connection.receive(greeting() + frame(Kind.HEADERS, END_HEADERS, 1, block()), 0.0)
    connection.send_message(1, REPLY)
    turn = data(1, ProcessingRequest(response_body=HttpBody(body=b"c" * 200)).SerializeToString()) * a_turn
    begin = time.process_time()
    for _ in range(TURNS):
        for event in connection.receive(turn, 0.0):
            connection.send_message(event.stream, REPLY)
            connection.echo(event.stream)
        connection.data_to_send()
    return (time.process_time() - begin) * 1e6 / (TURNS * a_turn)


def requests(body: int, a_turn: int = 1, new_headers: bool = False) -> float:
    """Headers in, a message in; where there is a body, it comes as one more message; as many replies; the end."""
    connection = ready()
    messages = [b"h" * 400] + ([b"b" * body] if body else [])
    turns = []
    for first in range(1, 2 * TURNS * a_turn, 2 * a_turn):
        turn = b""
        for stream in range(first, first + 2 * a_turn, 2):
            turn += frame(Kind.HEADERS, END_HEADERS, stream, block(str(stream) if new_headers else ""))
            turn += b"".join(data(stream, each) for each in messages) + frame(Kind.DATA, END_STREAM, stream)
        turns.append(turn)
    begin = time.process_time()
    for turn in turns:
        for event in connection.receive(turn, 0.0):
            if isinstance(event, MessageReceived):
                connection.send_message(event.stream, REPLY)
            elif isinstance(event, HalfClosed):
                connection.finish(event.stream)
        connection.data_to_send()
    return (time.process_time() - begin) * 1e6 / (TURNS * a_turn)


def ready() -> Connection:
    """A connection of a peer with the largest windows, past its settings."""
    connection = Connection(WireLimits(), 0.0)
    connection.receive(greeting(), 0.0)
    connection.data_to_send()
    return connection


def greeting() -> bytes:
    """How a peer with the largest windows begins."""
    windows = settings({Setting.INITIAL_WINDOW_SIZE: _PEER_WINDOW}) + window_update(0, _PEER_WINDOW)
    return PREFACE + windows + frame(Kind.SETTINGS, ACK, 0)


def block(token: str = "", path: str = "/envoy.service.ext_proc.v3.ExternalProcessor/Process") -> bytes:
    """Request headers as Envoy sends them, each time the same unless `token` makes them new."""
    encoder = Encoder()
    encoder.header_table_size = 0
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "picker"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("x-envoy-internal", "true"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-envoy-expected-rq-timeout-ms", "50"),
    ]
    return encoder.encode([*fields, ("traceparent", token)] if token else fields)


def data(stream: int, message: bytes) -> bytes:
    """One message, in as few frames as may be."""
    whole = b"\0" + len(message).to_bytes(4, "big") + message
    pieces = (whole[at : at + FRAME_BYTES] for at in range(0, len(whole), FRAME_BYTES))
    return b"".join(frame(Kind.DATA, 0, stream, piece) for piece in pieces)


if __name__ == "__main__":
    main()
