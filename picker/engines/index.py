"""The prefix index: which endpoint holds which KV blocks, as the engines' own events say.

An engine names blocks by keys of its own; each (slot, key) pair maps to our chained hash of the same block
(picker.requests.blocks), under which the holders of a block are found for the whole pool at once. At most 46 bytes per
pair, resident as used. Single-threaded: one event loop owns an index; other processes may read it along (`Shelf`).

A slot's blocks live in a *column*. Clearing a slot retires its column and gives the slot a new one, so that it costs
microseconds however much the slot held; the retired pairs are reclaimed a few at a time by later stores.
"""

from typing import Any, Protocol

import numpy as np

from picker.engines.linear_hashing import DEFAULT_SALT, LIVE, USED, anonymous, plain
from picker.engines.pairs import (
    EMPTIED,
    EVICTED,
    EXTRAS,
    Keys,
    block_named,
    bundled,
    matched_pairs,
    no_pairs,
    remove_pairs,
    store_pairs,
    sweep_pairs,
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


class Shelf(Protocol):
    """Where an index lies that other processes read along."""

    def take(self, size: int) -> Any:
        """So many bytes of its memory, zeros."""

    def placed(self, slot: int, column: int) -> None:
        """What `slot` holds is in this column from now on; in none where it is -1."""


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
        self._pairs = no_pairs(max_pairs, anonymous if shelf is None else shelf.take, salt)
        self._bundle = bundled(self._pairs)
        self._shelf = shelf
        self._columns = np.full(64, -1, np.int64)  # of each slot; -1 for none
        self._width = 0  # columns ever made
        self._free: list[int] = []
        self._retired: list[int] = []

    def __len__(self) -> int:
        """Pairs held for slots as they are now."""
        pairs = self._pairs
        retired = sum(int(pairs.column_pairs[column]) for column in self._retired)
        return int(pairs.table.state[LIVE] - pairs.state[EXTRAS]) - retired

    @property
    def evicted(self) -> int:
        """Pairs given up because the index was full."""
        return int(self._pairs.state[EVICTED])

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
        store_pairs(self._bundle, column, plain(keys), plain(blocks))
        if self._retired:
            self._reclaim(_SWEEP_PER_BLOCK * len(keys))

    def remove(self, slot: int, keys: Keys) -> None:
        """The engine in `slot` dropped one copy of each of these blocks. Keys that it never stored change nothing."""
        column = self._existing(slot)
        if column >= 0:
            remove_pairs(self._bundle, column, plain(keys))

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
        block, found = block_named(self._bundle, column, np.uint64(key)) if column >= 0 else (0, False)
        return int(block) if found else None

    def matched(self, chain: Chain, slots: Slots) -> Column:
        """Consecutive leading blocks of `chain` that each slot holds, float64 of shape (N,)."""
        depths: Column = matched_pairs(self._bundle, plain(chain), self._columns, slots, self._width)
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
            self._bundle = bundled(self._pairs)
        return column

    def _reclaim(self, rows: int) -> None:
        """Drop the retired pairs among the next rows; a column that is empty then can serve another slot."""
        pairs = self._pairs
        sweep_pairs(self._bundle, rows)
        if pairs.state[EMPTIED]:
            pairs.state[EMPTIED] = 0
            emptied = [column for column in self._retired if not pairs.column_pairs[column]]
            self._retired = [column for column in self._retired if pairs.column_pairs[column]]
            pairs.retired[emptied] = False
            self._free += emptied
