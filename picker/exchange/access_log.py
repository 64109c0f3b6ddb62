"""Envoy's gRPC access log, read: what became of an answer that did not pass through us.

A record belongs to a pick by its flight, the number that the pick put into dynamic metadata; the request id comes from
the client and proves nothing. Times count from the first byte of the request as Envoy saw it.
"""

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct
from msgspec import Struct as Record

from picker.exchange import keys
from picker.exchange.decode import number, text
from picker.proto.access_log_pb2 import (
    DOWNSTREAM_END,
    DOWNSTREAM_PERIODIC,
    NOT_SET,
    AccessLogCommon,
    HTTPAccessLogEntry,
    StreamAccessLogsMessage,
)

CUT_SHORT = frozenset(
    {
        "downstream_connection_termination",
        "downstream_protocol_error",
        "downstream_remote_reset",
        "duration_timeout",
        "local_reset",
        "overload_manager",
        "stream_idle_timeout",
        "upstream_connection_termination",
        "upstream_max_stream_duration_reached",
        "upstream_protocol_error",
        "upstream_remote_reset",
        "upstream_request_timeout",
    }
)
"""Response flags under which an answer that began may have been cut short."""

CONNECTION_FAILED = "upstream_connection_failure"
BROKEN_OFF = frozenset({"upstream_connection_termination", "upstream_protocol_error", "upstream_remote_reset"})
"""Response flags of an endpoint that took the request and broke the connection."""
BY_ENDPOINT = BROKEN_OFF | {"upstream_retry_limit_exceeded"}
"""Response flags beside which the status may be the endpoint's own. Any other is the doing of client or proxy."""


class AccessRecord(Record, frozen=True, gc=False):
    """One record. None is what the record does not tell.

    `flight`: the pick this is about, None for a request that had none. `ended`: False for a report during the answer.
    `status`: 0 where no answer began. `flags`: names of Envoy's response flags. `served`: `ip:port`. `ttft_s`: first
    byte of the answer's body, `duration_s`: all of it so far; seconds since the request's first byte.
    """

    flight: int | None
    ended: bool
    status: int
    flags: tuple[str, ...] = ()
    served: str | None = None
    ttft_s: float | None = None
    duration_s: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None

    @property
    def complete(self) -> bool:
        """The answer ended, and nothing cut it short."""
        return self.ended and self.status > 0 and CUT_SHORT.isdisjoint(self.flags)

    @property
    def by_endpoint(self) -> bool:
        """Neither client nor proxy had a part in how it ended."""
        return BY_ENDPOINT.issuperset(self.flags)

    @property
    def broken_off(self) -> bool:
        """The endpoint took the request and broke the connection."""
        return self.by_endpoint and not BROKEN_OFF.isdisjoint(self.flags)

    @property
    def unreached(self) -> bool:
        """No connection to the endpoint came about, and nobody else served."""
        return CONNECTION_FAILED in self.flags


class Unread(Record):
    """How many messages could not be decoded, for whoever counts them."""

    messages: int = 0


def decode(message: bytes, unread: Unread | None = None) -> list[AccessRecord]:
    """The records in one serialised StreamAccessLogsMessage, in order. Never raises: a message that cannot be decoded
    gives none and is counted in `unread`."""
    try:
        log = StreamAccessLogsMessage.FromString(message)
    except DecodeError:
        if unread is not None:
            unread.messages += 1
        return []
    return [
        _record(entry, common)
        for entry in log.http_logs.log_entry
        if (common := entry.common_properties).access_log_type in _ABOUT_CLIENT
    ]


# An upstream attempt that failed over is not an end.
_ABOUT_CLIENT = frozenset((NOT_SET, DOWNSTREAM_PERIODIC, DOWNSTREAM_END))


def _record(entry: HTTPAccessLogEntry, common: AccessLogCommon) -> AccessRecord:
    metadata = common.metadata.filter_metadata
    usage = metadata.get(keys.USAGE_NAMESPACE, _NOTHING)
    upstream = common.upstream_remote_address.socket_address
    host = upstream.address
    return AccessRecord(
        _flight(metadata.get(keys.LB_NAMESPACE, _NOTHING)),
        common.access_log_type != DOWNSTREAM_PERIODIC and not common.intermediate_log_entry,
        entry.response.response_code.value,
        tuple([field.name for field, _ in common.response_flags.ListFields()])
        if common.HasField("response_flags")
        else (),
        _address(host, upstream.port_value) if host else None,
        _microseconds(common.custom_tags.get(keys.FIRST_BODY_BYTE, "")),
        _seconds(common.duration) if common.HasField("duration") else None,
        number(usage, keys.PROMPT_TOKENS),
        number(usage, keys.CACHED_TOKENS),
        number(usage, keys.COMPLETION_TOKENS),
    )


_NOTHING = Struct()


def _flight(load_balancing: Struct) -> int | None:
    flight = text(load_balancing, keys.FLIGHT) or ""
    return int(flight) if len(flight) <= 20 and flight.isascii() and flight.isdigit() else None


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def _microseconds(tag: str) -> float | None:
    """Envoy writes "-" for a time point that was not reached."""
    return int(tag) / 1e6 if len(tag) <= 18 and tag.isascii() and tag.isdigit() else None
