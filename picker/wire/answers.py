"""Header blocks that we send: literals without indexing, so they mean the same whatever was sent before.

gRPC over HTTP/2 (PROTOCOL-HTTP2.md of grpc), Responses; HPACK literals by RFC 7541 section 6.2.2.
"""

from typing import Final
from urllib.parse import quote_from_bytes

from picker.wire.frames import END_HEADERS, END_STREAM, HEAD, Kind

_STATUS: Final = {200: b"\x88"}
_NAMES: Final = {":status": 8, "content-type": 31}
_UNQUOTED: Final = bytes(byte for byte in range(0x20, 0x7F) if byte != 0x25)
_MESSAGE_BYTES: Final = 1024

OK: Final = 0
UNKNOWN: Final = 2
DEADLINE_EXCEEDED: Final = 4
RESOURCE_EXHAUSTED: Final = 8
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13


def _length(size: int) -> bytes:
    """A string's length: an integer with a prefix of seven bits (RFC 7541 section 5.1), no Huffman coding."""
    if size < 0x7F:
        return bytes([size])
    size -= 0x7F
    rest = bytearray(b"\x7f")
    while size >= 0x80:
        rest.append(size & 0x7F | 0x80)
        size >>= 7
    rest.append(size)
    return bytes(rest)


def _literal(name: str, value: bytes) -> bytes:
    """One field. Of names in the static table only the number goes out: 8 in four bits, 31 in four bits and a byte."""
    index = _NAMES.get(name, 0)
    if index:
        head = bytes([index]) if index < 15 else bytes([15, index - 15])
    else:
        head = b"\0" + _length(len(name)) + name.encode()
    return head + _length(len(value)) + value


_GRPC: Final = _STATUS[200] + _literal("content-type", b"application/grpc")
_STATUS_OK: Final = _literal("grpc-status", b"0")
NO_TABLE: Final = b"\x20"
"""Before the first block: our encoder uses no dynamic table, whatever size the peer allows or takes back."""

_HEAD_WORD: Final = len(_GRPC) << 8 | Kind.HEADERS
_OK_WORD: Final = len(_STATUS_OK) << 8 | Kind.HEADERS


def head(stream: int) -> bytes:
    """Response-Headers."""
    return HEAD.pack(_HEAD_WORD, END_HEADERS, stream) + _GRPC


def trailers(stream: int, status: int, message: str) -> bytes:
    """Trailers, after Response-Headers."""
    if status == OK and not message:
        return HEAD.pack(_OK_WORD, END_HEADERS | END_STREAM, stream) + _STATUS_OK
    return _ending(stream, _status(status, message))


def trailers_only(stream: int, status: int, message: str, *, unpacked: bool = False) -> bytes:
    """An answer without messages. `unpacked` tells that we take messages only as they are, uncompressed."""
    accepted = _literal("grpc-accept-encoding", b"identity") if unpacked else b""
    return _ending(stream, _GRPC + accepted + _status(status, message))


def http_only(stream: int, status: int) -> bytes:
    """A bare HTTP status, for those who do not speak gRPC."""
    return _ending(stream, _STATUS.get(status) or _literal(":status", str(status).encode()))


def _ending(stream: int, block: bytes) -> bytes:
    return HEAD.pack(len(block) << 8 | Kind.HEADERS, END_HEADERS | END_STREAM, stream) + block


def _status(status: int, message: str) -> bytes:
    """The status, and the message percent-encoded (Status-Message), its end cut off past 1 KiB."""
    block = _literal("grpc-status", str(status).encode())
    if message:
        quoted = quote_from_bytes(message.encode(errors="replace")[:_MESSAGE_BYTES], safe=_UNQUOTED)
        block += _literal("grpc-message", quoted.encode())
    return block
