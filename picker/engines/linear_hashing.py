"""A hash table in numpy arrays: key u64 -> row, for machine-speed kernels and no Python object per row.

Linear hashing (Litwin 1980): each insertion beyond 3 rows per 2 buckets splits one bucket, so that the table grows a
row at a time and no insertion ever waits for a rehash. Rows lie densely in creation order and freed ones are reused;
what a row holds beside its key is up to the caller, and lies beside it in memory, since each row met is a cache miss;
kernels see each field as an array of its own. All memory is reserved at once and resident only as far as it is used.

One process writes. Others that map the memory may read along with `seek`, without a lock: a link always leads to some
row of the table, and a count of changes tells a search that found nothing whether to look again.
"""

import mmap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from picker.engines.fence import fence
from picker.engines.kernels import bare, inlined
from picker.engines.prefetch import prefetch

Int = int | np.int64
"""What kernels count with: numba makes a signed 64-bit number of either."""

LIVE, USED, FREE_HEAD, BUCKETS, MASK, SALT, LINKS = range(7)
"""Fields of `Table.state`: rows in use, rows ever used, head of the free list (row + 1, 0 when empty), buckets, one
less than the power of two above the number of buckets, the salt of `folded`, and a count of changes to the links, odd
while one is under way."""
DEFAULT_SALT = 0x9E3779B97F4A7C15
_SPLITS_AHEAD = 8
"""Whose rows are asked for early."""
_STEPS, _TRIES = 64, 4
"""A reader in another process follows so many links at most, and looks so often for what it cannot find."""

Take = Callable[[int], Any]
"""Gives so many bytes of memory: a writable buffer of zeros."""


class Table(NamedTuple):
    """One table, for the kernels below."""

    heads: NDArray[np.uint32]
    """Per bucket: first row + 1, or 0."""
    keys: NDArray[np.uint64]
    """Per row."""
    following: NDArray[np.uint32]
    """Per row: next row + 1 of the same bucket, or of the free list; or 0."""
    state: NDArray[np.int64]

    @property
    def nbytes(self) -> int:
        """Bytes in use, but for what the caller keeps beside the key."""
        return 12 * int(self.state[USED]) + 4 * int(self.state[BUCKETS])


def plain(array: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The array as kernels were compiled for it: a read-only or strided one would make numba compile them anew."""
    return array if array.flags.carray else np.array(array)


_NO_RESERVE = 0x4000
"""Linux's MAP_NORESERVE, for which Python's mmap has no name before 3.13."""


def anonymous(size: int) -> mmap.mmap:
    """Zeros, none of them resident or promised: they may be more than the machine has, and a process may still fork.
    Not numpy's own memory, which would ask for huge pages."""
    return mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE)


def reserved(rows: int, dtype: type[np.generic], take: Take = anonymous) -> NDArray[Any]:
    """Zeros, resident as far as they are used."""
    return np.frombuffer(take(max(rows, 1) * np.dtype(dtype).itemsize), dtype)


def interleaved(rows: int, dtypes: Sequence[type[np.generic]], take: Take = anonymous) -> tuple[NDArray[Any], ...]:
    """Zeros as of `reserved`, one array per field, the fields of a row side by side."""
    fields = np.dtype([(str(i), dtype) for i, dtype in enumerate(dtypes)], align=True)
    whole = np.frombuffer(take(max(rows, 1) * fields.itemsize), fields)
    return tuple(whole[str(i)] for i in range(len(dtypes)))


def table_in(take: Take, rows: int, *more: type[np.generic]) -> tuple[Table, tuple[NDArray[Any], ...]]:
    """The table for at most `rows` rows, below 2**32, that lies in this memory, and one array for each field more that
    a row has."""
    state, heads, following = (
        reserved(count, dtype, take) for count, dtype in ((8, np.int64), (rows, np.uint32), (rows, np.uint32))
    )
    keys, *fields = interleaved(rows, (np.uint64, *more), take)
    return Table(heads, keys, following, state), tuple(fields)


def empty_table(
    rows: int, *more: type[np.generic], take: Take = anonymous, salt: int = DEFAULT_SALT
) -> tuple[Table, tuple[NDArray[Any], ...]]:
    """A new table in memory that is all zeros. `salt`, odd, keeps apart what `folded` lays together."""
    table, fields = table_in(take, rows, *more)
    table.state[[BUCKETS, MASK]] = 1
    table.state[SALT] = np.uint64(salt | 1).astype(np.int64)
    return table, fields


@bare
def folded(table: Table, key: np.uint64, tag: Int) -> np.uint64:
    """Key and tag (not negative) as one key. Tags of one key lie in buckets side by side, mostly on one cache line.

    The key is mixed with the salt (the finaliser of MurmurHash3) and the tag laid upon it. Two pairs meet by chance
    only, about once in 2**64 pairs of them, unless somebody knows the salt.
    """
    mixed = key ^ np.uint64(table.state[SALT])
    mixed ^= mixed >> np.uint64(33)
    mixed *= np.uint64(0xFF51AFD7ED558CCD)
    mixed ^= mixed >> np.uint64(33)
    mixed *= np.uint64(0xC4CEB9FE1A85EC53)
    mixed ^= mixed >> np.uint64(33)
    return mixed ^ np.uint64(tag)


@bare
def unfolded(table: Table, key: np.uint64, tag: Int) -> np.uint64:
    """The key that `folded` made this one of, with the same tag."""
    mixed = key ^ np.uint64(tag)
    mixed ^= mixed >> np.uint64(33)
    mixed *= np.uint64(0x9CB4B2F8129337DB)
    mixed ^= mixed >> np.uint64(33)
    mixed *= np.uint64(0x4F74430C22A54005)
    mixed ^= mixed >> np.uint64(33)
    return mixed ^ np.uint64(table.state[SALT])


@bare
def find(table: Table, key: np.uint64) -> np.int64:
    """The row, or -1."""
    row = np.int64(table.heads[_bucket(table, key)]) - 1
    while row >= 0 and table.keys[row] != key:
        row = np.int64(table.following[row]) - 1
    return row


@inlined
def expect(table: Table, key: np.uint64) -> None:
    """Have the key's bucket at hand when it is asked for."""
    prefetch(table.heads, _bucket(table, key))


@inlined
def expect_row(table: Table, key: np.uint64) -> None:
    """As `expect`, some time after it: have the first row of the bucket at hand."""
    row = np.int64(table.heads[_bucket(table, key)]) - 1
    prefetch(table.keys, row)
    prefetch(table.following, row)


@inlined
def glance(table: Table, key: np.uint64) -> np.int64:
    """As `find`, beside a process that changes the table: -1 also where the row is on the move."""
    row = np.int64(table.heads[_bucket(table, key)]) - 1
    for _ in range(_STEPS):
        if row < 0 or table.keys[row] == key:
            return row
        row = np.int64(table.following[row]) - 1
    return np.int64(-1)


@bare
def seek(table: Table, key: np.uint64) -> np.int64:
    """As `find`, beside a process that changes the table: -1 also where too much changes to be sure.

    A row that is found may be another key's a moment later: look at `keys` again after what is read of it.
    """
    for _ in range(_TRIES):
        links = table.state[LINKS]
        fence()
        row = glance(table, key)
        fence()
        if row >= 0 or (table.state[LINKS] == links and links & 1 == 0):
            return row
    return np.int64(-1)


@bare
def insert(table: Table, key: np.uint64) -> np.int64:
    """A new row. The key must be absent, and the table not full."""
    state = table.state
    state[LINKS] += 1
    fence()
    row = state[FREE_HEAD] - 1
    if row >= 0:
        state[FREE_HEAD] = table.following[row]
    else:
        row = state[USED]
        state[USED] += 1
    state[LIVE] += 1
    if 2 * state[LIVE] > 3 * state[BUCKETS]:
        _split(table)
    table.keys[row] = key
    _push(table, row)
    fence()
    state[LINKS] += 1
    return np.int64(row)


@bare
def delete(table: Table, row: Int) -> None:
    """Free a row that is in use."""
    heads, following, state = table.heads, table.following, table.state
    state[LINKS] += 1
    fence()
    bucket = _bucket(table, table.keys[row])
    at = np.int64(heads[bucket]) - 1
    if at == row:
        heads[bucket] = following[row]
    else:
        while following[at] != row + 1:
            at = np.int64(following[at]) - 1
        following[at] = following[row]
    following[row] = state[FREE_HEAD]
    state[FREE_HEAD] = row + 1
    state[LIVE] -= 1
    fence()
    state[LINKS] += 1


@bare
def _bucket(table: Table, key: np.uint64) -> np.int64:
    """Where a row belongs, by its key as `folded` made it."""
    bucket = np.int64(key & np.uint64(table.state[MASK]))
    return bucket if bucket < table.state[BUCKETS] else bucket & (table.state[MASK] >> 1)


@bare
def _push(table: Table, row: Int) -> None:
    bucket = _bucket(table, table.keys[row])
    table.following[row] = table.heads[bucket]
    fence()
    table.heads[bucket] = row + 1


@bare
def _split(table: Table) -> None:
    """One bucket more: it takes its rows from the one that has stood in for it.

    They are parted link by link, and after each the chain of either bucket still has all of its own rows: they are
    found even where the writer is stopped on the way. (As in Triplett et al., "Resizable, scalable, concurrent hash
    tables via relativistic programming", 2011.)
    """
    keys, heads, following, state = table.keys, table.heads, table.following, table.state
    new, mask = state[BUCKETS], state[MASK]
    old = new & (mask >> 1)
    later = np.int64(heads[min(old + _SPLITS_AHEAD, new)]) - 1
    prefetch(keys, later)
    prefetch(following, later)
    first = row = np.int64(heads[old]) - 1
    while first >= 0 and np.int64(keys[first] & np.uint64(mask)) != new:
        first = np.int64(following[first]) - 1
    heads[new] = first + 1
    fence()
    state[BUCKETS] += 1
    if state[BUCKETS] > mask:
        state[MASK] = 2 * mask + 1
    stays = moves = np.int64(-1)
    while row >= 0:
        fence()
        if np.int64(keys[row] & np.uint64(mask)) == new:
            if moves >= 0:
                following[moves] = row + 1
            moves = row
        else:
            if stays >= 0:
                following[stays] = row + 1
            else:
                heads[old] = row + 1
            stays = row
        row = np.int64(following[row]) - 1
    fence()
    if stays >= 0:
        following[stays] = 0
    else:
        heads[old] = 0
    if moves >= 0:
        following[moves] = 0
