"""Which sequence holds which KV blocks of an engine, and what KV events tell of it."""

import numpy as np

from picker.simulator.blocks import BlockPool, Blocks
from picker.simulator.sequence import Cleared, EngineRequest, KvEvent, Removed, Sequence, Stored


class KvAccount:
    """Events are recorded only where `events` is set; they wait until they are taken."""

    def __init__(self, pool: BlockPool, block_size: int, *, events: bool) -> None:
        self.pool, self.block_size = pool, block_size
        self._events: list[KvEvent] | None = [] if events else None

    @property
    def told(self) -> bool:
        """Whether somebody wants events."""
        return self._events is not None

    def missing(self, sequence: Sequence, tokens: int) -> int:
        """Blocks it lacks to hold `tokens`."""
        return -(-tokens // self.block_size) - sequence.held

    def take(self, sequence: Sequence, count: int) -> None:
        """So many more blocks for it; the caller has checked that they are free."""
        gone, _ = self.pool.take(sequence.room(count))
        if self._events is not None and len(gone):
            self._events.append(Removed(gone))

    def store(self, sequence: Sequence, *, told: bool = True) -> None:
        """Make the blocks matchable that this step fills; as in vLLM, later requests of the same step hit them."""
        size, hashes = self.block_size, sequence.hashes
        first, last = sequence.stored // size, sequence.computed // size
        sequence.stored = last * size
        self.pool.store(sequence.blocks[first:last], hashes[first:last])
        if told and self._events is not None and first < last:
            parent = int(hashes[first - 1]) if first else None
            self._events.append(Stored(hashes[first:last], parent, sequence.request, first))

    def release(self, sequence: Sequence) -> None:
        """It holds nothing any more; what it stored stays matchable."""
        self.pool.release(sequence.blocks[: sequence.held])
        sequence.held = sequence.computed = sequence.stored = 0

    def bring(self, request: EngineRequest, tokens: int) -> bool:
        """KV of its leading tokens came from another engine: full blocks are matchable from now on, and used by nobody.
        False where the blocks in use leave no room."""
        hashes = np.asarray(request.hashes[: tokens // self.block_size], np.uint64)
        hits = self.pool.match(hashes, len(hashes))
        missing: Blocks = np.empty(len(hashes) - len(hits), np.int32)
        if len(missing) + self.pool.unused(hits) > self.pool.free:
            return False
        self.pool.claim(hits)
        gone, _ = self.pool.take(missing)
        self.pool.store(missing, hashes[len(hits) :])
        self.pool.release(np.concatenate((hits, missing)))
        if self._events is not None and len(missing):
            parent = int(hashes[len(hits) - 1]) if len(hits) else None
            self._events += [Removed(gone), Stored(hashes[len(hits) :], parent, request, len(hits))]
        return True

    def clear(self) -> bool:
        """Forget all cached blocks; refused (False) while any is in use."""
        if not self.pool.clear():
            return False
        if self._events is not None:
            self._events.append(Cleared())
        return True

    def take_events(self) -> tuple[KvEvent, ...]:
        """What was recorded since the last time."""
        if not self._events:
            return ()
        events = tuple(self._events)
        self._events.clear()
        return events
