"""Where the picks of all workers went: one index that the collector writes, read by every worker where it lies.

A worker tells the collector through a ring (`placements`) and looks itself at what the index does not hold yet
(`told`). Nobody waits for anybody. A collector that starts anew begins an empty index; readers keep the former ones
beside it. An index that nobody looks after any more is read until all in it would have expired.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from picker.engines.approximate import DEFAULT_TTL_S, ApproximateIndex
from picker.engines.bundle import Bundle
from picker.engines.fence import fence
from picker.engines.kernels import bare, kernel
from picker.engines.linear_hashing import plain
from picker.engines.recency import STRIDE
from picker.engines.rows import Column
from picker.pool.view import PoolChange, PoolView, Slots
from picker.requests.request import Chain
from picker.shared.index import IndexReader, SharedShelf, held
from picker.shared.mirror import keys_of
from picker.shared.placements import Ring, RingReader, local_ring
from picker.shared.rows import Counts
from picker.shared.told import Told, deepen

MAX_BLOCKS = 32_000_000
"""Of either index."""
RECENT_TTL_S = 2.0
_MOST_FORMER = 3


class _Read(NamedTuple):
    """An index, good until this time, that holds so many entries of our ring, shape (1,)."""

    until: float
    reader: IndexReader
    known: Counts


class SharedPicks:
    """A worker's side, where a process alone has an `ApproximateIndex`: the blocks that the picks of all workers put on
    each slot. Tells each pick to the collector."""

    def __init__(self, told: Told, *, recent: bool) -> None:
        """`recent`: the memory of the latest picks, else the index of all."""
        self._told, self._recent = told, recent
        self._ttl_s = RECENT_TTL_S if recent else DEFAULT_TTL_S
        self._empty = _Read(-np.inf, IndexReader(), np.zeros(1, np.int64))
        self._newest, self._former = self._empty, list[_Read]()
        self._keys = keys_of(PoolView())
        self._view, self._capacity = PoolView(), 1
        self._gone: set[int] = set()

    def read(self, folder: Path, name: str, max_blocks: int, known: Counts, now: float) -> None:
        """Read this index from now on; `known`, shape (1,), is how many entries of our ring it holds at any time.

        Raises OSError, ValueError where there is none; then nothing changes.
        """
        index = IndexReader()
        index.follow(self._view, self._capacity)
        index.read(folder, name, max_blocks)
        if self._newest is not self._empty:
            self._former = [self._newest, *self._former[: _MOST_FORMER - 1]]
        self._newest = _Read(now + self._ttl_s, index, known)

    def kept_at(self, at: float) -> None:
        """The writer of the newest index still took out at this time what had expired."""
        if self._newest is not self._empty:
            self._newest = self._newest._replace(until=max(self._newest.until, at + self._ttl_s))

    def forget_former(self, now: float) -> None:
        """Give back the memory of former indexes in which all would have expired."""
        if self._former and self._former[-1].until <= now:
            self._former.pop()
        if not self._former:
            self._gone.clear()

    def follow(self, view: PoolView, capacity: int) -> None:
        """Our slots are these endpoints' from now on."""
        self._view, self._capacity, self._keys = view, capacity, keys_of(view)
        self._newest.reader.follow(view, capacity)
        for former in self._former:
            former.reader.follow(self._without_gone(view), capacity)

    def touch(self, slot: int, chain: Chain, now: float) -> None:
        """A request with these blocks went to `slot`. The others know it once the collector has read it."""
        if slot < len(self._keys):
            self._told.tell(slot, self._keys[slot], self._recent, chain, now)

    def matched(self, chain: Chain, slots: Slots, now: float) -> Column:
        """Consecutive leading blocks that each slot should still hold, float64 of shape (N,)."""
        _, index, known = self._newest
        state = (index if now < self._newest.until else self._empty.reader).state()
        since = now - self._ttl_s
        depths: Column = _matched(*state, self._told.bundle, int(known[0]), self._recent, since, plain(chain), slots)
        for until, former, _ in self._former:
            if now < until:
                np.maximum(depths, former.matched(chain, slots), out=depths)
        return depths

    def clear(self, slot: int) -> None:
        """The slot holds nothing: its endpoint is gone, and what nobody writes any more is not to speak of it again."""
        self._told.clear(slot)
        if self._former and slot < len(self._keys):
            self._gone.add(int(self._keys[slot]))

    def warm(self) -> None:
        """Compile every kernel."""
        spare = SharedPicks(Told(local_ring()), recent=self._recent)
        spare._keys = np.ones(1, np.uint64)
        spare.touch(0, np.zeros(1, np.uint64), 0.0)
        spare.matched(np.zeros(1, np.uint64), np.zeros(1, np.intp), 0.0)

    def _without_gone(self, view: PoolView) -> PoolView:
        stays = [i for i, slot in enumerate(view.slots.tolist()) if int(self._keys[slot]) not in self._gone]
        return PoolView(tuple(view.endpoints[i] for i in stays), view.slots[stays])


@kernel
def _matched(
    index: Bundle,
    columns: Column,
    told: Bundle,
    known: int,
    recent: bool,
    since: float,
    chain: Chain,
    slots: Slots,
) -> Column:
    fence()  # what came into the index after `known` was read may be found twice, but not never
    depths = held(index, columns, chain, slots, STRIDE)
    deepen(told, known, recent, since, chain, slots, depths)
    return depths


class PicksOfAll:
    """The collector's side: what all workers told, in indexes on two shelves."""

    def __init__(
        self,
        rings: Sequence[Ring],
        known: Counts,
        picks: SharedShelf,
        recent: SharedShelf,
        max_blocks: int = MAX_BLOCKS,
    ) -> None:
        """`known`, shape (rings,): where to say how many entries of each ring both indexes hold."""
        self.picks = ApproximateIndex(max_blocks=max_blocks, shelf=picks)
        self.recent = ApproximateIndex(RECENT_TTL_S, max_blocks, shelf=recent)
        self._rings = [RingReader(ring) for ring in rings]
        self._known = known
        self._known[:] = [ring.at for ring in self._rings]
        self._shelves = picks, recent
        self._slots = np.zeros(0, np.int64)
        self._keys = keys_of(PoolView())

    @property
    def lost(self) -> int:
        """Placements that were overwritten before they were read, or made no sense."""
        return sum(ring.lost for ring in self._rings)

    def follow(self, change: PoolChange) -> None:
        """The slots are these endpoints' from now on."""
        keys = keys_of(change.view)
        slots = np.flatnonzero(keys)
        order = np.argsort(keys[slots])
        self._slots, self._keys = slots[order], keys[slots][order]
        for shelf, index in zip(self._shelves, (self.picks, self.recent), strict=True):
            shelf.follow(change.view)
            for slot, _ in change.removed:
                index.clear(slot)

    def take(self, now: float) -> None:
        """Take in what was told since the last time. Costs a microsecond or two a ring where nothing was."""
        for number, ring in enumerate(self._rings):
            if (batch := ring.take()) is None or not len(self._keys):
                continue
            at = np.minimum(np.searchsorted(self._keys, batch.keys), len(self._keys) - 1)
            slots = np.where(self._keys[at] == batch.keys, self._slots[at], -1)
            for index, its in ((self.picks, ~batch.recent), (self.recent, batch.recent)):
                if its.any():
                    index.touch_all(np.where(its, slots, -1), batch.ends, batch.blocks, now)
            _say(self._known, number, ring.at)

    def expire(self, now: float) -> None:
        """Nobody sees any more what has expired. Call it several times a second."""
        for index in (self.picks, self.recent):
            index.expire(now)

    def warm(self) -> None:
        """Compile every kernel."""
        self.picks.warm()
        ring = local_ring()
        reader = RingReader(ring)
        Told(ring).tell(0, np.uint64(1), False, np.zeros(1, np.uint64), 0.0)
        reader.take()
        _say(np.zeros(1, np.int64), 0, 0)


@bare
def _say(known: Counts, ring: int, entries: int) -> None:
    fence()  # who reads this count must find in the indexes what it counts
    known[ring] = entries
