"""A hash table in numpy arrays: (key u64, tag u32) -> row, for machine-speed kernels and no Python object per row.

Linear hashing (Litwin 1980): each insertion beyond one row per bucket splits one bucket, so that the table grows a
row at a time and no insertion ever waits for a rehash. Rows lie densely in creation order and freed ones are reused;
what a row holds beside its key is up to the caller. The fields of a row lie side by side in memory, since each row met
is a cache miss; kernels see each field as an array of its own. All memory is reserved at once and resident only as far
as it is used.
"""

import mmap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

Int = int | np.int64
"""What kernels count with: numba makes a signed 64-bit number of either."""
Kernel = TypeVar("Kernel", bound=Callable[..., object])

_BARE: dict[str, Any] = {"cache": True, "_nrt": False}

FREE = np.uint32(0xFFFF_FFFF)
"""Tag of a row that is not in use; no caller may use it."""
LIVE, USED, FREE_HEAD, BUCKETS, MASK = 0, 1, 2, 3, 4
"""Fields of `Table.state`: rows in use, rows ever used, head of the free list (row + 1, 0 when empty), buckets, and
one less than the power of two above the number of buckets."""


class Table(NamedTuple):
    """One table, for the kernels below."""

    heads: NDArray[np.uint32]
    """Per bucket: first row + 1, or 0."""
    keys: NDArray[np.uint64]
    """Per row."""
    tags: NDArray[np.uint32]
    """Per row."""
    following: NDArray[np.uint32]
    """Per row: next row + 1 of the same bucket, or of the free list; or 0."""
    state: NDArray[np.int64]

    @property
    def nbytes(self) -> int:
        """Bytes in use."""
        return 16 * int(self.state[USED]) + 4 * int(self.state[BUCKETS])


def kernel(function: Kernel) -> Kernel:
    """Compile with numba, keeping the machine code on disk."""
    return cast(Kernel, njit(cache=True)(function))


def bare(function: Kernel) -> Kernel:
    """As `kernel`, for what makes no array: without the count of who uses each array that is handed on, which costs
    more than looking a row up."""
    return cast(Kernel, njit(**_BARE)(function))


def plain(array: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The array as kernels were compiled for it: a read-only or strided one would make numba compile them anew."""
    return array if array.flags.carray else np.array(array)


def reserved(rows: int, dtype: type[np.generic]) -> NDArray[Any]:
    """Zeros, none of them resident. Anonymous memory, since numpy's own would ask for huge pages."""
    size = max(rows, 1) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), dtype)


def interleaved(rows: int, dtypes: Sequence[type[np.generic]]) -> tuple[NDArray[Any], ...]:
    """Zeros as of `reserved`, one array per field, the fields of a row side by side."""
    fields = np.dtype([(str(i), dtype) for i, dtype in enumerate(dtypes)], align=True)
    size = max(rows, 1) * fields.itemsize
    whole = np.frombuffer(mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), fields)
    return tuple(whole[str(i)] for i in range(len(dtypes)))


def empty_table(rows: int, *more: type[np.generic]) -> tuple[Table, tuple[NDArray[Any], ...]]:
    """A table for at most `rows` rows, below 2**32, and one array for each field more that a row is to have."""
    keys, tags, following, *fields = interleaved(rows, (np.uint64, np.uint32, np.uint32, *more))
    return Table(reserved(rows, np.uint32), keys, tags, following, np.array([0, 0, 0, 1, 1], np.int64)), tuple(fields)


@bare
def find(table: Table, key: np.uint64, tag: np.uint32) -> np.int64:
    """The row, or -1."""
    row = np.int64(table.heads[_bucket(table, key, tag)]) - 1
    while row >= 0 and (table.keys[row] != key or table.tags[row] != tag):
        row = np.int64(table.following[row]) - 1
    return row


@bare
def insert(table: Table, key: np.uint64, tag: np.uint32) -> np.int64:
    """A new row. The key must be absent, and the table not full."""
    state = table.state
    row = state[FREE_HEAD] - 1
    if row >= 0:
        state[FREE_HEAD] = table.following[row]
    else:
        row = state[USED]
        state[USED] += 1
    state[LIVE] += 1
    if state[LIVE] > state[BUCKETS]:
        _split(table)
    table.keys[row] = key
    table.tags[row] = tag
    _push(table, row)
    return np.int64(row)


@bare
def delete(table: Table, row: Int) -> None:
    """Free a row that is in use."""
    heads, following, state = table.heads, table.following, table.state
    bucket = _bucket(table, table.keys[row], table.tags[row])
    at = np.int64(heads[bucket]) - 1
    if at == row:
        heads[bucket] = following[row]
    else:
        while following[at] != row + 1:
            at = np.int64(following[at]) - 1
        following[at] = following[row]
    table.tags[row] = FREE
    following[row] = state[FREE_HEAD]
    state[FREE_HEAD] = row + 1
    state[LIVE] -= 1


@bare
def _bucket(table: Table, key: np.uint64, tag: np.uint32) -> np.int64:
    """Where a row belongs: both parts of its key, mixed (the finaliser of MurmurHash3)."""
    mixed = key ^ (np.uint64(tag) * np.uint64(0x9E3779B97F4A7C15))
    mixed ^= mixed >> np.uint64(33)
    mixed *= np.uint64(0xFF51AFD7ED558CCD)
    mixed ^= mixed >> np.uint64(33)
    mixed *= np.uint64(0xC4CEB9FE1A85EC53)
    mixed ^= mixed >> np.uint64(33)
    bucket = np.int64(mixed & np.uint64(table.state[MASK]))
    return bucket if bucket < table.state[BUCKETS] else bucket & (table.state[MASK] >> 1)


@bare
def _push(table: Table, row: Int) -> None:
    bucket = _bucket(table, table.keys[row], table.tags[row])
    table.following[row] = table.heads[bucket]
    table.heads[bucket] = row + 1


@bare
def _split(table: Table) -> None:
    """One bucket more: it takes its rows from the one that has stood in for it."""
    state = table.state
    row = np.int64(table.heads[state[BUCKETS] & (state[MASK] >> 1)]) - 1
    table.heads[state[BUCKETS] & (state[MASK] >> 1)] = 0
    state[BUCKETS] += 1
    if state[BUCKETS] > state[MASK]:
        state[MASK] = 2 * state[MASK] + 1
    while row >= 0:
        after = np.int64(table.following[row]) - 1
        _push(table, row)
        row = after
