"""Replies as bytes, written straight in protobuf wire format.

A serialised message is the concatenation of its fields, and what stands before a value follows from its length alone:
that is built once for each length and kept, and no message object is made on the hot path. The tests read every reply
back with the compiled protos.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from struct import pack

from picker.exchange import keys
from picker.exchange.failures import Refusal

Json = str | bool | int | float | Mapping[str, "Json"] | Sequence["Json"]
"""What dynamic metadata may hold."""

CHUNK_BYTES = 62_000
"""Largest body in one streamed reply: the protocol's limit, below Envoy's 64 KiB."""

# Field numbers of ProcessingResponse.
REQUEST_HEADERS, RESPONSE_HEADERS, REQUEST_BODY, RESPONSE_BODY, REQUEST_TRAILERS, RESPONSE_TRAILERS = range(1, 7)
_IMMEDIATE, _DYNAMIC_METADATA = 7, 8


# Of the numbers and lengths that nearly every field has.
_TAGS = [bytes((number << 3 | 2,)) for number in range(16)]
_SHORT = [bytes((size,)) for size in range(0x80)]


def _varint(value: int) -> bytes:
    if value < 0x80:
        return _SHORT[value]
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited field; all our numbers fit one tag byte."""
    size = len(payload)
    return _TAGS[number] + (_SHORT[size] if size < 0x80 else _varint(size)) + payload


def _text(value: str) -> bytes:
    return value.encode("utf-8", "replace")


_OVERWRITE = b"\x18\x02"


def set_header(name: str, value: str) -> bytes:
    """HeaderMutation.set_headers: overwrite or add."""
    return _set_header(name, _text(value))


def _set_header(name: str, value: bytes) -> bytes:
    return _field(1, _field(1, _field(1, _text(name)) + _field(3, value)) + _OVERWRITE)


def remove_header(name: str) -> bytes:
    """HeaderMutation.remove_headers."""
    return _field(2, _text(name))


def _value(value: Json) -> bytes:
    """google.protobuf.Value."""
    if isinstance(value, str):
        return _field(3, _text(value))
    if isinstance(value, bool):
        return b"\x20\x01" if value else b"\x20\x00"
    if isinstance(value, int | float):
        return b"\x11" + pack("<d", value)
    if isinstance(value, Mapping):
        return _field(5, _struct(value))
    return _field(6, b"".join(_field(1, _value(item)) for item in value))


def _entry(key: str, value: bytes) -> bytes:
    """One entry of google.protobuf.Struct.fields."""
    return _field(1, _field(1, _text(key)) + _field(2, value))


def _struct(values: Mapping[str, Json]) -> bytes:
    return b"".join([_entry(key, _value(value)) for key, value in values.items()])


def _before(build: Callable[[bytes], bytes], behind: int = 0) -> Callable[[int], bytes]:
    """What `build` puts before a value, by the value's length; it puts `behind` bytes behind it."""

    @lru_cache(maxsize=1024)
    def before(size: int) -> bytes:
        whole = build(bytes(size))
        return whole[: len(whole) - size - behind]

    return before


_before_header = _before(lambda value: _set_header(keys.DESTINATION, value), len(_OVERWRITE))
_before_destination = _before(lambda value: _entry(keys.DESTINATION, _field(3, value)))
_before_flight = _before(lambda value: _entry(keys.FLIGHT, _field(3, value)))
_before_entries = _before(lambda value: _field(_DYNAMIC_METADATA, _entry(keys.LB_NAMESPACE, _field(5, value))))


def pick(destinations: Iterable[str], flight: str, more: Mapping[str, Json]) -> tuple[bytes, bytes]:
    """The mutation that names the pick, best first; and the dynamic metadata that repeats it exactly, carries the
    flight, and whatever else is given."""
    listed = _text(",".join(destinations))
    entries = _before_destination(len(listed)) + listed
    if flight:
        number = _text(flight)
        entries += _before_flight(len(number)) + number
    if more:
        entries += _struct(more)
    return _before_header(len(listed)) + listed + _OVERWRITE, _before_entries(len(entries)) + entries


def whole_body(body: bytes) -> bytes:
    """CommonResponse.body_mutation that replaces a buffered body."""
    return _field(3, _field(1, body))


def go_on(
    part: int, *, mutation: bytes = b"", body: bytes = b"", clear_route: bool = False, more: bytes = b""
) -> bytes:
    """A headers or body reply: `mutation` holds header mutations, `body` a body mutation, `more` further fields."""
    common = (_field(2, mutation) if mutation else b"") + body + (b"\x28\x01" if clear_route else b"")
    return _field(part, _field(1, common) if common else b"") + more


def trailers(part: int) -> bytes:
    """A trailers reply that changes nothing."""
    return _field(part, b"")


def streamed(part: int, body: bytes, end: bool) -> list[bytes]:
    """A body as streamed replies of at most CHUNK_BYTES each; `end` is set on the last, even of an empty body."""
    size = len(body)
    if size <= CHUNK_BYTES:
        if end:
            return [_before_chunk(part, size, 2) + body + b"\x10\x01"]
        return [_before_chunk(part, size, 0) + body] if size else []
    replies = []
    for start in range(0, size, CHUNK_BYTES):
        stop = start + CHUNK_BYTES
        replies += streamed(part, body[start:stop], end and stop >= size)
    return replies


@lru_cache(maxsize=4096)
def _before_chunk(part: int, size: int, behind: int) -> bytes:
    # From the inside out, tags and lengths alone.
    head = _TAGS[1] + _varint(size) if size else b""
    size += len(head) + behind
    for number in (3, 3, 1, part):
        length = _varint(size)
        head = _TAGS[number] + length + head
        size += 1 + len(length)
    return head


def immediate(refusal: Refusal, headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """An ImmediateResponse: the client gets this instead of an answer."""
    fields = [("content-type", "application/json"), *headers]
    if refusal.retry_after is not None:
        fields.append(("retry-after", str(refusal.retry_after)))
    if refusal.dropped is not None:
        fields.append((keys.DROPPED_REASON, refusal.dropped))
    status = _field(1, b"\x08" + _varint(refusal.status))
    mutation = _field(2, b"".join([set_header(name, value) for name, value in fields]))
    details = _field(5, _text(f"picker_{refusal.failure.value}"))
    return _field(_IMMEDIATE, status + mutation + _field(3, refusal.body()) + details)
