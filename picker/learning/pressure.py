"""What our own picks have been doing to each endpoint lately: how fast prefill arrives there, and how long its cache
remembers. Moved at each pick, so a burst sees itself."""

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from picker.engines.rows import Column
from picker.engines.table import grown

Slots = NDArray[np.intp]

RATE_S = 20.0
"""Time constant of the prefill rate: the length of an answer or two, which is what it will disturb."""
MARKS = 64
"""An endpoint's history is kept in so many marks per cacheful."""

RATE, RATE_AT, _PLACED, TAIL_AT, _NEXT_MARK = range(5)
_NOTHING = np.array([0.0, 0.0, 0.0, np.inf, 0.0])


class Pressure:
    """Per slot; every call takes seconds of one clock."""

    def __init__(self, capacity: int = 64) -> None:
        self.columns = np.repeat(_NOTHING[:, None], max(capacity, 1), axis=1)
        """By slot: RATE as of RATE_AT, TAIL_AT the time of the oldest block, and two of its own."""
        self._marks: list[deque[tuple[float, float]]] = [deque() for _ in range(self.columns.shape[1])]

    def ensure(self, capacity: int) -> None:
        """Make room for slots below `capacity`."""
        self.columns = grown(self.columns, capacity, _NOTHING)
        self._marks.extend(deque() for _ in range(self.columns.shape[1] - len(self._marks)))

    def clear(self, slot: int) -> None:
        """Another endpoint takes this slot."""
        if slot < len(self._marks):
            self.columns[:, slot] = _NOTHING
            self._marks[slot] = deque()

    def prefill_rate(self, slots: Slots, now: float) -> Column:
        """Thousands of uncached prompt tokens per second that come to each endpoint, (N,)."""
        rate, at = self.columns[RATE : RATE_AT + 1, slots]
        faded: Column = rate * np.exp((at - now) / RATE_S)
        return faded

    def memory_s(self, slots: Slots, now: float) -> Column:
        """For how long a block that nobody asks for stays in each endpoint's cache, (N,); inf while it is not full."""
        memory: Column = np.maximum(0.0, now - self.columns[TAIL_AT, slots])
        return np.where(np.isinf(self.columns[TAIL_AT, slots]), np.inf, memory)

    def placed(self, slot: int, new_tokens: float, output_tokens: float, kv_tokens: float, now: float) -> None:
        """A pick went there: so many tokens of KV will be written; the cache holds `kv_tokens`, 0 unknown."""
        if slot >= len(self._marks):
            self.ensure(slot + 1)
        rate, rate_at, before, tail_at, next_mark = self.columns[:, slot].tolist()
        rate = rate * math.exp(min(rate_at - now, 0.0) / RATE_S) + new_tokens / 1e3 / RATE_S
        placed = before + new_tokens + output_tokens
        if kv_tokens > 0:
            marks = self._marks[slot]
            if placed >= next_mark:
                marks.append((now, placed))
                next_mark = placed + kv_tokens / MARKS
            # What was written a cacheful ago is what goes next.
            gone = placed - kv_tokens
            while len(marks) > 1 and marks[1][1] <= gone:
                marks.popleft()
            if gone > 0:
                tail_at = marks[0][0]
        self.columns[:, slot] = rate, now, placed, tail_at, next_mark
