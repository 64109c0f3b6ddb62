"""When a new model is due, and whether it is fit to take over from the one before.

Every round trains from scratch on the whole window: continued training forgets, and refitted leaves without rows drift
to "fast" (measured). Some of the newest rows are kept out of the round: on them the new model is held against the old.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from picker.engines.rows import Column
from picker.learning.experience import EXPERIENCE, Experience, sane
from picker.learning.guard import accept
from picker.learning.window import Window, of

M = TypeVar("M")

JUDGED = 5
"""One in so many new rows is kept out of the round that they make due, to judge its model by."""
FEWEST_JUDGED = 8
"""Fewer rows than these judge nobody."""
MOST_NEW = 4000
"""New rows that wait for a round; older ones of them go to the window unjudged."""


@dataclass(frozen=True, slots=True)
class Cadence:
    """When a round is due. While rows are few each fifth more of them changes the model; later time decides, where
    enough is new beside what is known: how often a full window is trained on made no measurable difference."""

    first_rows: int = 50
    growth: float = 0.2
    """New rows over rows seen that make a round due before `latest_s`."""
    soonest_s: float = 1.0
    """Between two rounds, however many rows come."""
    latest_s: float = 5.0
    """After so long `least_rows` new ones, or `least_growth` of the window, suffice."""
    least_rows: int = 20
    least_growth: float = 0.05


@dataclass(slots=True)
class Counts:
    """What a trainer did so far."""

    rows: int = 0
    """Rows taken, those of earlier included."""
    insane: int = 0
    """Rows dropped because nothing can be learned from them."""
    rounds: int = 0
    rejected: int = 0
    """Models that were worse on the latest rows than the one in use."""
    failed: int = 0
    """Rounds that gave no model."""


class Trainer(Generic[M]):
    """Rows in, models out, on the caller's clock.

    `train(rows, version)` makes a model of the whole window or None where it cannot; `errors(model, rows)` is how far a
    model is off on each row, shape (rows,), lower is better. Models of one trainer have rising versions, from
    `version` + 1 on.
    """

    def __init__(
        self,
        train: Callable[[Experience, int], M | None],
        errors: Callable[[M, Experience], Column],
        window: Window | None = None,
        cadence: Cadence = Cadence(),
        model: M | None = None,
        version: int = 0,
    ) -> None:
        """`window` may hold rows of earlier already, `model` and `version` be those in use."""
        self.window = Window() if window is None else window
        self.model = model
        self.counts = Counts(rows=len(self.window))
        self._train, self._errors, self._cadence = train, errors, cadence
        self.version = version
        """Of the latest round, whatever became of it."""
        self._new = np.empty(0, EXPERIENCE)
        self._last_s: float | None = None

    def add(self, rows: Experience) -> None:
        """Take finished picks, in order of their ends; insane ones are dropped and counted."""
        taken = rows[sane(rows)]
        self.counts.rows += len(taken)
        self.counts.insane += len(rows) - len(taken)
        new = np.concatenate((self._new, taken))
        old = max(0, len(new) - MOST_NEW)
        self.window.add(new[:old])
        self._new = new[old:]

    def forget(self, endpoint: int, before_s: float) -> None:
        """An endpoint works otherwise since `before_s`: what it did before teaches no more."""
        self.window.forget(endpoint, before_s)
        self._new = self._new[~of(self._new, endpoint, before_s)]

    def poll(self, now: float) -> M | None:
        """Train if a round is due at `now`, seconds; a model that is fit to be used, or None."""
        if not self._due(now):
            return None
        self._last_s = now
        self.version += 1
        self.counts.rounds += 1
        held_out = self._held_out()
        rows = np.concatenate((self.window.rows(), self._new[~held_out]))
        model, judging = self._train(rows, self.version), self._new[held_out]
        self.window.add(self._new)
        self._new = np.empty(0, EXPERIENCE)
        if model is None:
            self.counts.failed += 1
        elif self.model is not None and not accept(self._errors(model, judging), self._errors(self.model, judging)):
            self.counts.rejected += 1
        else:
            self.model = model
            return model
        return None

    def _held_out(self) -> NDArray[np.bool_]:
        """Which new rows judge this round's model, shape (new rows,): none without another to hold it against."""
        held_out: NDArray[np.bool_] = np.arange(len(self._new)) % JUDGED == JUDGED - 1
        return held_out & (self.model is not None and len(self._new) >= JUDGED * FEWEST_JUDGED)

    def _due(self, now: float) -> bool:
        new, seen, cadence = len(self._new), self.counts.rows, self._cadence
        if self._last_s is None:
            return seen >= cadence.first_rows
        since = now - self._last_s
        grown = new >= cadence.growth * (seen - new) and since >= cadence.soonest_s
        enough = max(cadence.least_rows, cadence.least_growth * len(self.window))
        return grown or (new >= enough and since >= cadence.latest_s)
