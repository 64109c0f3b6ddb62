"""Which blocks each slot has, and in which order they were last used.

The rows of a hash table are also, slot by slot, a list from the oldest to the youngest. Blocks are used by chains, the
leading block last, and dropped from the old end: no slot holds a block without those that lead up to it. `holders` has
the same blocks for lookups over all slots.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from picker.engines.bundle import bundling
from picker.engines.holders import Holders, clear_bit, no_holders, row_of, set_bit
from picker.engines.kernels import bare, inlined
from picker.engines.linear_hashing import Int, Table, delete, empty_table, insert

DEFAULT_CAPACITY = 31_250
"""Blocks per endpoint where its cache size is unknown: the default of llm-d's approximate producer."""
NEWEST, OLDEST, HELD, CAPACITY = range(4)
"""Rows of `Uses.slots`."""
REFUSED = 0
"""Field of `Uses.state`."""
STRIDE = 16
"""For `holders.leading`."""


class Uses(NamedTuple):
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


def no_slots(count: int) -> NDArray[np.int64]:
    """So many columns for `Uses.slots`."""
    slots = np.zeros((4, count), np.int64)
    slots[CAPACITY] = DEFAULT_CAPACITY
    return slots


def no_uses(rows: int, holders: Holders) -> Uses:
    """Nobody has any; at most `rows` rows."""
    table, (holder, newer, older, used_at) = empty_table(rows, np.uint32, np.uint32, np.uint32, np.float64)
    refused = np.zeros(1, np.int64)
    return Uses(table, holder, newer, older, used_at, holders, no_slots(64), refused)


bundled, unbundled = bundling(no_uses(2, no_holders(2)))


@inlined
def add(uses: Uses, slot: int, block: np.uint64, key: np.uint64, now: float) -> None:
    """A block that the slot does not hold is its youngest."""
    row = insert(uses.table, key)
    holder = row_of(uses.holders, block, slot)
    set_bit(uses.holders, holder, slot)
    uses.holder[row] = holder
    uses.used_at[row] = now
    uses.slots[HELD, slot] += 1
    _push_youngest(uses, slot, row, row)


@bare
def rejuvenate(uses: Uses, slot: int, eldest: Int, youngest: Int) -> None:
    """Rows that stand side by side, from the eldest on, are the slot's youngest from now on."""
    if uses.newer[youngest] != 0:
        _unlink(uses, slot, eldest, youngest)
        _push_youngest(uses, slot, eldest, youngest)


@bare
def expire(uses: Uses, slot: int, expired: float, most: int) -> None:
    """Reclaim the slot's expired blocks, at most `most` of them."""
    for _ in range(most):
        oldest = uses.slots[OLDEST, slot] - 1
        if oldest < 0 or uses.used_at[oldest] >= expired:
            break
        drop(uses, slot, oldest)


@bare
def drop(uses: Uses, slot: int, row: Int) -> None:
    """The slot holds the row's block no longer."""
    _unlink(uses, slot, row, row)
    clear_bit(uses.holders, np.int64(uses.holder[row]), slot)
    delete(uses.table, row)
    uses.slots[HELD, slot] -= 1


@bare
def _unlink(uses: Uses, slot: int, eldest: Int, youngest: Int) -> None:
    """Take these and all that stand between them out of the list."""
    newer, older = uses.newer[youngest], uses.older[eldest]
    if newer != 0:
        uses.older[newer - 1] = older
    else:
        uses.slots[NEWEST, slot] = older
    if older != 0:
        uses.newer[older - 1] = newer
    else:
        uses.slots[OLDEST, slot] = newer


@bare
def _push_youngest(uses: Uses, slot: int, eldest: Int, youngest: Int) -> None:
    before = uses.slots[NEWEST, slot]
    uses.newer[youngest] = 0
    uses.older[eldest] = before
    uses.slots[NEWEST, slot] = youngest + 1
    if before != 0:
        uses.newer[before - 1] = eldest + 1
    else:
        uses.slots[OLDEST, slot] = eldest + 1
