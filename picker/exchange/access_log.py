"""Envoy's gRPC access log, read: what became of an answer that did not pass through us.

A record belongs to a pick by its flight, the number that the pick put into dynamic metadata; the request id comes from
the client and proves nothing. Times count from the first byte of the request as Envoy saw it.
"""

from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct

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


@dataclass(frozen=True, slots=True)
class AccessRecord:
    """One record. None is what the record does not tell.

    `flight`: the pick this is about, None for a request that had none. `ended`: False for a report during the answer.
    `status`: 0 where no answer began. `flags`: names of Envoy's response flags. `served`: `ip:port`. `ttft_s`: first
    byte of the answer's body, `last_byte_s`: the last one from the endpoint, `duration_s`: all of it so far; seconds
    since the request's first byte. Bytes are those of the bodies, without headers.
    """

    flight: int | None
    request_id: str
    ended: bool
    status: int
    flags: tuple[str, ...] = ()
    served: str | None = None
    ttft_s: float | None = None
    last_byte_s: float | None = None
    duration_s: float | None = None
    request_bytes: int = 0
    response_bytes: int = 0
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None

    @property
    def complete(self) -> bool:
        """The answer ended, and nothing cut it short."""
        return self.ended and self.status > 0 and CUT_SHORT.isdisjoint(self.flags)


@dataclass(slots=True)
class Unread:
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
    return [_record(entry) for entry in log.http_logs.log_entry if _about_client(entry.common_properties)]


def _about_client(common: AccessLogCommon) -> bool:
    """Reports on the client's side only; an upstream attempt that failed over is not an end."""
    return common.access_log_type in (NOT_SET, DOWNSTREAM_PERIODIC, DOWNSTREAM_END)


def _record(entry: HTTPAccessLogEntry) -> AccessRecord:
    common, request, response = entry.common_properties, entry.request, entry.response
    metadata = common.metadata.filter_metadata
    usage = metadata.get(keys.USAGE_NAMESPACE, _NOTHING)
    upstream = common.upstream_remote_address.socket_address
    unfinished = common.access_log_type == DOWNSTREAM_PERIODIC or common.intermediate_log_entry
    return AccessRecord(
        flight=_flight(metadata.get(keys.LB_NAMESPACE, _NOTHING)),
        request_id=request.request_id,
        ended=not unfinished,
        status=response.response_code.value,
        flags=tuple([field.name for field, _ in common.response_flags.ListFields()]),
        served=_address(upstream.address, upstream.port_value) if upstream.address else None,
        ttft_s=_microseconds(common.custom_tags.get(keys.FIRST_BODY_BYTE, "")),
        last_byte_s=_seconds(common.time_to_last_upstream_rx_byte)
        if common.HasField("time_to_last_upstream_rx_byte")
        else None,
        duration_s=_seconds(common.duration) if common.HasField("duration") else None,
        request_bytes=request.request_body_bytes,
        response_bytes=response.response_body_bytes,
        prompt_tokens=number(usage, keys.PROMPT_TOKENS),
        cached_tokens=number(usage, keys.CACHED_TOKENS),
        completion_tokens=number(usage, keys.COMPLETION_TOKENS),
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
