"""One stream: what has arrived of its current message, and what waits to be sent."""

from typing import Final

from picker.wire.answers import INTERNAL, RESOURCE_EXHAUSTED, UNIMPLEMENTED
from picker.wire.frames import PREFIX

_PREFIX_BYTES: Final = 5


class Refused(Exception):
    """This stream breaks a rule of gRPC: how to answer it. `unpacked`: say that we take no compression."""

    def __init__(self, status: int, message: str, *, unpacked: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.unpacked = unpacked


class Stream:
    """The connection reads and writes these fields in its inner loop; there is no other state of a stream.

    Receiving. `plain`: a DATA frame with one whole message needs no further look. `remote_closed`: END_STREAM came.
    `taken`: bytes received for which no room was given back. `held`, `parked`: give none, as the owner said or while
    too many messages are under way. `partial`, `need`: the beginning of a message, and how long it has to be for the
    next step. `packed`: compression was announced. `length`: what is still to come by content-length, -1 without one.

    Sending. `window`: of the peer, negative after it was made smaller. `headed`: headers are out. `queue`: messages
    with their prefixes. `trailers`: what ends the stream once the queue is out.

    Watching. `moved`: changes with any progress outside the plain path. `mark`, `since`: its value when last seen, and
    when it took that value.
    """

    __slots__ = (
        "deadline",
        "headed",
        "held",
        "id",
        "length",
        "mark",
        "moved",
        "need",
        "packed",
        "parked",
        "partial",
        "plain",
        "queue",
        "remote_closed",
        "since",
        "taken",
        "trailers",
        "window",
    )

    def __init__(self, stream: int, deadline: float, window: int, packed: bool, length: int, since: float) -> None:
        self.id = stream
        self.deadline = deadline
        self.plain = length < 0
        self.remote_closed = False
        self.taken = 0
        self.held = False
        self.parked = False
        self.partial = bytearray()
        self.need = _PREFIX_BYTES
        self.packed = packed
        self.length = length
        self.window = window
        self.headed = False
        self.queue = bytearray()
        self.trailers: bytes | None = None
        self.moved = 0
        self.mark = 0
        self.since = since

    def messages(self, data: bytes, limit: int) -> list[bytes]:
        """The messages that these bytes complete, of at most `limit` bytes each. Raises `Refused`,
        with nothing kept.

        A message is looked at when it is whole: its pieces are copied twice, however small they are.
        """
        whole: bytes | bytearray = data
        if self.partial:
            self.partial += data
            if len(self.partial) < self.need:
                return []
            whole, self.partial = self.partial, bytearray()
        view = memoryview(whole)
        found = []
        at = 0
        while True:
            self.need = _PREFIX_BYTES
            if len(view) - at >= _PREFIX_BYTES:
                packed, size = PREFIX.unpack_from(view, at)
                self._check(packed, size, limit)
                self.need += size
            if len(view) - at < self.need:
                break
            found.append(bytes(view[at + _PREFIX_BYTES : at + self.need]))
            at += self.need
        self.partial += view[at:]
        self.weigh()
        return found

    def weigh(self) -> None:
        """Whether DATA may take the short way."""
        odd = self.partial or self.held or self.remote_closed or self.length >= 0 or self.trailers is not None
        self.plain = not odd

    def _check(self, packed: int, size: int, limit: int) -> None:
        if packed:
            if packed == 1 and self.packed:
                raise Refused(UNIMPLEMENTED, "compressed messages are not supported", unpacked=True)
            raise Refused(INTERNAL, "a message is compressed without grpc-encoding")
        if size > limit:
            raise Refused(RESOURCE_EXHAUSTED, f"a message of {size} bytes is larger than {limit}")

    @property
    def owed(self) -> bool:
        """The peer has to go on: to take our answer, to complete its message, or to send its first one."""
        if self.queue:
            return True
        if self.held or self.parked or self.remote_closed:
            return False
        return bool(self.partial) or not (self.taken or self.moved)


class Closed:
    """Which streams have ended, the recent ones: whether frames may still be on their way to one that we ended first.

    Two generations of fixed size; what is older is forgotten.
    """

    __slots__ = ("_old", "_size", "_young")

    def __init__(self, size: int) -> None:
        self._size = size
        self._young: dict[int, bool] = {}
        self._old: dict[int, bool] = {}

    def add(self, stream: int, late_frames: bool) -> None:
        """It has ended just now."""
        if len(self._young) >= self._size:
            self._old, self._young = self._young, {}
        self._young[stream] = late_frames

    def late_frames(self, stream: int) -> bool | None:
        """Whether to let its frames pass unseen; None where the stream is forgotten or was never open."""
        found = self._young.get(stream)
        return self._old.get(stream) if found is None else found
