"""Reading Envoy's messages: headers, bodies, subset hint, served endpoint, modes. All tolerant: what is malformed is
absent.

Nearly all messages hold request headers, or a piece of a body and nothing else that is read, so these are read off
their bytes; any other shape is left to protobuf. What one request's headers share with another's is read once: most of
them, and what stands behind them. The tests hold one to the other.
"""

import enum
from functools import lru_cache

from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct, Value
from msgspec import Struct as Record

from picker.exchange import keys
from picker.proto.core_pb2 import Metadata
from picker.proto.ext_proc_pb2 import HeaderMap, HeaderValue, ProcessingRequest


class BodyMode(enum.IntEnum):
    """Envoy's body send modes."""

    NONE = 0
    STREAMED = 1
    BUFFERED = 2
    BUFFERED_PARTIAL = 3
    FULL_DUPLEX_STREAMED = 4


BODY_MODES = {mode.value: mode for mode in BodyMode}
"""By their numbers on the wire."""


class Heard(Record, frozen=True, gc=False):
    """One message. `part`: the name of ProcessingRequest's field that it came in, empty for none that we know.

    `headers`: of a part that has some, by lower-case name. `body`, `end`: of a body, or whether headers end the stream.
    `modes`: how bodies are sent, request and response, where the proxy announces it.
    """

    part: str
    body: bytes = b""
    end: bool = False
    headers: dict[str, str] = {}
    subset: tuple[str, ...] | None = None
    served: str | None = None
    modes: tuple[int, int] | None = None


def message(data: bytes) -> Heard | None:
    """The message in these bytes, None if they are none."""
    return _piece(data) or _opening(data) or _any(data)


_BODIES = {4 << 3 | 2: "request_body", 5 << 3 | 2: "response_body"}
_BODY, _METADATA_CONTEXT = 1 << 3 | 2, 8 << 3 | 2
_END_OF_STREAM = b"\x10\x01"


def _piece(data: bytes) -> Heard | None:
    """An HttpBody, and behind it at most metadata; None for any other message, and for none at all."""
    try:
        part = _BODIES.get(data[0])
        if part is None:
            return None
        size, at = _length(data, 1)
        stop = at + size
        if stop != len(data):
            size, behind = _length(data, stop + 1)
            if data[stop] != _METADATA_CONTEXT or behind + size != len(data):
                return None
        body = b""
        if at != stop and data[at] == _BODY:
            size, start = _length(data, at + 1)
            at = start + size
            body = data[start:at]
    except IndexError:
        return None
    if at == stop:
        return Heard(part, body)
    return Heard(part, body, True) if data[at:stop] == _END_OF_STREAM else None


_HEADERS, _FIRST = 2 << 3 | 2, 1 << 3 | 2
_SHORT, _BEHIND = 256, 4096
"""Bytes of a header, and of what is behind all of them, that may be kept."""


def _opening(data: bytes) -> Heard | None:
    """Request headers, and behind them what a proxy says of itself; None for any other message."""
    try:
        if data[0] != _HEADERS:
            return None
        size, at = _length(data, 1)
        stop = at + size
        behind = _behind(data[stop:]) if len(data) - stop <= _BEHIND else None
        if behind is None or stop > len(data) or data[at] != _FIRST:
            return None
        size, at = _length(data, at + 1)
        last = at + size
        found: dict[str, str] = {}
        while at < last:
            if data[at] != _FIRST:
                return None
            size, at = _length(data, at + 1)
            entry = data[at : at + size]
            at += size
            name, value = _kept_header(entry) if size <= _SHORT else _header(HeaderValue.FromString(entry))
            found[name] = f"{found[name]}, {value}" if name in found else value
    except (IndexError, DecodeError):
        return None
    end = data[last:stop]
    if at != last or last > stop or (end and end != _HEADERS_END):
        return None
    modes, restriction = behind
    return Heard("request_headers", b"", bool(end), found, restriction, None, modes)


_HEADERS_END = b"\x18\x01"


@lru_cache(maxsize=4096)
def _kept_header(entry: bytes) -> tuple[str, str]:
    """Raises DecodeError."""
    return _header(HeaderValue.FromString(entry))


@lru_cache(maxsize=64)
def _behind(data: bytes) -> tuple[tuple[int, int] | None, tuple[str, ...] | None] | None:
    """Modes and subset; None where there is more to it. Raises DecodeError."""
    heard = ProcessingRequest.FromString(data)
    return None if heard.WhichOneof("request") else (_modes(heard), subset(heard.metadata_context))


def _length(data: bytes, at: int) -> tuple[int, int]:
    """A varint of at most three bytes, and where it ends. Raises IndexError where there is none."""
    value = data[at]
    if value < 0x80:
        return value, at + 1
    value += data[at + 1] - 1 << 7
    if value < 0x4000:
        return value, at + 2
    value += data[at + 2] - 1 << 14
    if value < 0x200000:
        return value, at + 3
    raise IndexError


def _any(data: bytes) -> Heard | None:
    try:
        heard = ProcessingRequest.FromString(data)
    except DecodeError:
        return None
    part = heard.WhichOneof("request") or ""
    modes = _modes(heard)
    match part:
        case "request_headers":
            sent = heard.request_headers
            found = headers(sent.headers)
            return Heard(part, b"", sent.end_of_stream, found, subset(heard.metadata_context), None, modes)
        case "response_headers":
            sent = heard.response_headers
            return Heard(part, b"", sent.end_of_stream, headers(sent.headers), None, served(heard), modes)
        case "request_body":
            return Heard(part, heard.request_body.body, heard.request_body.end_of_stream, modes=modes)
        case "response_body":
            return Heard(part, heard.response_body.body, heard.response_body.end_of_stream, modes=modes)
    return Heard(part, modes=modes)


def _modes(heard: ProcessingRequest) -> tuple[int, int] | None:
    told = heard.protocol_config
    return (told.request_body_mode, told.response_body_mode) if heard.HasField("protocol_config") else None


def headers(header_map: HeaderMap) -> dict[str, str]:
    """Lower-case name to value, repeated ones joined (RFC 9110 section 5.3); bytes that are not UTF-8 are replaced."""
    found: dict[str, str] = {}
    for header in header_map.headers:
        name, value = _header(header)
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _header(header: HeaderValue) -> tuple[str, str]:
    return header.key.lower(), (header.raw_value or header.value).decode("utf-8", "replace")


def subset(context: Metadata) -> tuple[str, ...] | None:
    """The gateway's restriction: a list of `ip:port`, or one string with commas. None if it sets none; anything that is
    there but cannot be read is an empty subset, for a restriction must not fail open."""
    if keys.SUBSET_NAMESPACE not in context.filter_metadata:
        return None
    hint = context.filter_metadata[keys.SUBSET_NAMESPACE]
    if keys.SUBSET not in hint.fields:
        return None
    value = hint.fields[keys.SUBSET]
    texts = [item.string_value for item in value.list_value.values] or [value.string_value]
    return tuple(name for text in texts for part in text.split(",") if (name := part.strip()))


def served(request: ProcessingRequest) -> str | None:
    """The endpoint that served: the load balancer's metadata first, else the upstream address attribute."""
    metadata = request.metadata_context.filter_metadata
    if keys.LB_NAMESPACE in metadata and (found := text(metadata[keys.LB_NAMESPACE], keys.SERVED)):
        return found
    for attributes in request.attributes.values():
        if found := text(attributes, keys.UPSTREAM_ADDRESS):
            return found
    return None


def text(struct: Struct, key: str) -> str | None:
    """A non-empty string field of a struct, else None."""
    return _field(struct, key).string_value or None


def number(struct: Struct, key: str) -> int | None:
    """A whole, finite, non-negative number field of a struct (also one written as text), else None."""
    value = _field(struct, key)
    if (told := value.number_value) > 0:
        return int(told) if told < 2**53 else None
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        return 0 if told == 0 else None
    if kind == "string_value" and value.string_value.isascii() and value.string_value.isdigit():
        return int(value.string_value[:15])
    return None


_NOTHING = Value()


def _field(struct: Struct, key: str) -> Value:
    # An index alone would create the entry in the message; `get` takes three times as long as both.
    fields = struct.fields
    if key in fields:
        return fields[key]
    return _NOTHING
