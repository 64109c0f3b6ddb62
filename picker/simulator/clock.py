"""Virtual time: what is to happen, in order. Entries of equal time happen in the order in which they were made."""

import heapq
from collections.abc import Callable
from typing import Any

Action = Callable[[Any], None]


class Clock:
    """A heap of (time, number, action, argument); times in ms."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Action, Any]] = []
        self._made = 0

    def at(self, at: float, action: Action, argument: Any) -> None:
        self._made += 1
        heapq.heappush(self._heap, (at, self._made, action, argument))

    def next_is_after(self, at: float) -> bool:
        """Whether nothing is to happen before this time."""
        return not self._heap or at <= self._heap[0][0]

    def turn(self) -> None:
        """Make the next entry happen."""
        self.now, _, action, argument = heapq.heappop(self._heap)
        action(argument)

    def clear(self) -> None:
        """Nothing will happen any more."""
        self._heap.clear()
