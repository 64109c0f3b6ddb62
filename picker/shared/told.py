"""What a worker told and the index of all does not hold yet, read off the worker's own ring.

So it sees its own picks at once, and while there is no collector. An entry counts until the index has it, its endpoint
is gone or its time is over, and while it is among the latest.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from picker.engines.bundle import Bundle, bundling
from picker.engines.kernels import bare, kernel
from picker.engines.linear_hashing import plain
from picker.engines.rows import Column
from picker.pool.view import Slots
from picker.requests.request import Chain
from picker.shared.placements import FIRST, LENGTH, RECENT, START, TOLD, WORDS, Ring, RingSize, local_ring, tell

MOST = 1024
"""Entries that a lookup goes through, the latest: what a worker places in a second or two."""


class _Entries(NamedTuple):
    """What the kernels work on."""

    ring: Ring
    slots: NDArray[np.int64]
    """Per entry: whose placement it is, by our own slots; -1 of one that does not count."""
    at: NDArray[np.float64]
    """Per entry: seconds."""


class Told:
    """The writer's side of a ring. What was told before, by a process that had the ring, does not count."""

    def __init__(self, ring: Ring) -> None:
        self._entries = _no_entries(ring)
        self.bundle: Bundle = _bundled(self._entries)
        """For `deepen`; it keeps nothing alive."""

    def tell(self, slot: int, key: np.uint64, recent: bool, chain: Chain, now: float) -> None:
        """A prompt of these blocks went to `slot`, where the endpoint of this key is."""
        _tell(self.bundle, slot, key, recent, plain(chain), now)

    def clear(self, slot: int) -> None:
        """Nothing that was told of this slot counts: its endpoint is gone."""
        slots = self._entries.slots
        slots[slots == slot] = -1


def _no_entries(ring: Ring) -> _Entries:
    return _Entries(ring, np.full(len(ring.entries), -1), np.zeros(len(ring.entries)))


_bundled, _unbundled = bundling(_no_entries(local_ring(RingSize(1, 1))))


@bare
def _tell(told: Bundle, slot: int, key: np.uint64, recent: bool, chain: Chain, now: float) -> None:
    entries = _unbundled(told)
    entry = entries.ring.head[TOLD] % len(entries.slots)
    entries.slots[entry] = slot
    entries.at[entry] = now
    tell(entries.ring, key, recent, chain)


@kernel
def deepen(told: Bundle, known: int, recent: bool, since: float, chain: Chain, slots: Slots, depths: Column) -> None:
    """Raise `depths`, shape (N,), to the leading blocks of `chain` that were told of each slot at `since` or later.

    The first `known` entries are in the index. Hashes of blocks are those of all that leads up to them, so that one
    that is found speaks for those before it.
    """
    entries = _unbundled(told)
    ring, room, words = entries.ring, len(entries.slots), len(entries.ring.words)
    last = ring.head[TOLD]
    reached = np.zeros(0, np.int64)
    for number in range(last - 1, max(known, last - min(MOST, room), 0) - 1, -1):
        entry = number % room
        if ring.entries[entry, FIRST] != chain[0] or entries.slots[entry] < 0 or entries.at[entry] < since:
            continue
        start, length = np.int64(ring.entries[entry, START]), ring.entries[entry, LENGTH]
        if start + words < ring.head[WORDS]:
            break  # overwritten, and so are those before
        if (length & RECENT != np.uint64(0)) != recent:
            continue
        if len(reached) == 0:
            reached = np.zeros(slots.max() + 1, np.int64)
        slot, most = entries.slots[entry], min(np.int64(length & ~RECENT), len(chain))
        if slot < len(reached):
            while reached[slot] < most and ring.words[(start + reached[slot]) % words] == chain[reached[slot]]:
                reached[slot] += 1
    if len(reached):
        for j in range(len(slots)):
            if slots[j] >= 0:
                depths[j] = max(depths[j], np.float64(reached[slots[j]]))
