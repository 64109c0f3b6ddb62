"""The approximate index: which endpoint should hold which KV blocks, judging by our own picks.

For engines that publish no KV events. Every block of a picked request counts as cached on its endpoint until the
endpoint's share is full of younger ones or `ttl_s` has passed since its last use (Lodestar, arXiv 2606.00946, keeps
such a routing history with 20 minutes). Lookup is that of the prefix index; each slot's blocks are in an LRU list.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from picker.engines.bundle import Bundle, bundling
from picker.engines.holders import Holders, clear_bit, key_of, leading, no_holders, row_of, set_bit
from picker.engines.index import Shelf
from picker.engines.kernels import bare, kernel
from picker.engines.linear_hashing import (
    LIVE,
    USED,
    Int,
    Table,
    delete,
    empty_table,
    expect,
    expect_row,
    find,
    folded,
    insert,
    plain,
)
from picker.engines.rows import Column
from picker.pool.view import Slots
from picker.requests.request import Chain

DEFAULT_TTL_S = 20 * 60.0
DEFAULT_CAPACITY = 31_250
"""Blocks per endpoint where its cache size is unknown: the default of llm-d's approximate producer."""
DEFAULT_MAX_BLOCKS = 32_000_000
"""Over all endpoints; 2.3 GB when full."""
MAX_SLOTS = 1 << 20
_NEWEST, _OLDEST, _HELD, _CAPACITY = 0, 1, 2, 3
_REFUSED = 0
_AHEAD = 8
"""A block's rows are asked for so many blocks early, its buckets twice as early."""


class _Uses(NamedTuple):
    """What the kernels work on. Rows are keyed by block and slot, folded."""

    table: Table
    holder: NDArray[np.uint32]
    """Per row: its row in `holders`."""
    newer: NDArray[np.uint32]
    """Per row: the next younger row + 1 of its slot, or 0."""
    older: NDArray[np.uint32]
    """Per row: the next older row + 1 of its slot, or 0."""
    used_at: NDArray[np.float64]
    """Per row: seconds."""
    holders: Holders
    slots: NDArray[np.int64]
    """Shape (4, slots): youngest row + 1, oldest row + 1, rows, rows allowed."""
    state: NDArray[np.int64]
    """Blocks refused."""


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
        self._uses = _no_uses(rows, no_holders(rows) if shelf is None else no_holders(rows, shelf.take))
        self._shelf = shelf
        self._shelved: set[int] = set()
        self._bundle = _bundled(self._uses)

    def __len__(self) -> int:
        """Blocks kept over all slots, those that have expired and are not reclaimed yet included."""
        return int(self._uses.table.state[LIVE])

    @property
    def refused(self) -> int:
        """Blocks not kept because the index was full."""
        return int(self._uses.state[_REFUSED])

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
        if self._uses.slots[_CAPACITY, slot] != max(1, blocks):
            self._uses.slots[_CAPACITY, slot] = max(1, blocks)
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
        self._uses.slots[_CAPACITY, slot] = DEFAULT_CAPACITY

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
            self._uses = self._uses._replace(slots=np.concatenate((known, _no_slots(more)), axis=1))
            self._bundle = _bundled(self._uses)


def _no_slots(count: int) -> NDArray[np.int64]:
    slots = np.zeros((4, count), np.int64)
    slots[_CAPACITY] = DEFAULT_CAPACITY
    return slots


def _no_uses(rows: int, holders: Holders) -> _Uses:
    table, (holder, newer, older, used_at) = empty_table(rows, np.uint32, np.uint32, np.uint32, np.float64)
    refused = np.zeros(1, np.int64)
    return _Uses(table, holder, newer, older, used_at, holders, _no_slots(64), refused)


_bundled, _unbundled = bundling(_no_uses(2, no_holders(2)))


@bare
def _touch(bundle: Bundle, slot: int, chain: Chain, now: float, expired: float, max_blocks: int) -> None:
    uses = _unbundled(bundle)
    table, holders, slots = uses.table, uses.holders, uses.slots
    _expire(uses, slot, expired, 2 * len(chain))
    for i in range(min(len(chain), slots[_CAPACITY, slot]) - 1, -1, -1):  # the leading block is touched last
        if i >= 2 * _AHEAD:
            expect(table, folded(table, chain[i - 2 * _AHEAD], slot))
            expect(holders.table, key_of(holders, chain[i - 2 * _AHEAD], slot))
        if i >= _AHEAD:
            expect_row(table, folded(table, chain[i - _AHEAD], slot))
            expect_row(holders.table, key_of(holders, chain[i - _AHEAD], slot))
        key = folded(table, chain[i], slot)
        row = find(table, key)
        if row >= 0:
            _unlink(uses, slot, row)
        else:
            if slots[_HELD, slot] >= slots[_CAPACITY, slot] or table.state[LIVE] >= max_blocks:
                if slots[_HELD, slot] == 0:
                    uses.state[_REFUSED] += 1
                    continue
                _drop(uses, slot, slots[_OLDEST, slot] - 1)
            row = insert(table, key)
            holder = row_of(holders, chain[i], slot)
            set_bit(holders, holder, slot)
            uses.holder[row] = holder
            slots[_HELD, slot] += 1
        uses.used_at[row] = now
        _push_youngest(uses, slot, row)


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
    uses = _unbundled(bundle)
    for slot in range(uses.slots.shape[1]):
        _expire(uses, slot, expired, most)


@kernel
def _matched(bundle: Bundle, chain: Chain, slots: Slots, expired: float) -> Column:
    """A block is never younger than what leads up to it, so the age of the last one found tells whether any has
    expired, and bisection tells which."""
    uses = _unbundled(bundle)
    known = uses.slots.shape[1]
    columns = np.full(len(slots), -1, np.int64)
    for j in range(len(slots)):
        if 0 <= slots[j] < known and uses.slots[_HELD, slots[j]] > 0:
            columns[j] = slots[j]
    depths = leading(uses.holders, chain, columns, known)
    for j in range(len(slots)):
        if depths[j] == 0 or uses.used_at[uses.slots[_OLDEST, columns[j]] - 1] >= expired:
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
def _expire(uses: _Uses, slot: int, expired: float, most: int) -> None:
    """Reclaim the slot's expired blocks, at most `most` of them."""
    for _ in range(most):
        oldest = uses.slots[_OLDEST, slot] - 1
        if oldest < 0 or uses.used_at[oldest] >= expired:
            break
        _drop(uses, slot, oldest)


@bare
def _shrink(bundle: Bundle, slot: int, held: int) -> None:
    uses = _unbundled(bundle)
    while uses.slots[_HELD, slot] > held:
        _drop(uses, slot, uses.slots[_OLDEST, slot] - 1)


@bare
def _drop(uses: _Uses, slot: int, row: Int) -> None:
    _unlink(uses, slot, row)
    clear_bit(uses.holders, np.int64(uses.holder[row]), slot)
    delete(uses.table, row)
    uses.slots[_HELD, slot] -= 1


@bare
def _unlink(uses: _Uses, slot: int, row: Int) -> None:
    newer, older = uses.newer[row], uses.older[row]
    if newer != 0:
        uses.older[newer - 1] = older
    else:
        uses.slots[_NEWEST, slot] = older
    if older != 0:
        uses.newer[older - 1] = newer
    else:
        uses.slots[_OLDEST, slot] = newer


@bare
def _push_youngest(uses: _Uses, slot: int, row: Int) -> None:
    before = uses.slots[_NEWEST, slot]
    uses.newer[row] = 0
    uses.older[row] = before
    uses.slots[_NEWEST, slot] = row + 1
    if before != 0:
        uses.newer[before - 1] = row + 1
    else:
        uses.slots[_OLDEST, slot] = row + 1
