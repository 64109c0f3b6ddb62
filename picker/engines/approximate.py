"""The approximate index: which endpoint should hold which KV blocks, judging by our own picks.

For engines that publish no KV events. Every block of a picked request counts as cached on its endpoint until the
endpoint's share is full of younger ones or `ttl_s` has passed since its last use (Lodestar, arXiv 2606.00946, keeps
such a routing history with 20 minutes). Lookup is that of the prefix index; what is dropped goes by `recency`.
"""

import numpy as np
from numpy.typing import NDArray

from picker.engines.bundle import Bundle
from picker.engines.holders import key_of, leading, no_holders
from picker.engines.index import Shelf
from picker.engines.kernels import bare, inlined, kernel
from picker.engines.linear_hashing import LIVE, USED, expect, expect_row, find, folded, plain
from picker.engines.recency import (
    CAPACITY,
    DEFAULT_CAPACITY,
    HELD,
    OLDEST,
    REFUSED,
    STRIDE,
    Uses,
    add,
    bundled,
    drop,
    expire,
    no_slots,
    no_uses,
    rejuvenate,
    unbundled,
)
from picker.engines.rows import Column
from picker.pool.view import Slots
from picker.requests.request import Chain

DEFAULT_TTL_S = 20 * 60.0
DEFAULT_MAX_BLOCKS = 32_000_000
"""Over all endpoints; 2.3 GB when full."""
MAX_SLOTS = 1 << 20
_AHEAD = 8
"""A block's rows are asked for so many blocks early, its buckets twice as early."""


class ApproximateIndex:
    """Blocks that our picks must have put on each slot.

    Times are seconds of one clock that does not go back; one that does counts as standing still. Bounded per slot by
    its capacity and over all by `max_blocks`: beyond that a slot replaces only its own blocks, and what a slot without
    any wants to keep is refused and counted in `refused`. Raises ValueError on slots outside 0..2**20-1 and on limits
    that are not positive. Other processes may read along what lies on a `shelf`, whose columns are the slots; they see
    no ages, so that whoever writes calls `expire` again and again.
    """

    def __init__(
        self, ttl_s: float = DEFAULT_TTL_S, max_blocks: int = DEFAULT_MAX_BLOCKS, *, shelf: Shelf | None = None
    ) -> None:
        if not ttl_s > 0 or not 1 <= max_blocks <= 1 << 30:
            raise ValueError("ttl_s must be positive and max_blocks in 1..2**30")
        self._ttl_s = ttl_s
        self._max_blocks = max_blocks
        self._now = -np.inf
        # A shelf has the same rows for this index and for one of KV events, which may need one more.
        rows = max_blocks + 1
        self._uses = no_uses(rows, no_holders(rows) if shelf is None else no_holders(rows, shelf.take))
        self._shelf = shelf
        self._shelved: set[int] = set()
        self._bundle = bundled(self._uses)

    def __len__(self) -> int:
        """Blocks kept over all slots, those that have expired and are not reclaimed yet included."""
        return int(self._uses.table.state[LIVE])

    @property
    def refused(self) -> int:
        """Blocks not kept because the index was full."""
        return int(self._uses.state[REFUSED])

    @property
    def nbytes(self) -> int:
        """Bytes in use, which is what is resident but for the rest of the last pages."""
        table = self._uses.table
        return table.nbytes + 24 * int(table.state[USED]) + self._uses.holders.nbytes

    def touch(self, slot: int, chain: Chain, now: float) -> None:
        """A request with these blocks went to `slot`: its leading blocks, up to the capacity, are the youngest there.

        Where the chain meets the capacity the tail goes first, so that what is kept stays a prefix.
        """
        self._ensure(slot)
        self._place(slot)
        self._now = max(self._now, now)
        _touch(self._bundle, slot, plain(chain), self._now, self._now - self._ttl_s, self._max_blocks)

    def touch_all(self, slots: NDArray[np.int64], ends: NDArray[np.int64], blocks: Chain, now: float) -> None:
        """As `touch` for one request after the other, shape (requests,), but for those whose slot is -1. The blocks of
        each are in `blocks` from the end of those before up to its own of `ends`, which never fall."""
        known = np.unique(slots[slots >= 0]).tolist()
        for slot in known:
            self._ensure(slot)
            self._place(slot)
        self._now = max(self._now, now)
        if known:
            _touch_all(self._bundle, slots, ends, plain(blocks), self._now, self._now - self._ttl_s, self._max_blocks)

    def expire(self, now: float, most: int = 4096) -> None:
        """Reclaim what has expired by `now`, up to `most` blocks of each slot."""
        self._now = max(self._now, now)
        _expire_all(self._bundle, self._now - self._ttl_s, most)

    def matched(self, chain: Chain, slots: Slots, now: float) -> Column:
        """Consecutive leading blocks that each slot should still hold, float64 of shape (N,)."""
        depths: Column = _matched(self._bundle, plain(chain), slots, max(self._now, now) - self._ttl_s)
        return depths

    def set_capacity(self, slot: int, blocks: int) -> None:
        """The slot's cache has room for this many blocks of the chains' size, at least 1; older ones are dropped."""
        self._ensure(slot)
        if self._uses.slots[CAPACITY, slot] != max(1, blocks):
            self._uses.slots[CAPACITY, slot] = max(1, blocks)
            _shrink(self._bundle, slot, max(1, blocks))

    def clear(self, slot: int) -> None:
        """The slot holds nothing and has the default capacity: its endpoint is gone or restarted.

        Costs one to two microseconds per block that the slot held.
        """
        self._ensure(slot)
        if self._shelf is not None and slot in self._shelved:
            self._shelf.placed(slot, -1)
            self._shelved.remove(slot)
        _shrink(self._bundle, slot, 0)
        self._uses.slots[CAPACITY, slot] = DEFAULT_CAPACITY

    def warm(self) -> None:
        """Compile every kernel, on an index of its own."""
        spare = ApproximateIndex(max_blocks=50)
        chain = np.arange(100, dtype=np.uint64)
        spare.touch(0, chain, 0.0)
        spare.touch(0, chain, 2 * DEFAULT_TTL_S)
        spare.touch_all(np.zeros(1, np.int64), np.full(1, len(chain)), chain, 0.0)
        spare.expire(0.0)
        spare.matched(chain, np.zeros(1, np.intp), 0.0)
        spare.set_capacity(0, 1)
        spare.clear(0)

    def _place(self, slot: int) -> None:
        if self._shelf is not None and slot not in self._shelved:
            self._shelf.placed(slot, slot)
            self._shelved.add(slot)

    def _ensure(self, slot: int) -> None:
        if not 0 <= slot < MAX_SLOTS:
            raise ValueError(f"slot {slot} is outside 0..{MAX_SLOTS - 1}")
        known = self._uses.slots
        if slot >= known.shape[1]:
            more = max(slot + 1, 2 * known.shape[1]) - known.shape[1]
            self._uses = self._uses._replace(slots=np.concatenate((known, no_slots(more)), axis=1))
            self._bundle = bundled(self._uses)


@bare
def _touch(bundle: Bundle, slot: int, chain: Chain, now: float, expired: float, max_blocks: int) -> None:
    """Blocks that were touched together stand in a row in the list: each leads to the next, and all move at once."""
    uses = unbundled(bundle)
    table, slots = uses.table, uses.slots
    expire(uses, slot, expired, 2 * len(chain))
    eldest = youngest = np.int64(-1)  # of such a row, which is to move
    for i in range(min(len(chain), slots[CAPACITY, slot]) - 1, -1, -1):  # the leading block is touched last
        key = folded(table, chain[i], slot)
        row = np.int64(-1) if youngest < 0 else np.int64(uses.newer[youngest]) - 1
        if row < 0 or table.keys[row] != key:
            if youngest >= 0:
                rejuvenate(uses, slot, eldest, youngest)
            _expect(uses, slot, chain, i)
            row = eldest = find(table, key)
        if row >= 0:
            youngest = row
            uses.used_at[row] = now
            continue
        eldest = youngest = np.int64(-1)
        if slots[HELD, slot] >= slots[CAPACITY, slot] or table.state[LIVE] >= max_blocks:
            if slots[HELD, slot] == 0:
                uses.state[REFUSED] += 1
                continue
            drop(uses, slot, slots[OLDEST, slot] - 1)
        add(uses, slot, chain[i], key, now)
    if youngest >= 0:
        rejuvenate(uses, slot, eldest, youngest)


@inlined
def _expect(uses: Uses, slot: int, chain: Chain, i: int) -> None:
    """Have at hand what blocks before this one will be looked for in."""
    table, holders = uses.table, uses.holders
    if i >= 2 * _AHEAD:
        expect(table, folded(table, chain[i - 2 * _AHEAD], slot))
        expect(holders.table, key_of(holders, chain[i - 2 * _AHEAD], slot))
    if i >= _AHEAD:
        expect_row(table, folded(table, chain[i - _AHEAD], slot))
        expect_row(holders.table, key_of(holders, chain[i - _AHEAD], slot))


@bare
def _touch_all(
    bundle: Bundle,
    slots: NDArray[np.int64],
    ends: NDArray[np.int64],
    blocks: Chain,
    now: float,
    expired: float,
    max_blocks: int,
) -> None:
    start = 0
    for i in range(len(slots)):
        if slots[i] >= 0:
            _touch(bundle, slots[i], blocks[start : ends[i]], now, expired, max_blocks)
        start = ends[i]


@bare
def _expire_all(bundle: Bundle, expired: float, most: int) -> None:
    uses = unbundled(bundle)
    for slot in range(uses.slots.shape[1]):
        expire(uses, slot, expired, most)


@kernel
def _matched(bundle: Bundle, chain: Chain, slots: Slots, expired: float) -> Column:
    """A block is never younger than what leads up to it, so the age of the last one found tells whether any has
    expired, and bisection tells which."""
    uses = unbundled(bundle)
    known = uses.slots.shape[1]
    columns = np.full(len(slots), -1, np.int64)
    for j in range(len(slots)):
        if 0 <= slots[j] < known and uses.slots[HELD, slots[j]] > 0:
            columns[j] = slots[j]
    depths = leading(uses.holders, chain, columns, known, STRIDE)
    for j in range(len(slots)):
        if depths[j] == 0 or uses.used_at[uses.slots[OLDEST, columns[j]] - 1] >= expired:
            continue
        young, old = 0, depths[j]
        while young < old:
            middle = (young + old) // 2
            if uses.used_at[find(uses.table, folded(uses.table, chain[middle], columns[j]))] >= expired:
                young = middle + 1
            else:
                old = middle
        depths[j] = young
    return depths.astype(np.float64)


@bare
def _shrink(bundle: Bundle, slot: int, held: int) -> None:
    uses = unbundled(bundle)
    while uses.slots[HELD, slot] > held:
        drop(uses, slot, uses.slots[OLDEST, slot] - 1)
