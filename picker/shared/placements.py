"""Placements: which blocks a worker's picks sent where, told to the collector through a ring in shared memory.

One writer, one reader, neither waits for the other. Entries name the words where their hashes lie; both are numbered
from the start of the ring's life. The writer says which words it is about to overwrite, writes, and then counts the
entry; the reader copies, and keeps what was not overwritten meanwhile by those two counts (as in `rows`, after Lameter
2005). Whoever is overrun loses the oldest entries and knows how many. A writer that dies in the middle leaves the ring
as it was; the next one goes on from there.
"""

from mmap import mmap
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from picker.engines.fence import fence
from picker.engines.kernels import bare
from picker.engines.linear_hashing import Int, anonymous
from picker.requests.request import Chain
from picker.shared.memory import Kept, mapped
from picker.shared.rows import Counts, Keys

TOLD, WORDS = 0, 1
KEY, START, LENGTH, FIRST = 0, 1, 2, 3
RECENT = np.uint64(1 << 63)
_HEAD_BYTES = 64


class RingSize(NamedTuple):
    """How many entries a ring keeps, and how many hashes. A longer chain is told by its leading hashes."""

    entries: int = 4096
    words: int = 1 << 18

    @property
    def nbytes(self) -> int:
        """Bytes of such a ring."""
        return _HEAD_BYTES + 8 * (4 * self.entries + self.words)


USUAL = RingSize()


class Ring(NamedTuple):
    """One ring, for the kernels."""

    head: NDArray[np.int64]
    """Entries told so far, and words given out so far."""
    entries: NDArray[np.uint64]
    """Shape (entries, 4), entry i in row i % entries: the endpoint's key, the number of its first word, its words with
    the highest bit for a recent one, and the first of them."""
    words: NDArray[np.uint64]
    """Word i is at i % words."""


class Batch(NamedTuple):
    """Placements in the order in which they were told."""

    keys: Keys
    """Shape (placements,): of their endpoints."""
    recent: NDArray[np.bool_]
    """Shape (placements,): for the memory of the latest picks, not for the index of all."""
    ends: NDArray[np.int64]
    """Shape (placements,): where the hashes of each end in `blocks`; they begin where those before end."""
    blocks: Chain
    """The hashes of all."""


def keep_ring(folder: Path, name: str, size: RingSize = USUAL) -> Kept:
    """A new ring, empty. Raises OSError."""
    return Kept(folder, name, size.nbytes)


def ring_of(folder: Path, name: str, size: RingSize = USUAL, *, writes: bool = False) -> Ring:
    """The ring of this name. At most one process may write to it. Raises OSError, ValueError as `mapped` does."""
    return _ring(mapped(folder, name, size.nbytes, writes=writes), size)


def local_ring(size: RingSize = USUAL) -> Ring:
    """An empty ring of this process alone."""
    return _ring(anonymous(size.nbytes), size)


def keep_known(folder: Path, name: str, rings: int) -> Kept:
    """Where a reader says, per ring, how many of its entries it has made known. Raises OSError."""
    return Kept(folder, name, 8 * rings)


def known_of(folder: Path, name: str, rings: int, *, writes: bool = False) -> Counts:
    """These counts, shape (rings,). Raises OSError, ValueError as `mapped` does."""
    return np.frombuffer(mapped(folder, name, 8 * rings, writes=writes), np.int64)


def _ring(memory: mmap, size: RingSize) -> Ring:
    words_at = _HEAD_BYTES + 32 * size.entries
    return Ring(
        np.frombuffer(memory, np.int64, 2),
        np.frombuffer(memory, np.uint64, 4 * size.entries, _HEAD_BYTES).reshape(size.entries, 4),
        np.frombuffer(memory, np.uint64, size.words, words_at),
    )


class RingReader:
    """The reader's side. Begins with the oldest entry that is still there."""

    def __init__(self, ring: Ring, most: int = 1024) -> None:
        """`most`: entries of one batch."""
        self._ring = ring
        self.at = max(0, int(ring.head[TOLD]) - len(ring.entries) + 1)
        """Entries that were taken or lost."""
        self._batch = Batch(
            np.zeros(most, np.uint64),
            np.zeros(most, np.bool_),
            np.zeros(most, np.int64),
            np.zeros(len(ring.words), np.uint64),
        )
        self.lost = 0
        """Entries that were overwritten before they were read, or made no sense."""

    def take(self) -> Batch | None:
        """What was told since the last time, or as much of it as fits; None where nothing was. Good until the next."""
        if int(self._ring.head[TOLD]) == self.at:
            return None
        batch = self._batch
        at, count, lost = _take(self._ring, self.at, *batch)
        self.at = int(at)
        self.lost += int(lost)
        words = int(batch.ends[count - 1]) if count else 0
        return Batch(batch.keys[:count], batch.recent[:count], batch.ends[:count], batch.blocks[:words])


@bare
def tell(ring: Ring, key: np.uint64, recent: bool, chain: Chain) -> None:
    """A prompt of these blocks, contiguous, went to the endpoint of this key. The writer's side."""
    head, entry = ring.head, ring.head[TOLD] % len(ring.entries)
    start, length = head[WORDS], min(len(chain), len(ring.words))
    head[WORDS] = start + length
    fence()  # who still copies what is overwritten now must find this count, or that of the entry before
    for i in range(length):
        ring.words[(start + i) % len(ring.words)] = chain[i]
    ring.entries[entry, KEY] = key
    ring.entries[entry, START] = np.uint64(start)
    ring.entries[entry, LENGTH] = np.uint64(length) | (RECENT if recent else np.uint64(0))
    ring.entries[entry, FIRST] = chain[0] if length > 0 else np.uint64(0)
    fence()
    head[TOLD] += 1


@bare
def _take(
    ring: Ring,
    at: Int,
    keys: Keys,
    recent: NDArray[np.bool_],
    ends: NDArray[np.int64],
    blocks: Chain,
) -> tuple[Int, int, Int]:
    """Copy entries from `at` on: the next one to read, how many were copied, and how many are lost."""
    room, words = len(ring.entries), len(ring.words)
    told = ring.head[TOLD]
    fence()
    first = max(at, told - room + 1) if told >= at else told
    lost, count, end = first - at if told >= at else 0, 0, np.int64(0)
    at = first
    while at < told and count < len(keys):
        entry = at % room
        key, length = ring.entries[entry, KEY], ring.entries[entry, LENGTH]
        start, size = np.int64(ring.entries[entry, START]), np.int64(length & ~RECENT)
        if 0 <= size <= words and end + size > len(blocks):
            break
        good = 0 <= size <= words and start >= 0
        if good:
            for i in range(size):
                blocks[end + i] = ring.words[(start + i) % words]
        fence()
        good = good and ring.head[TOLD] - at < room and start + size <= ring.head[WORDS] <= start + words
        if good:
            keys[count], recent[count] = key, length & RECENT != np.uint64(0)
            end += size
            ends[count] = end
            count += 1
        else:
            lost += 1
        at += 1
    return at, count, lost
