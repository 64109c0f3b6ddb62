"""Frames of HTTP/2 as bytes (RFC 9113 sections 4, 6 and 7)."""

import enum
import struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD: Final = struct.Struct(">IBI")
"""Of a frame: length << 8 | kind, flags, stream."""
PREFIX: Final = struct.Struct(">BI")
"""Of a gRPC message: compressed, length."""
WHOLE: Final = struct.Struct(">IBIBI")
"""Of a DATA frame with one message in it: both of the above."""
FRAME_BYTES: Final = 16_384
"""The longest payload we accept: the protocol's default, which we leave."""
WINDOW: Final = 65_535
"""Every window's size before anybody says otherwise."""
LARGEST: Final = 2**31 - 1
"""The largest window and stream number."""

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY: Final = 0x20


class Kind(enum.IntEnum):
    """Section 6. Kinds not listed are ignored."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Code(enum.IntEnum):
    """Error codes, section 7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class Setting(enum.IntEnum):
    """Section 6.5.2."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class Broken(Exception):
    """A connection error (section 5.4.1): nothing on this connection can be trusted or borne any longer."""

    def __init__(self, code: Code, why: str) -> None:
        super().__init__(why)
        self.code = code
        self.why = why


def frame(kind: Kind, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame. `payload` must fit the peer's maximum."""
    return HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload


def settings(values: dict[Setting, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(Kind.SETTINGS, 0, 0, b"".join(struct.pack(">HI", *item) for item in values.items()))


def window_update(stream: int, more: int) -> bytes:
    """Room for `more` bytes on a stream, or on the connection (0)."""
    return frame(Kind.WINDOW_UPDATE, 0, stream, more.to_bytes(4, "big"))


def rst_stream(stream: int, code: int) -> bytes:
    """The end of one stream by force."""
    return frame(Kind.RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def go_away(last: int, code: Code, why: str = "") -> bytes:
    """No stream above `last` was or will be looked at. `why` is for the peer's log."""
    return frame(Kind.GOAWAY, 0, 0, struct.pack(">II", last, code) + why.encode()[:256])


def parse_settings(payload: bytes) -> list[tuple[int, int]]:
    """Of a SETTINGS payload, whole entries: identifier and value, in order.

    Raises `Broken` for values that section 6.5.2 forbids.
    """
    if len(payload) % 6:
        raise Broken(Code.FRAME_SIZE_ERROR, "SETTINGS not in entries of six bytes")
    entries = list(struct.iter_unpack(">HI", payload))
    for name, value in entries:
        if name == Setting.ENABLE_PUSH and value > 1:
            raise Broken(Code.PROTOCOL_ERROR, "ENABLE_PUSH neither 0 nor 1")
        if name == Setting.INITIAL_WINDOW_SIZE and value > LARGEST:
            raise Broken(Code.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE too large")
        if name == Setting.MAX_FRAME_SIZE and not FRAME_BYTES <= value < 2**24:
            raise Broken(Code.PROTOCOL_ERROR, "MAX_FRAME_SIZE out of range")
    return entries


def unpadded(flags: int, payload: bytes) -> bytes:
    """The payload without padding (sections 6.1, 6.2). Raises `Broken` where the padding is longer than the frame."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise Broken(Code.PROTOCOL_ERROR, "more padding than payload")
    return payload[1 : len(payload) - payload[0]]
