"""What other processes publish about endpoints, by our own slots.

Every process gives its endpoints slots of its own, at its own time; rows are found by the endpoint's key. So a process
that learns of a change of the pool later than another one never counts one endpoint's requests as another's.
"""

from collections.abc import Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from picker.engines.kernels import kernel
from picker.pool.view import Endpoint, PoolView
from picker.shared.rows import CHANGES, USED, Block, Counts, Keys, Values, whole


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
        self.torn = 0
        """Rows left for the next time."""
        self._blocks = list(blocks)
        self._empty, self._least = np.array(empty, np.float64), np.array(least, np.bool_)
        self.follow(PoolView(), 1)

    def follow(self, view: PoolView, capacity: int) -> None:
        """Our slots are these endpoints' from now on; there is room for `capacity` of them at least."""
        keys = keys_of(view)
        room = max(capacity, len(keys), 1)
        slots = np.flatnonzero(keys)
        order = np.argsort(keys[slots])
        self._slots, self._keys = slots[order].astype(np.int64), keys[slots][order]
        blocks, width = len(self._blocks), len(self._empty)
        self._parts = np.broadcast_to(self._empty[None, :, None], (blocks, width, room)).copy()
        none = np.repeat(self._empty[:, None], room, axis=1)
        self.columns = np.where(self._least[:, None], none, none * blocks) if blocks else none
        self._seen = [np.zeros(block.counts.shape, np.int64) for block in self._blocks]
        self._placed = [np.full(block.counts.shape, -1, np.int64) for block in self._blocks]
        self._source = np.full((blocks, room), -1, np.int64)
        self._changes = [-1] * blocks
        self._scratch = np.empty(width)
        self.changed: NDArray[np.bool_] = np.zeros(room, np.bool_)
        """Per slot: something was published since whoever looks here set it to False."""
        self.refresh()

    def refresh(self) -> None:
        """Read what was published since the last time. Takes a microsecond where nothing was."""
        for i, block in enumerate(self._blocks):
            changes = int(block.head[CHANGES])
            if changes == self._changes[i]:
                continue
            torn = _absorb(
                block,
                i,
                self._seen[i],
                self._placed[i],
                self._source,
                self._keys,
                self._slots,
                self._parts,
                self._empty,
                self._least,
                self.columns,
                self.changed,
                self._scratch,
            )
            self.torn += torn
            self._changes[i] = changes if not torn else -1


@kernel
def _absorb(
    block: Block,
    part: int,
    seen: Counts,
    placed: Counts,
    source: Counts,
    keys: Keys,
    slots: Counts,
    parts: Values,
    empty: Values,
    least: NDArray[np.bool_],
    columns: Values,
    changed: NDArray[np.bool_],
    row: Values,
) -> int:
    """Take over the rows of a block that changed; how many could not be read."""
    torn = 0
    for at in range(block.head[USED]):
        if block.counts[at] == seen[at]:
            continue
        count, key = whole(block, at, row)
        if count < 0:
            torn += 1
            continue
        seen[at] = count
        found = np.searchsorted(keys, key)
        slot = slots[found] if found < len(keys) and keys[found] == key else -1
        before = placed[at]
        if before >= 0 and before != slot and source[part, before] == at:
            source[part, before] = -1
            parts[part, :, before] = empty
            _combine(parts, least, columns, before)
            changed[before] = True
        placed[at] = slot
        if slot >= 0:
            source[part, slot] = at
            parts[part, :, slot] = row
            _combine(parts, least, columns, slot)
            changed[slot] = True
    return torn


@kernel
def _combine(parts: Values, least: NDArray[np.bool_], columns: Values, slot: int) -> None:
    for i in range(len(least)):
        value = parts[0, i, slot]
        for part in range(1, len(parts)):
            value = min(value, parts[part, i, slot]) if least[i] else value + parts[part, i, slot]
        columns[i, slot] = value
