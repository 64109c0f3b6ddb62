"""What a connection tells its owner, in the order in which it happens."""

import enum
from collections.abc import Sequence

from msgspec import Struct


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


class StreamOpened(Struct, frozen=True, gc=False):
    """A call. `path` is `/service/method` as the peer wrote it, any at all.

    `metadata`: names in lower case and values, in order, without pseudo-headers; values of `-bin` names still in
    base64. `deadline`: on the clock of `now`, in seconds; infinite without a grpc-timeout.
    """

    stream: int
    path: str
    metadata: Sequence[tuple[str, str]]
    deadline: float


class MessageReceived(Struct, frozen=True, gc=False):
    """One whole message, without its gRPC prefix."""

    stream: int
    data: bytes


class HalfClosed(Struct, frozen=True, gc=False):
    """The peer sends no more messages; it still reads."""

    stream: int


class StreamEnded(Struct, frozen=True, gc=False):
    """Nothing more will come and nothing more can be sent. Exactly once for every stream that was opened and that the
    owner did not finish or reset itself, always the stream's last event."""

    stream: int
    reason: Reason


Event = StreamOpened | MessageReceived | HalfClosed | StreamEnded
