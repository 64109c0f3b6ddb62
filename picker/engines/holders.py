"""Which endpoints hold a block: 64 of them to a word, and only words that are not zero are kept.

A block that one endpoint holds costs one row; a block that all of 1,024 hold costs 16. A chain is matched against the
whole pool by ANDing words, block after block or with long strides, and a word is looked at no longer than one of its
endpoints is still in the race.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from picker.engines.fence import fence
from picker.engines.kernels import bare, inlined, kernel
from picker.engines.linear_hashing import (
    DEFAULT_SALT,
    USED,
    Int,
    Table,
    Take,
    anonymous,
    delete,
    empty_table,
    find,
    folded,
    glance,
    insert,
    seek,
    table_in,
    unfolded,
)

_ONE = np.uint64(1)
_ALL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)
_BIT_OF = np.zeros(64, np.int64)
for _bit in range(64):
    _BIT_OF[(int(_DE_BRUIJN) << _bit & int(_ALL)) >> 58] = _bit


class Holders(NamedTuple):
    """Rows keyed by block hash and word, folded; column c is bit c % 64 of word c // 64."""

    table: Table
    masks: NDArray[np.uint64]
    """Per row: the endpoints that hold the block; 0 in a row that is not in use, and in no other."""

    @property
    def nbytes(self) -> int:
        """Bytes in use."""
        return self.table.nbytes + 8 * int(self.table.state[USED])


def no_holders(rows: int, take: Take = anonymous, salt: int = DEFAULT_SALT) -> Holders:
    """Nobody holds anything; at most `rows` rows."""
    table, (masks,) = empty_table(rows, np.uint64, take=take, salt=salt)
    return Holders(table, masks)


def holders_in(take: Take, rows: int) -> Holders:
    """The holders that another process keeps in this memory."""
    table, (masks,) = table_in(take, rows, np.uint64)
    return Holders(table, masks)


@bare
def block_of(holders: Holders, row: Int, column: Int) -> np.uint64:
    """Whose row this is, the column being one of its word."""
    return unfolded(holders.table, holders.table.keys[row], column >> 6)


@bare
def key_of(holders: Holders, block: np.uint64, column: Int) -> np.uint64:
    """The key of the row for this block and the column's word."""
    return folded(holders.table, block, column >> 6)


@bare
def row_of(holders: Holders, block: np.uint64, column: Int) -> np.int64:
    """The row for this block and the column's word, made where there is none yet (with no bit set)."""
    key = key_of(holders, block, column)
    row = find(holders.table, key)
    return insert(holders.table, key) if row < 0 else row


@bare
def set_bit(holders: Holders, row: Int, column: Int) -> bool:
    """The column holds the row's block. False when it did already."""
    bit = _ONE << np.uint64(column & 63)
    if holders.masks[row] & bit != np.uint64(0):
        return False
    holders.masks[row] |= bit
    return True


@bare
def clear_bit(holders: Holders, row: Int, column: Int) -> None:
    """The column holds the row's block no longer; a row that nobody needs is freed."""
    holders.masks[row] &= ~(_ONE << np.uint64(column & 63))
    if holders.masks[row] == np.uint64(0):
        delete(holders.table, row)


@kernel
def leading(
    holders: Holders, chain: NDArray[np.uint64], columns: NDArray[np.int64], width: int, stride: int
) -> NDArray[np.int64]:
    """How many leading blocks of `chain` each of the columns holds, shape (N,); 0 for a column of -1.

    `width` is above every column. Cost: one probe per block and word that is still in the race. Where columns hold no
    block without all that lead up to it, it is enough to look at every `stride`th, and at those before it for columns
    that hold it not; else `stride` is 1.
    """
    alive = np.zeros((width + 63) >> 6, np.uint64)
    depth = np.zeros(width, np.int64)
    for column in columns:
        if column >= 0:
            alive[column >> 6] |= _ONE << np.uint64(column & 63)
    _race(holders, chain, alive, np.flatnonzero(alive), depth, stride)
    out = np.zeros(len(columns), np.int64)
    for j in range(len(columns)):
        if columns[j] >= 0:
            out[j] = depth[columns[j]]
    return out


@bare
def _race(
    holders: Holders,
    chain: NDArray[np.uint64],
    alive: NDArray[np.uint64],
    racing: NDArray[np.int64],
    depth: NDArray[np.int64],
    stride: int,
) -> None:
    """Write into `depth` how far each column gets whose bit is set in `alive`; `racing` names the words of those."""
    words = len(racing)
    for first in range(0, len(chain), stride):
        last = min(first + stride, len(chain)) - 1
        kept = 0
        for w in range(words):
            word = racing[w]
            still = alive[word] & _mask(holders, folded(holders.table, chain[last], word))
            gone = alive[word] ^ still
            for i in range(first, last):
                if gone == np.uint64(0):
                    break
                further = gone & _mask(holders, folded(holders.table, chain[i], word))
                _reach(depth, word, gone ^ further, i)
                gone = further
            _reach(depth, word, gone, last)
            alive[word] = still
            if still != np.uint64(0):
                racing[kept] = word
                kept += 1
        words = kept
        if words == 0:
            break
    for w in range(words):
        _reach(depth, racing[w], alive[racing[w]], len(chain))


@inlined
def _mask(holders: Holders, key: np.uint64) -> np.uint64:
    """The mask of a row by its key, 0 where there is none; right at some moment of the call whoever writes."""
    row = glance(holders.table, key)
    if row < 0:
        row = seek(holders.table, key)
        if row < 0:
            return np.uint64(0)
    mask = holders.masks[row]
    fence()
    return mask if holders.table.keys[row] == key else np.uint64(0)


@bare
def _reach(depth: NDArray[np.int64], word: Int, bits: np.uint64, reached: int) -> None:
    """Write `reached` for every column of `word` whose bit is set."""
    while bits != np.uint64(0):
        lowest = bits & (~bits + _ONE)
        depth[(word << 6) + _BIT_OF[np.int64((lowest * _DE_BRUIJN) >> np.uint64(58))]] = reached
        bits ^= lowest
