"""A client that says anything at all: bytes for a `Connection`, and a `Connection`'s bytes read back."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

from hpack import Decoder, Encoder

from picker.wire.connection import Connection
from picker.wire.echo import Echo, Shape
from picker.wire.events import Event
from picker.wire.frames import ACK, END_HEADERS, END_STREAM, HEAD, PREFACE, Kind, frame
from picker.wire.limits import WireLimits

LIMITS = WireLimits()
SMALL = WireLimits(
    streams=4,
    message_bytes=3000,
    assembling_bytes=8000,
    queued_bytes=20_000,
    header_bytes=400,
    stream_window=2000,
    idle_frames=60,
    resets=6,
)
"""Limits that a few random acts reach."""
Fields = Sequence[tuple[str, str]]
REQUEST: Fields = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/test.Echo/Stream"),
    (":authority", "picker"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
)


def block(fields: Fields = REQUEST) -> bytes:
    """A header block that leaves no trace in the decoder's table."""
    encoder = Encoder()
    encoder.header_table_size = 0
    return encoder.encode(list(fields))


def plain(fields: Fields) -> bytes:
    """The same without Huffman coding."""
    encoder = Encoder()
    encoder.header_table_size = 0
    return encoder.encode(list(fields), huffman=False)


def request(stream: int, *more: tuple[str, str], fields: Fields = REQUEST, end: bool = False) -> bytes:
    return frame(Kind.HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block((*fields, *more)))


def grpc(*messages: bytes) -> bytes:
    return b"".join(b"\0" + len(message).to_bytes(4, "big") + message for message in messages)


def data(stream: int, *messages: bytes, end: bool = False) -> bytes:
    return frame(Kind.DATA, END_STREAM if end else 0, stream, grpc(*messages))


def raw(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame of any kind and any stream, known or not."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def settings(*entries: tuple[int, int]) -> bytes:
    payload = b"".join(name.to_bytes(2, "big") + value.to_bytes(4, "big") for name, value in entries)
    return frame(Kind.SETTINGS, 0, 0, payload)


GREETING = PREFACE + settings() + frame(Kind.SETTINGS, ACK, 0)
"""What every client begins with."""


SHAPE = Shape(into=b"\x2a\x0a", out=b"\x1a\x22\x0a", behind=0x42, word=b'"stop"', harmless=b":no")
"""Of messages that are answered without their owner."""
ECHO = Echo(SHAPE)


def nested(tags: bytes, payload: bytes) -> bytes:
    """Protobuf fields within each other, around bytes."""
    for tag in reversed(tags):
        length, rest = b"", len(payload)
        while rest >= 0x80:
            length, rest = length + bytes([rest & 0x7F | 0x80]), rest >> 7
        payload = bytes([tag]) + length + bytes([rest]) + payload
    return payload


def shaped(payload: bytes) -> bytes:
    return nested(SHAPE.into, payload)


def window_update(stream: int, more: int) -> bytes:
    return frame(Kind.WINDOW_UPDATE, 0, stream, more.to_bytes(4, "big"))


def reset(stream: int, code: int = 8) -> bytes:
    return frame(Kind.RST_STREAM, 0, stream, code.to_bytes(4, "big"))


@dataclass(frozen=True)
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> int:
        """The error code of RST_STREAM or GOAWAY."""
        return int.from_bytes(self.payload[-4:] if self.kind == Kind.RST_STREAM else self.payload[4:8], "big")


@dataclass
class Peer:
    """The connection under test and the peer's view of it. `now` is the clock of both."""

    limits: WireLimits = LIMITS
    now: float = 0.0
    greeting: bytes = GREETING
    echo: Echo | None = None
    heard: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.connection = Connection(self.limits, self.now, self.echo)
        self.decoder = Decoder()
        self._bytes = b""
        self.say(self.greeting)
        self.frames()

    def say(self, *data: bytes) -> list[Event]:
        events = self.connection.receive(b"".join(data), self.now)
        self.heard += events
        return events

    def wait(self, seconds: float) -> list[Event]:
        self.now += seconds
        events = self.connection.tick(self.now)
        self.heard += events
        return events

    def read(self) -> None:
        """Take what the connection has to send; looked at later."""
        self._bytes += self.connection.data_to_send()

    def frames(self, kind: Kind | None = None) -> list[Frame]:
        """What the connection has sent since the last look."""
        self.read()
        found = []
        while len(self._bytes) >= HEAD.size:
            word, flags, stream = HEAD.unpack_from(self._bytes)
            end = HEAD.size + (word >> 8)
            found.append(Frame(word & 0xFF, flags, stream, self._bytes[HEAD.size : end]))
            assert len(self._bytes) >= end, "a frame is cut off"
            self._bytes = self._bytes[end:]
        return [each for each in found if kind in (None, each.kind)]

    def fields(self, headers: Frame) -> dict[str, str]:
        return dict(cast(Iterable[tuple[str, str]], self.decoder.decode(headers.payload)))

    def error(self) -> int | None:
        """The code with which the connection was closed, None while it is open."""
        codes = [each.code for each in self.frames(Kind.GOAWAY)]
        return codes[-1] if self.connection.closing else None
