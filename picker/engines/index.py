"""The prefix index: which endpoint holds which KV blocks, as the engines' own events say.

An engine names blocks by keys of its own; each (slot, key) pair maps to our chained hash of the same block
(picker.requests.blocks), under which the holders of a block are found for the whole pool at once. At most 46 bytes per
pair, resident as used. Single-threaded: one event loop owns an index; other processes may read it along (`Shelf`).

A slot's blocks live in a *column*. Clearing a slot retires its column and gives the slot a new one, so that it costs
microseconds however much the slot held; the retired pairs are reclaimed a few at a time by later stores.
"""

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from picker.engines.bundle import Bundle, bundling
from picker.engines.holders import Holders, block_of, clear_bit, leading, no_holders, row_of, set_bit
from picker.engines.kernels import bare, kernel
from picker.engines.linear_hashing import (
    DEFAULT_SALT,
    LIVE,
    USED,
    Int,
    Table,
    Take,
    anonymous,
    delete,
    empty_table,
    find,
    folded,
    insert,
    plain,
)
from picker.engines.rows import Column
from picker.pool.view import Slots
from picker.requests.request import Chain

DEFAULT_MAX_PAIRS = 32_000_000
"""1.5 GB when full: 1,024 endpoints with 500,000 cached tokens each, at 16 tokens a block."""
MAX_SLOTS = 1 << 20
MAX_RETIRED = 1024
"""Retired columns at most; beyond that all are reclaimed at once."""
_SWEEP_PER_BLOCK = 8
"""Rows looked at per block stored, while retired pairs are left."""
_SWEEP_PER_CLEAR = 1 << 14
_COLUMN_BITS = np.uint32(21)
_COLUMN = np.uint32((1 << 21) - 1)
_COPIES = np.uint32((1 << 10) - 1)
_COPY = np.uint32(1 << 21)
_EXTRA = np.uint32(0x8000_0000)
"""Bits of `_Pairs.owner`."""
_FREE = np.uint32(0xFFFF_FFFF)
_MAX, _HAND, _EXTRAS, _EVICTED, _EMPTIED = 0, 1, 2, 3, 4

Keys = NDArray[np.uint64]


class Shelf(Protocol):
    """Where an index lies that other processes read along."""

    def take(self, size: int) -> Any:
        """So many bytes of its memory, zeros."""

    def placed(self, slot: int, column: int) -> None:
        """What `slot` holds is in this column from now on; in none where it is -1."""


class _Pairs(NamedTuple):
    """What the kernels work on.

    Pair rows are keyed by engine key and column, folded. Where one column holds one block under several engine keys, a
    row keyed by block and column | _EXTRA counts those beyond the first; such rows are not pairs.
    """

    table: Table
    holder: NDArray[np.uint32]
    """Per pair: its row in `holders`."""
    owner: NDArray[np.uint32]
    """Per row: its column, and above it the stores less removals (an engine can hold one block twice, and says so
    twice), up to 1,023; _EXTRA on top in a row that is no pair; _FREE in one that is not in use."""
    holders: Holders
    column_pairs: NDArray[np.int64]
    """Per column: pairs in it."""
    retired: NDArray[np.bool_]
    """Per column: its slot was cleared."""
    state: NDArray[np.int64]
    """Pairs allowed, hand of the clock, rows with _EXTRA, pairs evicted, retired columns emptied and not reused yet."""


class PrefixIndex:
    """Pairs (slot, engine key) -> own block hash, and the lookup the other way round.

    Bounded by `max_pairs`: when full, a hand that goes round the rows evicts what it meets, which is oldest first as
    long as engines remove little; `evicted` counts. `salt` is odd and best kept from whoever chooses engine keys.
    Raises ValueError on slots outside 0..2**20-1 and on `max_pairs` outside 1..2**30.
    """

    def __init__(
        self, max_pairs: int = DEFAULT_MAX_PAIRS, *, shelf: Shelf | None = None, salt: int = DEFAULT_SALT
    ) -> None:
        if not 1 <= max_pairs <= 1 << 30:
            raise ValueError("max_pairs must be in 1..2**30")
        self._pairs = _no_pairs(max_pairs, anonymous if shelf is None else shelf.take, salt)
        self._bundle = _bundled(self._pairs)
        self._shelf = shelf
        self._columns = np.full(64, -1, np.int64)  # of each slot; -1 for none
        self._width = 0  # columns ever made
        self._free: list[int] = []
        self._retired: list[int] = []

    def __len__(self) -> int:
        """Pairs held for slots as they are now."""
        pairs = self._pairs
        retired = sum(int(pairs.column_pairs[column]) for column in self._retired)
        return int(pairs.table.state[LIVE] - pairs.state[_EXTRAS]) - retired

    @property
    def evicted(self) -> int:
        """Pairs given up because the index was full."""
        return int(self._pairs.state[_EVICTED])

    @property
    def nbytes(self) -> int:
        """Bytes in use, which is what is resident but for the rest of the last pages."""
        pairs = self._pairs
        return pairs.table.nbytes + 8 * int(pairs.table.state[USED]) + pairs.holders.nbytes

    def store(self, slot: int, keys: Keys, blocks: Chain) -> None:
        """The engine in `slot` holds block `blocks[i]` and calls it `keys[i]`; both have shape (n,).

        A pair stored again is still one pair, but takes as many removals as stores: vLLM announces each copy of a
        block. A key stored again for another block means that block only. Raises ValueError on unequal lengths.
        """
        if len(keys) != len(blocks):
            raise ValueError(f"{len(keys)} keys for {len(blocks)} blocks")
        if not len(keys):
            return
        column = self._column(slot)
        _store(self._bundle, column, plain(keys), plain(blocks))
        if self._retired:
            self._reclaim(_SWEEP_PER_BLOCK * len(keys))

    def remove(self, slot: int, keys: Keys) -> None:
        """The engine in `slot` dropped one copy of each of these blocks. Keys that it never stored change nothing."""
        column = self._existing(slot)
        if column >= 0:
            _remove(self._bundle, column, plain(keys))

    def clear(self, slot: int) -> None:
        """The slot holds nothing: its engine restarted, cleared its cache, or is gone."""
        column = self._existing(slot)
        if column < 0 or not self._pairs.column_pairs[column]:
            return
        self._place(slot, -1)
        self._pairs.retired[column] = True
        self._retired.append(column)
        rows = int(self._pairs.table.state[USED])
        self._reclaim(rows if len(self._retired) > MAX_RETIRED else min(rows, _SWEEP_PER_CLEAR))

    def block(self, slot: int, key: int) -> int | None:
        """Our hash of the block that the engine in `slot` calls `key`; None where it holds no such block."""
        column = self._existing(slot)
        block, found = _block(self._bundle, column, np.uint64(key)) if column >= 0 else (0, False)
        return int(block) if found else None

    def matched(self, chain: Chain, slots: Slots) -> Column:
        """Consecutive leading blocks of `chain` that each slot holds, float64 of shape (N,)."""
        depths: Column = _matched(self._bundle, plain(chain), self._columns, slots, self._width)
        return depths

    def warm(self) -> None:
        """Compile every kernel, on an index of its own."""
        spare = PrefixIndex(max_pairs=50)
        some = np.arange(100, dtype=np.uint64)
        for slot in range(2):
            spare.store(slot, some, some)
            spare.clear(slot)
        spare.store(0, some, some)
        spare.block(0, 1)
        spare.matched(some, np.zeros(1, np.intp))
        spare.remove(0, some)

    def _existing(self, slot: int) -> int:
        """The slot's column, or -1."""
        if not 0 <= slot < MAX_SLOTS:
            raise ValueError(f"slot {slot} is outside 0..{MAX_SLOTS - 1}")
        if slot >= len(self._columns):
            more = max(slot + 1, 2 * len(self._columns)) - len(self._columns)
            self._columns = np.pad(self._columns, (0, more), constant_values=-1)
        return int(self._columns[slot])

    def _column(self, slot: int) -> int:
        """The slot's column, made where there is none."""
        column = self._existing(slot)
        if column < 0:
            column = self._free.pop() if self._free else self._new_column()
            self._place(slot, column)
        return column

    def _place(self, slot: int, column: int) -> None:
        self._columns[slot] = column
        if self._shelf is not None:
            self._shelf.placed(slot, column)

    def _new_column(self) -> int:
        pairs, column = self._pairs, self._width
        self._width += 1
        if column == len(pairs.retired):
            self._pairs = pairs._replace(
                column_pairs=np.pad(pairs.column_pairs, (0, column)), retired=np.pad(pairs.retired, (0, column))
            )
            self._bundle = _bundled(self._pairs)
        return column

    def _reclaim(self, rows: int) -> None:
        """Drop the retired pairs among the next rows; a column that is empty then can serve another slot."""
        pairs = self._pairs
        _sweep(self._bundle, rows)
        if pairs.state[_EMPTIED]:
            pairs.state[_EMPTIED] = 0
            emptied = [column for column in self._retired if not pairs.column_pairs[column]]
            self._retired = [column for column in self._retired if pairs.column_pairs[column]]
            pairs.retired[emptied] = False
            self._free += emptied


def _no_pairs(max_pairs: int, take: Take = anonymous, salt: int = DEFAULT_SALT) -> _Pairs:
    rows = max_pairs + 1  # the last pair may bring a row with _EXTRA
    table, (holder, owner) = empty_table(rows, np.uint32, np.uint32, salt=salt)
    holders, state = no_holders(rows, take, salt), np.array([max_pairs, 0, 0, 0, 0], np.int64)
    return _Pairs(table, holder, owner, holders, np.zeros(64, np.int64), np.zeros(64, np.bool_), state)


_bundled, _unbundled = bundling(_no_pairs(1))


@bare
def _store(bundle: Bundle, column: int, keys: Keys, blocks: Chain) -> None:
    pairs = _unbundled(bundle)
    table, state = pairs.table, pairs.state
    for i in range(len(keys)):
        key = folded(table, keys[i], column)
        row = find(table, key)
        if row >= 0:
            if block_of(pairs.holders, pairs.holder[row], column) == blocks[i]:
                _more(pairs, row)
                continue
            _drop(pairs, row)
        while table.state[LIVE] >= state[_MAX]:
            _turn(pairs, True)
        holder = row_of(pairs.holders, blocks[i], column)
        if not set_bit(pairs.holders, holder, column):
            extra_key = folded(table, blocks[i], np.int64(column) | np.int64(_EXTRA))
            extra = find(table, extra_key)
            if extra < 0:
                extra = insert(table, extra_key)
                pairs.owner[extra] = _EXTRA | np.uint32(column)
                state[_EXTRAS] += 1
            _more(pairs, extra)
        row = insert(table, key)
        pairs.holder[row] = holder
        pairs.owner[row] = np.uint32(column)
        _more(pairs, row)
        pairs.column_pairs[column] += 1


@bare
def _remove(bundle: Bundle, column: int, keys: Keys) -> None:
    pairs = _unbundled(bundle)
    for i in range(len(keys)):
        row = find(pairs.table, folded(pairs.table, keys[i], column))
        if row >= 0 and not _fewer(pairs, row):
            _drop(pairs, row)


@bare
def _more(pairs: _Pairs, row: Int) -> None:
    """One copy more."""
    if (pairs.owner[row] >> _COLUMN_BITS) & _COPIES != _COPIES:
        pairs.owner[row] += _COPY


@bare
def _fewer(pairs: _Pairs, row: Int) -> bool:
    """One copy less, unless it is the last one: then False."""
    if (pairs.owner[row] >> _COLUMN_BITS) & _COPIES <= np.uint32(1):
        return False
    pairs.owner[row] -= _COPY
    return True


@bare
def _drop(pairs: _Pairs, row: Int) -> None:
    """Forget a pair, and its column's hold on the block unless another key of the column names it."""
    table, holder = pairs.table, np.int64(pairs.holder[row])
    column = np.int64(pairs.owner[row] & _COLUMN)
    extra = np.int64(-1)
    if pairs.state[_EXTRAS] > 0:
        block = block_of(pairs.holders, holder, column)
        extra = find(table, folded(table, block, column | np.int64(_EXTRA)))
    if extra < 0:
        clear_bit(pairs.holders, holder, column)
    elif not _fewer(pairs, extra):
        delete(table, extra)
        pairs.owner[extra] = _FREE
        pairs.state[_EXTRAS] -= 1
    delete(table, row)
    pairs.owner[row] = _FREE
    pairs.column_pairs[column] -= 1
    if pairs.retired[column] and pairs.column_pairs[column] == 0:
        pairs.state[_EMPTIED] += 1


@bare
def _turn(pairs: _Pairs, evict: bool) -> None:
    """Move the hand by one row: a retired pair is dropped, any other one only to `evict` it."""
    table, state = pairs.table, pairs.state
    if state[_HAND] >= table.state[USED]:
        state[_HAND] = 0
    row = state[_HAND]
    state[_HAND] += 1
    owner = pairs.owner[row]
    if owner & _EXTRA != 0:  # free rows have this bit as well
        return
    if pairs.retired[owner & _COLUMN]:
        _drop(pairs, row)
    elif evict:
        _drop(pairs, row)
        state[_EVICTED] += 1


@bare
def _sweep(bundle: Bundle, rows: int) -> None:
    pairs = _unbundled(bundle)
    for _ in range(rows):
        _turn(pairs, False)


@bare
def _block(bundle: Bundle, column: int, key: np.uint64) -> tuple[np.uint64, bool]:
    pairs = _unbundled(bundle)
    row = find(pairs.table, folded(pairs.table, key, column))
    if row < 0:
        return np.uint64(0), False
    return block_of(pairs.holders, pairs.holder[row], column), True


@kernel
def _matched(bundle: Bundle, chain: Chain, columns: NDArray[np.int64], slots: Slots, width: int) -> Column:
    holders = _unbundled(bundle).holders
    wanted = np.full(len(slots), -1, np.int64)
    for i in range(len(slots)):
        if 0 <= slots[i] < len(columns):
            wanted[i] = columns[slots[i]]
    return leading(holders, chain, wanted, width, 1).astype(np.float64)
