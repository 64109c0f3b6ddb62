"""What one process learns from and what others tell it, brought together: rows of finished picks go out to the replicas
of its pool, and theirs come in to its trainer."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from picker.engines.table import HARDWARE, EngineTable
from picker.learning.experience import EXPERIENCE, Experience
from picker.learning.model import Model
from picker.learning.telling import LAYOUT, MOST_ROWS, heard, told
from picker.pool.view import Slots
from picker.server.learning_loop import LearningLoop
from picker.shared.replicas import Finished


class Numbers(Protocol):
    """Whose rows these are."""

    def number(self, slot: int) -> int:
        """Of the endpoint in this slot."""
        ...


class Others(Protocol):
    """The way to the other replicas."""

    @property
    def slots(self) -> Mapping[int, int]:
        """Of the endpoints here, by their keys."""
        ...

    def finished(self, layout: int, slots: Slots, rows: bytes) -> None:
        """Tell them."""
        ...


class SharedLearning:
    """One pool's."""

    def __init__(self, loop: LearningLoop[Model], numbers: Numbers, table: EngineTable, others: Others) -> None:
        """The loop's rows are told from now on."""
        self._loop, self._numbers, self._table, self._others = loop, numbers, table, others
        loop.tell = self.tell

    def tell(self, rows: Experience) -> None:
        """Rows of our own picks; those of endpoints that are gone are nobody's any more."""
        slots = {self._numbers.number(slot): slot for slot in self._others.slots.values()}
        at = np.array([slots.get(number, -1) for number in rows["endpoint"].tolist()], np.intp)
        rows, at = rows[at >= 0], at[at >= 0]
        for first in range(0, len(rows), MOST_ROWS):
            batch = slice(first, first + MOST_ROWS)
            self._others.finished(LAYOUT, at[batch], told(rows[batch], self._loop.now))

    def hear(self, finished: Finished) -> None:
        """Rows of another replica's picks."""
        slots = [self._others.slots.get(key, -1) for key in finished.keys.tolist()]
        numbers = np.array([self._numbers.number(slot) if slot >= 0 else -1 for slot in slots], np.int64)
        hardware = np.where(numbers >= 0, self._table.columns[HARDWARE, slots], 0).astype(np.int64)
        try:
            if finished.layout != LAYOUT:
                raise ValueError("rows of another version")
            rows = heard(finished.rows, numbers, hardware, self._loop.now)
        except ValueError:
            rows = np.empty(0, EXPERIENCE)
        self._loop.state.unread += len(slots) - len(rows)
        self._loop.hear(rows)
