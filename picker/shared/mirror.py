"""What other processes publish about endpoints, by our own slots.

Every process gives its endpoints slots of its own, at its own time; rows are found by the endpoint's key. So a process
that learns of a change of the pool later than another one never counts one endpoint's requests as another's.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from picker.engines.bundle import Bundle, bundling
from picker.engines.kernels import bare
from picker.engines.linear_hashing import Int
from picker.pool.view import Endpoint, PoolView
from picker.shared.rows import CHANGES, USED, Block, Counts, Keys, Values, local, reading, whole


def key_of(endpoint: Endpoint) -> np.uint64:
    """Who an endpoint is, in every process: never 0."""
    return np.uint64(xxhash.xxh3_64_intdigest("\0".join((endpoint.address, endpoint.name, endpoint.uid))) or 1)


def keys_of(view: PoolView) -> Keys:
    """The key of each slot, 0 where the slot is nobody's; shape (slots,)."""
    keys = np.zeros(int(view.slots.max()) + 1 if len(view.slots) else 0, np.uint64)
    for endpoint, slot in zip(view.endpoints, view.slots.tolist(), strict=True):
        keys[slot] = key_of(endpoint)
    return keys


class Mirror:
    """The rows of several blocks, brought together by our slots: added up, or the least of them.

    `empty`, shape (width,), is the row of an endpoint of which a block has none. `least` marks the columns of which the
    least counts; the others are added up.
    """

    def __init__(self, blocks: Sequence[Block], empty: Values, least: NDArray[np.bool_]) -> None:
        self.columns: Values = np.empty((len(empty), 0))
        """Shape (width, slots), as of the last `refresh`."""
        self._blocks = list(blocks)
        self._empty, self._least = np.array(empty, np.float64), np.array(least, np.bool_)
        self.follow(PoolView(), 1)

    def follow(self, view: PoolView, capacity: int) -> None:
        """Our slots are these endpoints' from now on; there is room for `capacity` of them at least."""
        keys = keys_of(view)
        room = max(capacity, len(keys), 1)
        slots = np.flatnonzero(keys)
        order = np.argsort(keys[slots])
        blocks, width = len(self._blocks), len(self._empty)
        none = np.repeat(self._empty[:, None], room, axis=1)
        self.columns = np.where(self._least[:, None], none, none * blocks) if blocks else none
        self.changed: NDArray[np.bool_] = np.zeros(room, np.bool_)
        """Per slot: something was published since whoever looks here set it to False."""
        self._ours = _Ours(
            keys[slots][order],
            slots[order].astype(np.int64),
            self._empty,
            self._least,
            np.broadcast_to(self._empty[None, :, None], (blocks, width, room)).copy(),
            self.columns,
            self.changed,
            np.empty(width),
        )
        self._theirs = [
            _Theirs(
                reading(block),
                np.zeros(block.counts.shape, np.int64),
                np.full(block.counts.shape, -1, np.int64),
                np.full(room, -1, np.int64),
                np.array([-1, 0]),
            )
            for block in self._blocks
        ]
        theirs = [_theirs_bundled(each) for each in self._theirs]
        self.bundle = Together(_ours_bundled(self._ours), np.array(theirs) if theirs else np.zeros((0, 1), np.int64))
        """For `renew`; it keeps nothing alive."""
        self.refresh()

    @property
    def torn(self) -> int:
        """How often a row was left for the next time."""
        return sum(int(each.state[_TORN]) for each in self._theirs)

    def refresh(self) -> None:
        """Read what was published since the last time. Takes a microsecond where nothing was."""
        if self._blocks:
            renew(self.bundle)


class _Ours(NamedTuple):
    """What the rows of all blocks are brought together in."""

    keys: Keys
    """Of our endpoints, in order."""
    slots: Counts
    """Theirs."""
    empty: Values
    least: NDArray[np.bool_]
    parts: Values
    """Shape (blocks, width, slots): what each block says."""
    columns: Values
    changed: NDArray[np.bool_]
    row: Values
    """Room to copy one."""


class _Theirs(NamedTuple):
    """One block, and what was read of it."""

    block: Block
    seen: Counts
    """Per row: its publications when it was read."""
    placed: Counts
    """Per row: our slot that it was taken over into, or -1."""
    source: Counts
    """Per slot of ours: the row that was taken over into it, or -1."""
    state: Counts
    """Publications of the block when it was read, -1 where some of it is left to read; and how often that was so."""


class Together(NamedTuple):
    """A mirror, for the kernels."""

    ours: Bundle
    theirs: NDArray[np.int64]
    """Shape (blocks, words): a bundle for each."""


_SEEN, _TORN = 0, 1
_NUMBERS, _VALUES, _MARKS = np.zeros(1, np.int64), np.zeros((1, 1)), np.zeros(1, np.bool_)
_ours_bundled, _unbundled_ours = bundling(
    _Ours(np.zeros(1, np.uint64), _NUMBERS, _VALUES[0], _MARKS, _VALUES[None], _VALUES, _MARKS, _VALUES[0])
)
_theirs_bundled, _unbundled_theirs = bundling(_Theirs(reading(local(1)), _NUMBERS, _NUMBERS, _NUMBERS, _NUMBERS))


@bare
def renew(mirror: Together) -> None:
    """Read what was published since the last time."""
    for part in range(len(mirror.theirs)):
        theirs = _unbundled_theirs(mirror.theirs[part])
        changes = theirs.block.head[CHANGES]
        if changes != theirs.state[_SEEN]:
            torn = _absorb(_unbundled_ours(mirror.ours), theirs, part)
            theirs.state[_SEEN] = changes if torn == 0 else -1
            theirs.state[_TORN] += torn


@bare
def _absorb(ours: _Ours, theirs: _Theirs, part: int) -> int:
    """Take over the rows of a block that changed; how many could not be read."""
    torn = 0
    for at in range(theirs.block.head[USED]):
        if theirs.block.counts[at] == theirs.seen[at]:
            continue
        count, key = whole(theirs.block, at, ours.row)
        if count < 0:
            torn += 1
            continue
        theirs.seen[at] = count
        found = np.searchsorted(ours.keys, key)
        slot = ours.slots[found] if found < len(ours.keys) and ours.keys[found] == key else np.int64(-1)
        before = theirs.placed[at]
        if before >= 0 and before != slot and theirs.source[before] == at:
            theirs.source[before] = -1
            _take_over(ours, part, before, ours.empty)
        theirs.placed[at] = slot
        if slot >= 0:
            theirs.source[slot] = at
            _take_over(ours, part, slot, ours.row)
    return torn


@bare
def _take_over(ours: _Ours, part: int, slot: Int, row: Values) -> None:
    for i in range(len(row)):
        ours.parts[part, i, slot] = row[i]
        value = ours.parts[0, i, slot]
        for other in range(1, len(ours.parts)):
            more = ours.parts[other, i, slot]
            value = min(value, more) if ours.least[i] else value + more
        ours.columns[i, slot] = value
    ours.changed[slot] = True
