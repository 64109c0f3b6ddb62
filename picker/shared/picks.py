"""Where the picks of all workers went: one index that the collector writes, read by every worker where it lies.

A worker tells the collector through a ring (`placements`) and keeps its own latest picks besides, so that it sees them
at once, and while there is no collector. Nobody waits for anybody. A collector that starts anew begins an empty index;
readers keep the former ones beside it. An index that nobody looks after any more is read until all in it would have
expired.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from picker.engines.approximate import DEFAULT_TTL_S, ApproximateIndex
from picker.engines.rows import Column
from picker.pool.view import PoolChange, PoolView, Slots
from picker.requests.request import Chain
from picker.shared.index import IndexReader, SharedShelf
from picker.shared.mirror import keys_of
from picker.shared.placements import Ring, RingReader, local_ring, tell

MAX_BLOCKS = 32_000_000
"""Of either index."""
RECENT_TTL_S = 2.0
OWN_TTL_S = 30.0
"""For so long a worker remembers its own picks: several times what a new collector needs to begin."""
OWN_STRIDE = 8
"""Of them only every so many blocks, since the collector knows all a moment later: to lay down all is its work."""
_MOST_FORMER = 3


class SharedPicks:
    """A worker's side, where a process alone has an `ApproximateIndex`: the blocks that the picks of all workers put on
    each slot. Tells each pick to the collector."""

    def __init__(self, ring: Ring, *, recent: bool) -> None:
        """`recent`: the memory of the latest picks, else the index of all."""
        self._ring, self._recent = ring, recent
        self._ttl_s = RECENT_TTL_S if recent else DEFAULT_TTL_S
        self._own = ApproximateIndex(min(OWN_TTL_S, self._ttl_s))
        self._stride = 1 if recent else OWN_STRIDE
        self._indexes: list[tuple[float, IndexReader]] = []  # the newest first, with the time until which it is good
        self._keys = keys_of(PoolView())
        self._view, self._capacity = PoolView(), 1
        self._gone: set[int] = set()

    def __len__(self) -> int:
        """Blocks of our own latest picks."""
        return len(self._own)

    @property
    def nbytes(self) -> int:
        """Bytes of our own latest picks."""
        return self._own.nbytes

    def read(self, folder: Path, name: str, max_blocks: int, now: float) -> None:
        """Read this index from now on. Raises OSError, ValueError where there is none; then nothing changes."""
        index = IndexReader()
        index.follow(self._view, self._capacity)
        index.read(folder, name, max_blocks)
        self._indexes = [(now + self._ttl_s, index), *self._indexes[:_MOST_FORMER]]

    def kept_at(self, at: float) -> None:
        """The writer of the newest index still took out at this time what had expired."""
        if self._indexes:
            until, newest = self._indexes[0]
            self._indexes[0] = max(until, at + self._ttl_s), newest

    def forget_former(self, now: float) -> None:
        """Give back the memory of former indexes in which all would have expired."""
        if len(self._indexes) > 1 and self._indexes[-1][0] <= now:
            self._indexes.pop()
        if len(self._indexes) < 2:
            self._gone.clear()

    def follow(self, view: PoolView, capacity: int) -> None:
        """Our slots are these endpoints' from now on."""
        self._view, self._capacity, self._keys = view, capacity, keys_of(view)
        for i, (_, index) in enumerate(self._indexes):
            index.follow(view if i == 0 else self._without_gone(view), capacity)

    def touch(self, slot: int, chain: Chain, now: float) -> None:
        """A request with these blocks went to `slot`. The others know it once the collector has read it."""
        self._own.touch(slot, self._thinned(chain), now)
        if slot < len(self._keys):
            tell(self._ring, self._keys[slot], self._recent, chain)

    def matched(self, chain: Chain, slots: Slots, now: float) -> Column:
        """Consecutive leading blocks that each slot should still hold, float64 of shape (N,)."""
        depths = self._own.matched(self._thinned(chain), slots, now) * self._stride
        for until, index in self._indexes:
            if now < until:
                np.maximum(depths, index.matched(chain, slots), out=depths)
        return depths

    def set_capacity(self, slot: int, blocks: int) -> None:
        """As `ApproximateIndex` does, for our own; the collector knows it by itself."""
        self._own.set_capacity(slot, blocks // self._stride)

    def clear(self, slot: int) -> None:
        """The slot holds nothing: its endpoint is gone, and what nobody writes any more is not to speak of it again."""
        self._own.clear(slot)
        if len(self._indexes) > 1 and slot < len(self._keys):
            self._gone.add(int(self._keys[slot]))

    def warm(self) -> None:
        """Compile every kernel."""
        self._own.warm()
        tell(local_ring(), np.uint64(1), self._recent, np.zeros(1, np.uint64))

    def _thinned(self, chain: Chain) -> Chain:
        return chain[self._stride - 1 :: self._stride]

    def _without_gone(self, view: PoolView) -> PoolView:
        stays = [i for i, slot in enumerate(view.slots.tolist()) if int(self._keys[slot]) not in self._gone]
        return PoolView(tuple(view.endpoints[i] for i in stays), view.slots[stays])


class PicksOfAll:
    """The collector's side: what all workers told, in indexes on two shelves."""

    def __init__(
        self, rings: Sequence[Ring], picks: SharedShelf, recent: SharedShelf, max_blocks: int = MAX_BLOCKS
    ) -> None:
        self.picks = ApproximateIndex(max_blocks=max_blocks, shelf=picks)
        self.recent = ApproximateIndex(RECENT_TTL_S, max_blocks, shelf=recent)
        self._rings = [RingReader(ring) for ring in rings]
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
        for ring in self._rings:
            if (batch := ring.take()) is None or not len(self._keys):
                continue
            at = np.minimum(np.searchsorted(self._keys, batch.keys), len(self._keys) - 1)
            slots = np.where(self._keys[at] == batch.keys, self._slots[at], -1)
            for index, its in ((self.picks, ~batch.recent), (self.recent, batch.recent)):
                if its.any():
                    index.touch_all(np.where(its, slots, -1), batch.ends, batch.blocks, now)

    def expire(self, now: float) -> None:
        """Nobody sees any more what has expired. Call it several times a second."""
        for index in (self.picks, self.recent):
            index.expire(now)

    def warm(self) -> None:
        """Compile every kernel."""
        self.picks.warm()
        ring = local_ring()
        reader = RingReader(ring)
        tell(ring, np.uint64(1), False, np.zeros(1, np.uint64))
        reader.take()
