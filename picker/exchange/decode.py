"""Reading Envoy's messages: headers, subset hint, served endpoint, modes. All tolerant: what is malformed is absent."""

import enum

from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct, Value

from picker.exchange import keys
from picker.proto.core_pb2 import Metadata
from picker.proto.ext_proc_pb2 import HeaderMap, ProcessingRequest


class BodyMode(enum.IntEnum):
    """Envoy's body send modes."""

    NONE = 0
    STREAMED = 1
    BUFFERED = 2
    BUFFERED_PARTIAL = 3
    FULL_DUPLEX_STREAMED = 4


def message(data: bytes) -> ProcessingRequest | None:
    """The message in these bytes, None if they are none."""
    try:
        return ProcessingRequest.FromString(data)
    except DecodeError:
        return None


def body_mode(value: int, default: BodyMode) -> BodyMode:
    """The mode of this number, `default` for one that we do not know."""
    try:
        return BodyMode(value)
    except ValueError:
        return default


def headers(header_map: HeaderMap) -> dict[str, str]:
    """Lower-case name to value, repeated ones joined (RFC 9110 section 5.3); bytes that are not UTF-8 are replaced."""
    found: dict[str, str] = {}
    for header in header_map.headers:
        name = header.key.lower()
        value = (header.raw_value or header.value).decode("utf-8", "replace")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


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
    kind = value.WhichOneof("kind")
    if kind == "number_value" and 0 <= value.number_value < 2**53:
        return int(value.number_value)
    if kind == "string_value" and value.string_value.isascii() and value.string_value.isdigit():
        return int(value.string_value[:15])
    return None


_NOTHING = Value()


def _field(struct: Struct, key: str) -> Value:
    # `get` and not an index, which would create the entry in the message.
    return struct.fields.get(key, _NOTHING)
