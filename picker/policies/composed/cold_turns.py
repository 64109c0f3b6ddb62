"""no-hit-lru-scorer: prompts that nobody holds go round, so that all caches grow alike."""

from typing import Annotated

import msgspec
import numpy as np

from picker.engines.rows import Column
from picker.policies.composed.look import Look, Members

WARM = 0.5


class NoHitLru(msgspec.Struct, frozen=True, rename="camel"):
    lru_size: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1024


class ColdTurns:
    """Ranks candidates by when they last got a prompt of which they held nothing; the `lru_size` latest are known."""

    def __init__(self, params: NoHitLru) -> None:
        self._known = params.lru_size
        self._turn = 0
        self._last: dict[int, int] = {}
        """Slot to its last turn, oldest first."""

    def __call__(self, look: Look) -> Column:
        """From 1 for whoever waits longest, or never had a turn, down to 0; 0.5 for all where anybody holds a block."""
        rows = look.rows
        if len(rows) and rows.hit_tokens.max() > 0.0:
            return np.full(len(rows), WARM)
        last = np.array([self._last.get(slot, 0) for slot in rows.slots.tolist()], dtype=np.intp)
        rank = np.empty(len(rows))
        rank[np.lexsort((rows.slots, last))] = np.arange(len(rows))
        return 1.0 - rank / max(len(rows) - 1, 1)

    def picked(self, look: Look, row: int) -> None:
        if look.rows.hit_tokens[row] > 0.0:
            return
        slot = int(look.rows.slots[row])
        self._turn += 1
        self._last.pop(slot, None)
        self._last[slot] = self._turn
        if len(self._last) > self._known:
            del self._last[next(iter(self._last))]

    def meet(self, members: Members) -> None:
        for slot in [slot for slot in self._last if slot not in members.by_slot]:
            del self._last[slot]
