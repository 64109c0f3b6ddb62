"""Why a request gets no endpoint, and what its client is told. One table; the wire form is in encode.py.

Statuses follow the endpoint picker protocol: 503 when there is nothing to pick from, 429 when there is but it is too
busy, 4xx for the client's own fault. None of these ever ends the gRPC stream with an error: a gateway that fails open
would then send the request to any endpoint at all.
"""

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass


class Failure(enum.StrEnum):
    """Each way to fail; the value is the label in metrics and the default error code."""

    BAD_REQUEST = "bad_request"
    BODY_TOO_LARGE = "body_too_large"
    NO_ENDPOINTS = "no_endpoints"
    EMPTY_SUBSET = "empty_subset"
    SCREENED_OUT = "screened_out"
    FILTERED_OUT = "filtered_out"
    SATURATED = "saturated"
    NOT_ADMITTED = "not_admitted"
    NOT_CACHED = "prefix_not_cached"
    QUEUE_FULL = "queue_full"
    QUEUE_FULL_EMPTY_POOL = "queue_full_empty_pool"
    QUEUE_EXPIRED = "queue_expired"
    QUEUE_EXPIRED_EMPTY_POOL = "queue_expired_empty_pool"
    CLIENT_GONE = "client_gone"
    SHUTTING_DOWN = "shutting_down"
    EVICTED = "evicted"
    EVICTED_QUEUE_PRESSURE = "evicted_queue_pressure"
    EVICTED_PRIORITY = "evicted_priority"
    INTERNAL = "internal_error"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `dropped` is the drop-reason header, `retry_after_s` is Retry-After in seconds."""

    status: int
    type: str
    message: str
    dropped: str | None = None
    retry_after_s: int | None = None


_CLIENT = "invalid_request_error"
_BUSY = "rate_limit_error"
_DOWN = "service_unavailable_error"

FAILURES: Mapping[Failure, Row] = {
    Failure.BAD_REQUEST: Row(400, _CLIENT, "The request could not be read."),
    Failure.BODY_TOO_LARGE: Row(413, _CLIENT, "The request body is too large."),
    Failure.NO_ENDPOINTS: Row(503, _DOWN, "No model server is ready.", "rejected-no-endpoints", 1),
    Failure.EMPTY_SUBSET: Row(503, _DOWN, "No model server in the asked subset is ready.", "rejected-no-endpoints", 1),
    Failure.SCREENED_OUT: Row(503, _DOWN, "No model server may take this request.", "rejected-no-endpoints", 1),
    Failure.FILTERED_OUT: Row(503, _DOWN, "No model server fits this request.", "rejected-no-endpoints", 1),
    Failure.SATURATED: Row(429, _BUSY, "All model servers are busy.", "rejected-saturated", 1),
    Failure.NOT_ADMITTED: Row(429, _BUSY, "The request was not admitted.", "rejected-saturated", 1),
    Failure.NOT_CACHED: Row(412, _CLIENT, "No model server holds the prompt's prefix."),
    Failure.QUEUE_FULL: Row(429, _BUSY, "The waiting queue is full.", "rejected-saturated", 1),
    Failure.QUEUE_FULL_EMPTY_POOL: Row(503, _DOWN, "No model server is ready.", "rejected-no-endpoints", 1),
    Failure.QUEUE_EXPIRED: Row(429, _BUSY, "The request waited too long.", "rejected-ttl-expired", 1),
    Failure.QUEUE_EXPIRED_EMPTY_POOL: Row(503, _DOWN, "No model server became ready.", "rejected-ttl-expired", 1),
    Failure.CLIENT_GONE: Row(503, _DOWN, "The client went away.", "rejected-context-cancelled", 1),
    Failure.SHUTTING_DOWN: Row(503, _DOWN, "The gateway is shutting down.", "rejected-shutting-down", 1),
    Failure.EVICTED: Row(429, _BUSY, "The request was evicted.", "evicted", 1),
    Failure.EVICTED_QUEUE_PRESSURE: Row(429, _BUSY, "The request was evicted.", "evicted-queue-pressure", 1),
    Failure.EVICTED_PRIORITY: Row(429, _BUSY, "The request was evicted.", "evicted-priority", 1),
    Failure.INTERNAL: Row(500, "server_error", "The endpoint picker failed."),
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """One request's "no": a row of the table, with what is known better about this request in place of the default.

    `param` and `code` are those of the OpenAI error object. `retry_after_s` is in seconds, whole.

    >>> Refusal(Failure.SATURATED, retry_after_s=7).status
    429
    """

    failure: Failure
    message: str | None = None
    param: str | None = None
    code: str | None = None
    retry_after_s: int | None = None
    own_status: int | None = None

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.own_status or FAILURES[self.failure].status

    @property
    def dropped(self) -> str | None:
        """Value of the drop-reason header, None where the request was at fault itself."""
        return FAILURES[self.failure].dropped

    @property
    def retry_after(self) -> int | None:
        """Value of Retry-After in seconds; always there for 429 and 503."""
        default = FAILURES[self.failure].retry_after_s
        if default is None and self.status in (429, 503):
            default = 1
        return default if self.retry_after_s is None else max(0, self.retry_after_s)

    def body(self) -> bytes:
        """The OpenAI error object, as JSON."""
        row = FAILURES[self.failure]
        error = {
            "message": self.message or row.message,
            "type": row.type,
            "param": self.param,
            "code": self.code or self.failure.value,
        }
        return json.dumps({"error": error}).encode()


def bad_request(message: str, *, status: int = 400, param: str | None = None, code: str | None = None) -> Refusal:
    """The client's own fault, said in `message`."""
    return Refusal(Failure.BAD_REQUEST, message=message, param=param, code=code, own_status=status)


def no_endpoints(message: str | None = None) -> Refusal:
    """Nothing to pick from, in the pool or in the asked subset."""
    return Refusal(Failure.NO_ENDPOINTS, message=message)


def internal_error() -> Refusal:
    """Our own fault; its cause stays in our log."""
    return Refusal(Failure.INTERNAL)
