"""A block of rows of float64, one writer, any number of readers in other processes, no lock.

Each row is kept twice, with a count of its publications: the writer fills the half that readers do not look at and
raises the count, whose lowest bit names the half that counts. A reader copies that half and looks at the count again:
if it changed, the copy may be torn. A writer that dies in the middle leaves the last whole row. (After the sequence
locks of Lameter, "Effective synchronization on Linux/NUMA systems", 2005, with a second buffer in place of the odd
count.) Aligned words of 64 bits are assumed to be read and written whole; order is made with `fence`.
"""

from mmap import mmap
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from picker.engines.bundle import Bundle, bundling
from picker.engines.fence import fence
from picker.engines.kernels import bare
from picker.engines.linear_hashing import anonymous
from picker.shared.memory import Kept, mapped

CAPACITY = 16_384
"""Rows of a block. What has a slot beyond it is not shared."""
USED, CHANGES = 0, 1
_HEAD_BYTES = 64
_TRIES = 8
"""Copies of one row that a reader takes before it leaves the row for the next time."""

Values = NDArray[np.float64]
Keys = NDArray[np.uint64]
Counts = NDArray[np.int64]


class Block(NamedTuple):
    """One block, for the kernels."""

    head: Counts
    """Rows ever published, and publications so far."""
    counts: Counts
    """Per row: its publications."""
    keys: Keys
    """Shape (rows, 2): whose row it is."""
    values: Values
    """Shape (rows, 2, width)."""


def size(width: int) -> int:
    """Bytes of a block of rows of `width` values."""
    return _HEAD_BYTES + CAPACITY * (8 + 2 * 8 + 2 * 8 * width)


def keep(folder: Path, name: str, width: int) -> Kept:
    """A new block, empty."""
    return Kept(folder, name, size(width))


def attach(folder: Path, name: str, width: int, *, writes: bool = False) -> Block:
    """The block of this name. At most one process may write to it. Raises OSError, ValueError as `mapped` does."""
    return _block(mapped(folder, name, size(width), writes=writes), width)


def local(width: int) -> Block:
    """An empty block of this process alone."""
    return _block(anonymous(size(width)), width)


def reading(block: Block) -> Block:
    """The same block, not to be written to."""
    views = Block(block.head.view(), block.counts.view(), block.keys.view(), block.values.view())
    for view in views:
        view.flags.writeable = False
    return views


def writing(block: Block) -> Bundle:
    """For `publish`; it keeps nothing alive."""
    return _bundled(block)


def _block(memory: mmap, width: int) -> Block:
    counts_at = _HEAD_BYTES
    keys_at = counts_at + 8 * CAPACITY
    values_at = keys_at + 16 * CAPACITY
    return Block(
        np.frombuffer(memory, np.int64, 2),
        np.frombuffer(memory, np.int64, CAPACITY, counts_at),
        np.frombuffer(memory, np.uint64, 2 * CAPACITY, keys_at).reshape(CAPACITY, 2),
        np.frombuffer(memory, np.float64, 2 * width * CAPACITY, values_at).reshape(CAPACITY, 2, width),
    )


_bundled, _unbundled = bundling(local(1))


@bare
def publish(writing: Bundle, row: int, key: np.uint64, columns: Values, at: int) -> None:
    """Row `row` is that of `key` and holds `columns[:, at]` from now on. `columns` has shape (width, any)."""
    block = _unbundled(writing)
    half = (block.counts[row] + 1) & 1
    fence()  # who still copies this half must find the count changed
    block.keys[row, half] = key
    for i in range(len(columns)):
        block.values[row, half, i] = columns[i, at]
    fence()
    block.counts[row] += 1
    block.head[USED] = max(block.head[USED], row + 1)
    fence()
    block.head[CHANGES] += 1


def vacate(block: Block, empty: Values) -> None:
    """Every row holds `empty`, shape (width,), and is nobody's: its writer is gone."""
    column, bundle = np.ascontiguousarray(empty[:, None]), writing(block)
    for row in range(int(block.head[USED])):
        publish(bundle, row, np.uint64(0), column, 0)


@bare
def whole(block: Block, row: int, values: Values) -> tuple[np.int64, np.uint64]:
    """Copy a row into `values`, shape (width,): its publications and key; -1 where every copy was torn."""
    count = block.counts[row]
    for _ in range(_TRIES):
        fence()
        key = block.keys[row, count & 1]
        for i in range(len(values)):
            values[i] = block.values[row, count & 1, i]
        fence()
        after = block.counts[row]
        if after == count:
            return count, key
        count = after
    return np.int64(-1), np.uint64(0)
