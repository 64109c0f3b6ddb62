"""Our own picks in flight: reserved at the pick, released exactly once, corrected by the scrape.

The life of a flight follows Lodestar's gateway counters (papers: arXiv 2606.00946, released code), but counts only the
uncached prompt tokens as LMetric does (arXiv 2603.15202):

    reserve           in_flight +1, prefilling +1, queued_tokens + new tokens, queued_work, queued_prompts
    first_byte        what prefilling had is taken back, decode_tokens + prompt
    progress          decode_tokens + tokens seen
    release, sweep    whatever the flight still holds is given back

Every change takes the flight's contribution out of the columns, alters the flight and puts the contribution back, so
the columns are the sum over the flights by construction. Tokens are kept whole, so that sums in float64 are exact.

Correction. An end can be missed; then we would count, and shun, a request that the engine no longer has. Flights older
than `grace_s` when a scrape began are settled: the engine must show them. If two scrapes running show fewer requests
than are settled, the lesser of both shortfalls is presumed ended: the oldest flights first, and before them those in
prefill if the engine queues nothing and runs no more than our decoding ones. They count nowhere until they show life.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from picker.engines.kernels import bare
from picker.engines.table import Columns, grown
from picker.pool.view import Slots

IN_FLIGHT, PREFILLING, QUEUED_TOKENS, DECODE_TOKENS, PREFILL_SINCE, PICKS = range(6)
QUEUED_WORK, QUEUED_PROMPTS, HEAD_SINCE = range(6, 9)
EMPTY = np.array([0.0, 0.0, 0.0, 0.0, np.inf, 0.0, 0.0, 0.0, np.inf])
"""The row of a slot without flights."""
SINCE = (PREFILL_SINCE, HEAD_SINCE)
"""Columns of which the least counts where several ledgers are brought together; the others are added up."""
_MAX_TOKENS = 1 << 31
_MAX_WORK = 2.0**40

GONE = -1
"""Slot of a flight whose endpoint left the pool."""


class Sharing(Protocol):
    """The other workers of this picker: told of what we count, asked for what they do. No call waits."""

    def publish(self, columns: Columns, slot: int) -> None: ...
    def seen(self, own: Columns, slots: Slots) -> Columns: ...


@dataclass(slots=True)
class Flight:
    """One request on its way. Times in seconds of the caller's monotonic clock."""

    id: int
    slot: int
    new_tokens: int
    prompt_tokens: int
    reserved_at: float
    first_byte_at: float | None = None
    completion_tokens: int = 0
    presumed_ended: bool = False

    @property
    def counted(self) -> bool:
        """Whether it weighs on its endpoint's columns."""
        return self.slot != GONE and not self.presumed_ended

    @property
    def work(self) -> float:
        """Attention work of its prefill in token pairs: each new token attends to what stands before it."""
        return min(_MAX_WORK, self.new_tokens * max(0.0, self.prompt_tokens - self.new_tokens / 2) // 1.0)


@dataclass(slots=True)
class _Lane:
    """Flights of one slot: all of them, and those counted in prefill, both in order of reservation."""

    flights: OrderedDict[int, Flight] = field(default_factory=OrderedDict)
    prefilling: OrderedDict[int, Flight] = field(default_factory=OrderedDict)
    shortfall: int = 0
    presumed: int = 0


class Ledger:
    """Flights by id, and their sums by slot in `columns`, shape (9, capacity).

    HEAD_SINCE is when the prefill that is first in line began, as far as we see: when it was reserved, or when the last
    first byte came from there, whichever is later; inf where nothing is in prefill.

    Every call is O(1) but `observe` and `forget`, which walk the flights of one slot, and a `move` of a request in
    prefill. Calls about a flight that is not there (already released, swept, never reserved) do nothing.
    """

    def __init__(
        self,
        capacity: int = 64,
        *,
        max_flights: int = 100_000,
        grace_s: float = 2.0,
        sharing: Sharing | None = None,
    ) -> None:
        if max_flights < 1 or not grace_s >= 0:
            raise ValueError("max_flights must be at least 1 and grace_s not negative")
        self.columns: Columns = np.repeat(EMPTY[:, None], max(capacity, 1), axis=1)
        self.overflowed = 0
        """Flights given up because `max_flights` was reached."""
        self._max_flights = max_flights
        self._grace_s = grace_s
        self._sharing = sharing
        self._flights: OrderedDict[int, Flight] = OrderedDict()
        self._lanes = [_Lane() for _ in range(self.columns.shape[1])]

    def __len__(self) -> int:
        return len(self._flights)

    def ensure(self, capacity: int) -> None:
        """Make room for slots below `capacity`."""
        self.columns = grown(self.columns, capacity, EMPTY)
        self._lanes.extend(_Lane() for _ in range(self.columns.shape[1] - len(self._lanes)))

    def seen(self, slots: Slots) -> Columns:
        """The columns of these slots, shape (9, N): ours together with what other workers count there."""
        if self._sharing is None:
            return self.columns.take(slots, axis=1)
        return self._sharing.seen(self.columns, slots)

    def reserve(self, flight: int, slot: int, new_tokens: float, prompt_tokens: float, now: float) -> None:
        """Count a pick, at once. An id reserved again is a new pick of the same request: the first is released."""
        self.release(flight)
        if len(self._flights) >= self._max_flights:
            self.release(next(iter(self._flights)))
            self.overflowed += 1
        entry = Flight(flight, slot, _whole(new_tokens), _whole(prompt_tokens), now)
        self._place(entry)
        self._flights[flight] = entry
        self._publish(slot)

    def first_byte(self, flight: int, now: float) -> None:
        """The first token came: prefill is over. Later calls change nothing."""
        entry = self._flights.get(flight)
        if entry is not None and entry.first_byte_at is None:
            self._uncount(entry)
            entry.first_byte_at = now
            self._revive(entry)
            self._count(entry)
            if entry.slot != GONE and self.columns[PREFILLING, entry.slot]:
                self.columns[HEAD_SINCE, entry.slot] = now
            self._publish(entry.slot)

    def progress(self, flight: int, completion_tokens: int) -> None:
        """So many tokens of the answer were seen by now. Never goes back."""
        entry = self._flights.get(flight)
        if entry is not None and completion_tokens > entry.completion_tokens:
            self._uncount(entry)
            entry.completion_tokens = _whole(completion_tokens)
            self._revive(entry)
            self._count(entry)
            self._publish(entry.slot)

    def move(self, flight: int, slot: int) -> None:
        """Another endpoint serves the request than the one picked."""
        entry = self._flights.get(flight)
        if entry is None or entry.slot == slot:
            return
        before = entry.slot
        self._detach(entry)
        entry.slot = slot
        self._place(entry)
        self._publish(before)
        self._publish(slot)

    def release(self, flight: int) -> Flight | None:
        """The request ended, somehow. Returns the flight the first time, None ever after."""
        entry = self._flights.pop(flight, None)
        if entry is not None and entry.slot != GONE:
            slot = entry.slot
            self._detach(entry)
            entry.slot = slot
            self._publish(slot)
        return entry

    def sweep(self, now: float, max_age_s: float) -> list[Flight]:
        """Release the flights reserved `max_age_s` ago or earlier: their end was lost."""
        lost = []
        while self._flights:
            oldest = next(iter(self._flights.values()))
            if now - oldest.reserved_at < max_age_s:
                break
            self.release(oldest.id)
            lost.append(oldest)
        return lost

    def forget(self, slot: int) -> None:
        """The endpoint is gone: its flights live on without a slot and never touch the row's next owner."""
        for entry in self._lanes[slot].flights.values():
            entry.slot = GONE
            entry.presumed_ended = False
        self._lanes[slot] = _Lane()
        self.columns[:, slot] = EMPTY
        self._publish(slot)

    def observe(self, slot: int, running: float, waiting: float, started_at: float) -> None:
        """Correct a slot by a good scrape that began at `started_at` (see the head of this file)."""
        lane = self._lanes[slot]
        held = math.floor(running + waiting)
        if len(lane.flights) <= held and not lane.presumed:
            lane.shortfall = 0
            return
        settled = [f for f in lane.flights.values() if f.reserved_at <= started_at - self._grace_s]
        shortfall = max(0, len(settled) - held)
        ended = min(shortfall, lane.shortfall)
        lane.shortfall = shortfall
        if ended or lane.presumed:
            decoding = sum(f.first_byte_at is not None for f in settled)
            prefill_first = waiting == 0 and running <= decoding
            settled.sort(key=lambda f: (prefill_first and f.first_byte_at is not None, f.reserved_at))
            self._presume(settled[:ended], settled[ended:])
            self._publish(slot)

    def oldest_prefill_s(self, slot: int, now: float) -> float:
        """Age in seconds of the oldest request there whose first token has not come; 0 where there is none."""
        return max(0.0, now - float(self.columns[PREFILL_SINCE, slot]))

    def _publish(self, slot: int) -> None:
        if self._sharing is not None and slot != GONE:
            self._sharing.publish(self.columns, slot)

    def _presume(self, ended: list[Flight], alive: list[Flight]) -> None:
        for entry in alive:
            if entry.presumed_ended:
                self._revive(entry)
                self._count(entry)
        for entry in ended:
            if not entry.presumed_ended:
                self._uncount(entry)
                entry.presumed_ended = True
                self._lanes[entry.slot].presumed += 1

    def _revive(self, entry: Flight) -> None:
        if entry.presumed_ended:
            entry.presumed_ended = False
            self._lanes[entry.slot].presumed -= 1

    def _place(self, entry: Flight) -> None:
        self._lanes[entry.slot].flights[entry.id] = entry
        self.columns[PICKS, entry.slot] += 1
        self._count(entry)

    def _detach(self, entry: Flight) -> None:
        if entry.slot != GONE:
            self._uncount(entry)
            self._revive(entry)
            del self._lanes[entry.slot].flights[entry.id]
            entry.slot = GONE

    def _count(self, entry: Flight) -> None:
        if not entry.counted:
            return
        self._weigh(entry, 1.0)
        if entry.first_byte_at is not None:
            return
        columns, slot, lane = self.columns, entry.slot, self._lanes[entry.slot]
        if not lane.prefilling:
            columns[HEAD_SINCE, slot] = columns[PREFILL_SINCE, slot] = entry.reserved_at
            lane.prefilling[entry.id] = entry
            return
        late = next(reversed(lane.prefilling.values())).reserved_at > entry.reserved_at
        lane.prefilling[entry.id] = entry
        if late:
            lane.prefilling = OrderedDict(sorted(lane.prefilling.items(), key=lambda item: item[1].reserved_at))
            columns[PREFILL_SINCE, slot] = next(iter(lane.prefilling.values())).reserved_at

    def _uncount(self, entry: Flight) -> None:
        if not entry.counted:
            return
        self._weigh(entry, -1.0)
        if entry.first_byte_at is not None:
            return
        columns, slot, prefilling = self.columns, entry.slot, self._lanes[entry.slot].prefilling
        del prefilling[entry.id]
        if prefilling:
            columns[PREFILL_SINCE, slot] = next(iter(prefilling.values())).reserved_at
        else:
            columns[PREFILL_SINCE, slot] = columns[HEAD_SINCE, slot] = np.inf

    def _weigh(self, entry: Flight, sign: float) -> None:
        """Put its contribution to the sums in, or take it out."""
        if entry.first_byte_at is not None:
            _add_decode(self.columns, entry.slot, sign, entry.prompt_tokens + entry.completion_tokens)
        else:
            _add_prefill(self.columns, entry.slot, sign, entry.new_tokens, entry.work, entry.prompt_tokens)


@bare
def _add_decode(columns: Columns, slot: int, sign: float, tokens: int) -> None:
    columns[IN_FLIGHT, slot] += sign
    columns[DECODE_TOKENS, slot] += sign * tokens


@bare
def _add_prefill(columns: Columns, slot: int, sign: float, new: int, work: float, prompt: int) -> None:
    columns[IN_FLIGHT, slot] += sign
    columns[PREFILLING, slot] += sign
    columns[QUEUED_TOKENS, slot] += sign * new
    columns[QUEUED_WORK, slot] += sign * work
    columns[QUEUED_PROMPTS, slot] += sign * prompt


def _whole(tokens: float) -> int:
    """Tokens as a whole number in 0..2^31; what is no number counts as 0."""
    return int(min(tokens, _MAX_TOKENS)) if tokens > 0 else 0


def warm() -> None:
    """Compile, or load what an earlier process compiled."""
    columns = EMPTY[:, None].copy()
    _add_decode(columns, 0, 1.0, 1)
    _add_prefill(columns, 0, 1.0, 1, 1.0, 1)
