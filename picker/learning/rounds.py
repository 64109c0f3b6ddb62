"""Rounds of training that believe trees only as far as trees have proved right.

Trees grown on a few hundred rows of one burst know that burst by heart and little else, and the endpoint whose latency
they understate most is the one that gets picked. So what they may say is scaled by how well the trees of the round
before foretold the rows that were picked since: the slope of what the base missed on what the trees said, at least 0,
at most 1. The sums behind it fade, so trees of a pool that changed lose their say and win it back.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from picker.learning.experience import Experience
from picker.learning.model import Model
from picker.learning.training import Parts, corrected, fitted, missed_by_base, said_by_trees, scaled

FADE_ROWS = 1600.0
"""Rows after which an old row counts a third."""
_FEWEST = 5
_FIRST_SHARE = 0.8
"""Of the rows, in order, where there is no round before: trees of these are held against the rest."""


@dataclass(slots=True)
class Trust:
    """How far trees proved right, by target: TTFT, TPOT."""

    _together: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    _alone: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))

    @property
    def shares(self) -> tuple[float, float]:
        """What trees may say of what they would, each in 0 to 1; 0 before anything was foretold."""
        slopes = np.clip(self._together / np.maximum(self._alone, 1e-9), 0.0, 1.0)
        return float(slopes[0]), float(slopes[1])

    def learn(self, said: NDArray[np.float64], missed: NDArray[np.float64]) -> None:
        """What trees foretold of rows they had not seen, and what the base missed there: log, (2, rows), nan unknown.

        Levels are taken out: corrections see to those.
        """
        for target in range(2):
            known = ~np.isnan(missed[target])
            if np.count_nonzero(known) < _FEWEST:
                continue
            truth, word = missed[target, known], said[target, known]
            truth, word = truth - truth.mean(), word - word.mean()
            keep = np.exp(-len(word) / FADE_ROWS)
            self._together[target] = keep * self._together[target] + float(truth @ word)
            self._alone[target] = keep * self._alone[target] + float(word @ word)


class Rounds:
    """`train` of a Trainer: call with the window's rows, in order of their ends, and the round's version."""

    def __init__(self, parts: Parts) -> None:
        self.trust = Trust()
        self._parts = parts
        self._last: Model | None = None
        self._until_s = 0.0

    def __call__(self, rows: Experience, version: int) -> Model | None:
        """A model of these rows, None for too few."""
        if self._parts.trees:
            self._judge_trees(rows, version)
        model = fitted(rows, version, self._parts)
        if model is None:
            return None
        self._last, self._until_s = model, float(rows["at_s"].max())
        model = scaled(model, *self.trust.shares)
        return corrected(model, rows) if self._parts.corrections else model

    def _judge_trees(self, rows: Experience, version: int) -> None:
        last, newer = self._last, rows[rows["at_s"] > self._until_s]
        if last is None:
            cut = int(_FIRST_SHARE * len(rows))
            last, newer = fitted(rows[:cut], version, self._parts), rows[cut:]
        if last is not None and len(last.ttft_trees) and len(newer) >= _FEWEST:
            self.trust.learn(said_by_trees(last, newer), missed_by_base(last, newer))
