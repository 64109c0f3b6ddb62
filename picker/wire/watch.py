"""What time alone brings about: deadlines of calls, and who has stopped.

Deadlines are met to the moment, from a heap. The rest is looked at a few times per time-out, in one sweep over the
streams, so that frames need no clock.
"""

import heapq
import math
from collections.abc import Iterable, Mapping
from typing import Final

from picker.wire.frames import Broken, Code
from picker.wire.limits import WireLimits
from picker.wire.stream import Stream

_SWEEPS: Final = 4
"""Per shortest time-out."""
_SPARE: Final = 64


class Watch:
    """Of one connection. `heard`: when bytes last came. `settled`: our SETTINGS were acknowledged."""

    __slots__ = ("_every", "_heap", "_limits", "_next", "_pinged", "_since", "_started", "_taken", "heard", "settled")

    def __init__(self, limits: WireLimits, now: float) -> None:
        self.heard = now
        self.settled = False
        self._limits = limits
        self._started = now
        self._every = min(limits.stall_s, limits.keepalive_s, limits.keepalive_timeout_s) / _SWEEPS
        self._next = now + self._every
        self._heap: list[tuple[float, int]] = []
        self._pinged = -math.inf
        self._taken = 0
        self._since = now

    @property
    def deadline(self) -> float:
        """When there is something to do next."""
        return min(self._next, self._heap[0][0]) if self._heap else self._next

    def expect(self, stream: Stream, streams: Mapping[int, Stream]) -> None:
        """A call's deadline. The heap is rebuilt when ended streams make up most of it."""
        heapq.heappush(self._heap, (stream.deadline, stream.id))
        if len(self._heap) > 2 * len(streams) + _SPARE:
            self._heap = [(each.deadline, each.id) for each in streams.values()]
            heapq.heapify(self._heap)

    def overdue(self, streams: Mapping[int, Stream], now: float) -> list[Stream]:
        """Streams whose deadline has passed."""
        found = []
        while self._heap and self._heap[0][0] <= now:
            _, number = heapq.heappop(self._heap)
            if number in streams:
                found.append(streams[number])
        return found

    def sweeps(self, now: float) -> bool:
        """Whether it is time to look around."""
        if now < self._next:
            return False
        self._next = now + self._every
        return True

    def wants_ping(self, takes: int, unread: bool, now: float) -> bool:
        """The connection as a whole: whether a PING is due. `takes`: how often our bytes were taken from us; `unread`:
        there are more. Raises `Broken` where it is dead, or never began."""
        limits = self._limits
        if not self.settled and now - self._started >= limits.stall_s:
            raise Broken(Code.SETTINGS_TIMEOUT, "our SETTINGS were not acknowledged")
        if takes != self._taken or not unread:
            self._taken, self._since = takes, now
        elif now - self._since >= limits.stall_s:
            raise Broken(Code.ENHANCE_YOUR_CALM, "nobody reads our answers")
        silence = now - self.heard
        if unread or silence < limits.keepalive_s:
            return False
        if self._pinged < self.heard:
            self._pinged = now
            return True
        if now - self._pinged >= limits.keepalive_timeout_s:
            raise Broken(Code.NO_ERROR, "the peer is silent")
        return False

    def stalled(self, streams: Iterable[Stream], now: float) -> list[Stream]:
        """Streams that have owed us, or not taken, anything for too long."""
        found = []
        for stream in streams:
            if not stream.owed or stream.moved != stream.mark:
                stream.mark, stream.since = stream.moved, now
            elif now - stream.since >= self._limits.stall_s:
                found.append(stream)
        return found
