"""The prefix index of KV events, written by the collector and read by every worker where it lies.

Shared are the holders of blocks and, in rows, the column of each endpoint. A search that finds a block reads its
holders as they are at that moment; one that finds nothing is made again if links changed meanwhile
(`linear_hashing.seek`). What only the writer needs, the engines' own keys, stays with it: a collector that starts anew
builds a new index, under a new name, and readers keep the old one until they are told of it.
"""

import contextlib
from mmap import PAGESIZE, mmap
from pathlib import Path
from typing import Any

import numpy as np

from picker.engines.bundle import Bundle, bundling
from picker.engines.holders import holders_in, leading
from picker.engines.kernels import kernel
from picker.engines.linear_hashing import plain
from picker.engines.rows import Column
from picker.pool.view import PoolView, Slots
from picker.requests.request import Chain
from picker.shared.memory import Kept, mapped
from picker.shared.mirror import Mirror, keys_of
from picker.shared.rows import CAPACITY, Values, attach, keep, publish, writing

_NOWHERE = np.array([-1.0])


class _Arena:
    """Hands out mapped memory piece by piece, from the start; the same pieces to all who ask in the same order."""

    def __init__(self, memory: mmap) -> None:
        self._memory, self._at = memoryview(memory), 0

    def take(self, size: int) -> Any:
        """So many bytes. Raises ValueError when there are none left."""
        piece = self._memory[self._at : self._at + size]
        if len(piece) < size:
            raise ValueError("the arena is too small")
        self._at += -(-size // PAGESIZE) * PAGESIZE
        return piece


def _size(rows: int) -> int:
    """Bytes for the holders of `rows` rows: 24 a row, and four arrays rounded up to pages."""
    return 24 * rows + 5 * PAGESIZE


class SharedShelf:
    """The writer's side: where a `PrefixIndex` for at most `max_pairs` pairs puts what others read. Raises OSError."""

    def __init__(self, folder: Path, name: str, max_pairs: int) -> None:
        self._kept = contextlib.ExitStack()
        size = _size(max_pairs + 1)
        self._kept.callback(Kept(folder, name, size).close)
        self._kept.callback(keep(folder, _columns(name), 1).close)
        self._arena = _Arena(mapped(folder, name, size, writes=True))
        self._columns = attach(folder, _columns(name), 1, writes=True)
        self._writing = writing(self._columns)
        self._keys = keys_of(PoolView())
        self._column: Values = np.empty((1, 1))

    def take(self, size: int) -> Any:
        """So many bytes of the memory."""
        return self._arena.take(size)

    def follow(self, view: PoolView) -> None:
        """The slots of the index are these endpoints' from now on. Say so before the index hears of it."""
        self._keys = keys_of(view)

    def placed(self, slot: int, column: int) -> None:
        """What `slot` holds is in this column; in none where it is -1."""
        if slot < CAPACITY:
            key = self._keys[slot] if slot < len(self._keys) else np.uint64(0)
            self._column[0, 0] = column
            publish(self._writing, slot, key, self._column, 0)

    def close(self) -> None:
        """Nobody can map it any more; those who did keep what they have."""
        self._kept.close()


class IndexReader:
    """A reader's side: the same answers as the writer's `PrefixIndex.matched`, by our own slots. Empty until told."""

    def __init__(self) -> None:
        self._holders = holders_in(bytes, 2)
        self._bundle: Bundle = _bundled(self._holders)
        self._columns = Mirror([], _NOWHERE, np.zeros(1, np.bool_))
        self._view, self._capacity = PoolView(), 1

    def read(self, folder: Path, name: str, max_pairs: int) -> None:
        """Read this index from now on. Raises OSError, ValueError where there is none; then the old one stays."""
        rows = max_pairs + 1
        arena = _Arena(mapped(folder, name, _size(rows), writes=False))
        holders, columns = holders_in(arena.take, rows), attach(folder, _columns(name), 1)
        self._holders, self._bundle = holders, _bundled(holders)
        self._columns = Mirror([columns], _NOWHERE, np.zeros(1, np.bool_))
        self._columns.follow(self._view, self._capacity)
        self.matched(np.zeros(1, np.uint64), np.zeros(1, np.intp))  # compiled here, not at the first pick

    def follow(self, view: PoolView, capacity: int) -> None:
        """Our slots are these endpoints' from now on."""
        self._view, self._capacity = view, capacity
        self._columns.follow(view, capacity)

    def matched(self, chain: Chain, slots: Slots) -> Column:
        """Consecutive leading blocks of `chain` that each slot holds, float64 of shape (N,)."""
        depths: Column = held(*self.state(), plain(chain), slots, 1)
        return depths

    def state(self) -> tuple[Bundle, Column]:
        """What `held` reads, as of now."""
        self._columns.refresh()
        return self._bundle, self._columns.columns[0]

    def clear(self, slot: int) -> None:
        """The writer does that."""


_bundled, _unbundled = bundling(holders_in(bytes, 2))  # of memory that is read only


@kernel
def held(bundle: Bundle, columns: Column, chain: Chain, slots: Slots, stride: int) -> Column:
    """Consecutive leading blocks of `chain` that each slot holds, float64 of shape (N,); `stride` as of `leading`."""
    holders = _unbundled(bundle)
    wanted = np.full(len(slots), -1, np.int64)
    width = 0
    for i in range(len(slots)):
        if 0 <= slots[i] < len(columns):
            wanted[i] = np.int64(columns[slots[i]])
            width = max(width, wanted[i] + 1)
    return leading(holders, chain, wanted, width, stride).astype(np.float64)


def _columns(name: str) -> str:
    return f"{name}-columns"
