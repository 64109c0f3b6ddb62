"""The last rows of each endpoint, to hold a new model against at once.

A model is trained on requests that have ended, which long answers do late. What first tokens have told since must not
be lost when the model changes: an engine that slowed down would be believed fast again at every round.
"""

from collections import deque
from collections.abc import Iterator

from picker.learning.experience import Experience, joined
from picker.learning.model import Correction, Model
from picker.learning.training import recent_mean, residuals

ROWS = 10


class Recent:
    """At most ROWS rows per slot, those whose first token came last. Rows may still lack their TPOT."""

    def __init__(self) -> None:
        self._rows: dict[int, deque[Experience]] = {}

    def remember(self, slot: int, row: Experience) -> None:
        """`row`, shape (1,), is kept as it is: what is written into it later counts."""
        kept = self._rows.get(slot)
        if kept is None:
            kept = self._rows[slot] = deque(maxlen=ROWS)
        kept.append(row)

    def clear(self, slot: int) -> None:
        """Another endpoint takes this slot."""
        self._rows.pop(slot, None)

    def corrections(self, model: Model) -> Iterator[tuple[int, Correction]]:
        """What each slot's rows say beyond this model."""
        if not self._rows:
            return
        left = residuals(model, joined(row for rows in self._rows.values() for row in rows))
        at = 0
        for slot, rows in self._rows.items():
            end = at + len(rows)
            yield slot, Correction(recent_mean(left[0, at:end]), recent_mean(left[1, at:end]), len(rows))
            at = end
