"""What a connection tells its owner, in the order in which it happens.

Mutable only because frozen dataclasses take four times as long to make, and one is made for every message.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass


class Reason(enum.Enum):
    """Why a stream ended before the owner finished it."""

    RESET = "reset"
    """The peer reset it."""
    DEADLINE = "deadline"
    """Its grpc-timeout ran out; the peer was told DEADLINE_EXCEEDED."""
    REFUSED = "refused"
    """It broke a rule or a limit of its own; the peer was told which."""
    STALLED = "stalled"
    """It stopped in the middle of a message, sent none at all, or never made room for what we had to send."""
    CONNECTION = "connection"
    """The connection ended with the stream still open."""


@dataclass(slots=True)
class StreamOpened:
    """A call. `path` is `/service/method` as the peer wrote it, any at all.

    `metadata`: names in lower case and values, in order, without pseudo-headers; values of `-bin` names still in
    base64. `deadline`: on the clock of `now`, in seconds; infinite without a grpc-timeout.
    """

    stream: int
    path: str
    metadata: Sequence[tuple[str, str]]
    deadline: float


@dataclass(slots=True)
class MessageReceived:
    """One whole message, without its gRPC prefix."""

    stream: int
    data: bytes


@dataclass(slots=True)
class HalfClosed:
    """The peer sends no more messages; it still reads."""

    stream: int


@dataclass(slots=True)
class StreamEnded:
    """Nothing more will come and nothing more can be sent. Exactly once for every stream that was opened and that the
    owner did not finish or reset itself, always the stream's last event."""

    stream: int
    reason: Reason


Event = StreamOpened | MessageReceived | HalfClosed | StreamEnded
