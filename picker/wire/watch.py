"""What time alone brings about: deadlines of calls, and who has stopped.

Deadlines are met to the moment, from a heap. The rest is looked at a few times per time-out, in one sweep over the
streams, so that frames need no clock. Time in which nobody looked counts for two steps of a sweep at most: a process
that was stopped finds the peer's bytes still unread, and must not blame the peer.
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
    """Of one connection. `heard`: when bytes last came. `settled`: our SETTINGS were acknowledged. `clock`: seconds
    that were watched, the time of everything here but deadlines."""

    __slots__ = (
        "_every",
        "_heap",
        "_heard",
        "_heard_at",
        "_limits",
        "_looked",
        "_pinged_at",
        "_taken",
        "_taken_at",
        "clock",
        "heard",
        "settled",
    )

    def __init__(self, limits: WireLimits, now: float) -> None:
        self.heard = self._heard = self._looked = now
        self.settled = False
        self.clock = self._heard_at = self._taken_at = 0.0
        self._pinged_at = math.inf
        self._taken = 0
        self._limits = limits
        self._every = min(limits.stall_s, limits.keepalive_s, limits.keepalive_timeout_s) / _SWEEPS
        self._heap: list[tuple[float, int]] = []

    @property
    def deadline(self) -> float:
        """When there is something to do next."""
        sweep = self._looked + self._every
        return min(sweep, self._heap[0][0]) if self._heap else sweep

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
        if now < self._looked + self._every:
            return False
        self.clock += min(now - self._looked, 2 * self._every)
        self._looked = now
        return True

    def wants_ping(self, takes: int, unread: bool) -> bool:
        """The connection as a whole: whether a PING is due. `takes`: how often our bytes were taken from us; `unread`:
        there are more. Raises `Broken` where it is dead, or never began."""
        limits, clock = self._limits, self.clock
        if not self.settled and clock >= limits.stall_s:
            raise Broken(Code.SETTINGS_TIMEOUT, "our SETTINGS were not acknowledged")
        if takes != self._taken or not unread:
            self._taken, self._taken_at = takes, clock
        elif clock - self._taken_at >= limits.stall_s:
            raise Broken(Code.ENHANCE_YOUR_CALM, "nobody reads our answers")
        if self.heard != self._heard:
            self._heard, self._heard_at, self._pinged_at = self.heard, clock, math.inf
        if unread or clock - self._heard_at < limits.keepalive_s:
            return False
        if clock - self._pinged_at >= limits.keepalive_timeout_s:
            raise Broken(Code.NO_ERROR, "the peer is silent")
        if self._pinged_at < math.inf:
            return False
        self._pinged_at = clock
        return True

    def stalled(self, streams: Iterable[Stream]) -> list[Stream]:
        """Streams that have owed us, or not taken, anything for too long."""
        found = []
        for stream in streams:
            if not stream.owed or stream.moved != stream.mark:
                stream.mark, stream.since = stream.moved, self.clock
            elif self.clock - stream.since >= self._limits.stall_s:
                found.append(stream)
        return found
