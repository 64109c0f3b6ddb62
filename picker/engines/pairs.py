"""Which blocks each column holds, by the names that its engine has for them: the machine code of the prefix index.

A pair is a row for a column and an engine's key. `holders` has the same blocks for lookups over all columns.
"""

from typing import NamedTuple

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
)
from picker.engines.rows import Column
from picker.pool.view import Slots
from picker.requests.request import Chain

Keys = NDArray[np.uint64]

_COLUMN_BITS = np.uint32(21)
_COLUMN = np.uint32((1 << 21) - 1)
_COPIES = np.uint32((1 << 10) - 1)
_COPY = np.uint32(1 << 21)
_EXTRA = np.uint32(0x8000_0000)
"""Bits of `Pairs.owner`."""
_FREE = np.uint32(0xFFFF_FFFF)
_MAX, _HAND, EXTRAS, EVICTED, EMPTIED = 0, 1, 2, 3, 4


class Pairs(NamedTuple):
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


def no_pairs(max_pairs: int, take: Take = anonymous, salt: int = DEFAULT_SALT) -> Pairs:
    """None, and room for so many."""
    rows = max_pairs + 1  # the last pair may bring a row with _EXTRA
    table, (holder, owner) = empty_table(rows, np.uint32, np.uint32, salt=salt)
    holders, state = no_holders(rows, take, salt), np.array([max_pairs, 0, 0, 0, 0], np.int64)
    return Pairs(table, holder, owner, holders, np.zeros(64, np.int64), np.zeros(64, np.bool_), state)


bundled, unbundled = bundling(no_pairs(1))


@bare
def store_pairs(bundle: Bundle, column: int, keys: Keys, blocks: Chain) -> None:
    """As `PrefixIndex.store`, in a column."""
    pairs = unbundled(bundle)
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
                state[EXTRAS] += 1
            _more(pairs, extra)
        row = insert(table, key)
        pairs.holder[row] = holder
        pairs.owner[row] = np.uint32(column)
        _more(pairs, row)
        pairs.column_pairs[column] += 1


@bare
def remove_pairs(bundle: Bundle, column: int, keys: Keys) -> None:
    """As `PrefixIndex.remove`, from a column."""
    pairs = unbundled(bundle)
    for i in range(len(keys)):
        row = find(pairs.table, folded(pairs.table, keys[i], column))
        if row >= 0 and not _fewer(pairs, row):
            _drop(pairs, row)


@bare
def _more(pairs: Pairs, row: Int) -> None:
    """One copy more."""
    if (pairs.owner[row] >> _COLUMN_BITS) & _COPIES != _COPIES:
        pairs.owner[row] += _COPY


@bare
def _fewer(pairs: Pairs, row: Int) -> bool:
    """One copy less, unless it is the last one: then False."""
    if (pairs.owner[row] >> _COLUMN_BITS) & _COPIES <= np.uint32(1):
        return False
    pairs.owner[row] -= _COPY
    return True


@bare
def _drop(pairs: Pairs, row: Int) -> None:
    """Forget a pair, and its column's hold on the block unless another key of the column names it."""
    table, holder = pairs.table, np.int64(pairs.holder[row])
    column = np.int64(pairs.owner[row] & _COLUMN)
    extra = np.int64(-1)
    if pairs.state[EXTRAS] > 0:
        block = block_of(pairs.holders, holder, column)
        extra = find(table, folded(table, block, column | np.int64(_EXTRA)))
    if extra < 0:
        clear_bit(pairs.holders, holder, column)
    elif not _fewer(pairs, extra):
        delete(table, extra)
        pairs.owner[extra] = _FREE
        pairs.state[EXTRAS] -= 1
    delete(table, row)
    pairs.owner[row] = _FREE
    pairs.column_pairs[column] -= 1
    if pairs.retired[column] and pairs.column_pairs[column] == 0:
        pairs.state[EMPTIED] += 1


@bare
def _turn(pairs: Pairs, evict: bool) -> None:
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
        state[EVICTED] += 1


@bare
def sweep_pairs(bundle: Bundle, rows: int) -> None:
    """Look at so many rows, and drop the retired pairs among them."""
    pairs = unbundled(bundle)
    for _ in range(rows):
        _turn(pairs, False)


@bare
def block_named(bundle: Bundle, column: int, key: np.uint64) -> tuple[np.uint64, bool]:
    """Our hash of the block that the column's engine calls so, and whether it holds one."""
    pairs = unbundled(bundle)
    row = find(pairs.table, folded(pairs.table, key, column))
    if row < 0:
        return np.uint64(0), False
    return block_of(pairs.holders, pairs.holder[row], column), True


@kernel
def matched_pairs(bundle: Bundle, chain: Chain, columns: NDArray[np.int64], slots: Slots, width: int) -> Column:
    """Consecutive leading blocks that each slot holds; `columns` are those of all slots, `width` is above each."""
    holders = unbundled(bundle).holders
    wanted = np.full(len(slots), -1, np.int64)
    for i in range(len(slots)):
        if 0 <= slots[i] < len(columns):
            wanted[i] = columns[slots[i]]
    return leading(holders, chain, wanted, width, 1).astype(np.float64)
