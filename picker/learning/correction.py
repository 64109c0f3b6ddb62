"""How far each endpoint is from the shared model: the log of actual over predicted latency, learned row by row.

Endpoints are told apart here and nowhere else in the model, so a slowed engine is known after a few of its own rows,
long before a model trained on everybody's says so. Per endpoint and target:

    memory    rows that the mean is made of, at most 1/RATE; a row weighs 1/memory: a plain mean at first, then
              exponential forgetting (river's EWMean, rate .12)
    evidence  rows that speak for the mean, at most MOST_EVIDENCE
    lasting   the mean, drawn towards the pool's by as much as endpoints' means are luck (`picker/learning/lasting.py`)
    shown     lasting x evidence / (evidence + 3) x 2^(-silence / half-life), clipped

Memory and evidence halve with silence too: after a long one the next row counts more than what was known before.
"""

import math

import numpy as np
from numpy.typing import NDArray
from river.stats import EWMean

from picker.engines.table import grown
from picker.learning.lasting import Lasting

TTFT, TPOT = 0, 1
BOUNDS = (1.5, 1.0)
"""Largest correction of TTFT and of TPOT, in log. One row says no more than that either."""
RATE = 0.12
PRIOR_ROWS = 3.0
MOST_EVIDENCE = 60.0
_ROWS_AFTER_DRIFT = 2.0
_NOTHING = np.zeros(2)
_NEVER = np.full(2, -np.inf)


class Corrections:
    """One log correction per slot and target. Slots below zero (the endpoint left) are ignored everywhere."""

    def __init__(self, capacity: int = 64, *, half_life_s: float = 300.0) -> None:
        """Raises ValueError unless `half_life_s` is above zero."""
        if not half_life_s > 0:
            raise ValueError("half_life_s must be above zero")
        capacity = max(capacity, 1)
        self.by_slot: NDArray[np.float32] = np.zeros((2, capacity), np.float32)
        """What to add to the log of a prediction, as of the last call: TTFT, TPOT by slot. `ensure` replaces it."""
        self._half_life_s = half_life_s
        self._mean, self._memory, self._evidence = (np.zeros((2, capacity)) for _ in range(3))
        self._since = np.full((2, capacity), -np.inf)
        self._lasting = Lasting(capacity)
        self._learners: tuple[list[EWMean | None], ...] = ([None] * capacity, [None] * capacity)

    def ensure(self, capacity: int) -> None:
        """Make room for slots below `capacity`."""
        if capacity <= self.by_slot.shape[1]:
            return
        self._mean, self._memory, self._evidence = (
            grown(columns, capacity, _NOTHING) for columns in (self._mean, self._memory, self._evidence)
        )
        self._since = grown(self._since, capacity, _NEVER)
        self._lasting.ensure(capacity)
        wider = np.zeros(self._mean.shape, np.float32)
        wider[:, : self.by_slot.shape[1]] = self.by_slot
        self.by_slot = wider
        for learners in self._learners:
            learners.extend([None] * (wider.shape[1] - len(learners)))

    def observe(self, slot: int, log_ttft_residual: float, log_tpot_residual: float, now: float) -> None:
        """A finished request: log of actual over what the shared model said, before correction. Not finite: unknown.

        `now` in seconds. Raises IndexError for a slot that there is no room for.
        """
        if slot >= 0:
            for target, residual in ((TTFT, log_ttft_residual), (TPOT, log_tpot_residual)):
                if math.isfinite(residual):
                    self._learn(target, slot, residual, now)

    def hurry(self, slot: int) -> None:
        """The endpoint drifted: the next rows weigh as much as if only two had been seen."""
        if slot >= 0:
            self._memory[:, slot] = np.minimum(self._memory[:, slot], _ROWS_AFTER_DRIFT)
            self._lasting.hurry(slot, _ROWS_AFTER_DRIFT)

    def clear(self, slot: int) -> None:
        """The endpoint left; the slot's next owner starts without a correction."""
        if slot >= 0:
            for target in (TTFT, TPOT):
                self._lasting.place(target, slot, 0.0, 0)
                self._place(target, slot, 0.0, 0, -math.inf)

    def restart(self, slot: int, log_ttft: float, log_tpot: float, count: int, now: float) -> None:
        """Start over from the mean residuals of `count` rows against a new model; not finite: from nothing."""
        if slot >= 0:
            for target, mean in ((TTFT, log_ttft), (TPOT, log_tpot)):
                rows = max(count, 0) if math.isfinite(mean) else 0
                mean = min(max(mean, -BOUNDS[target]), BOUNDS[target]) if rows else 0.0
                if rows and self._memory[target, slot]:
                    self._lasting.shift(target, slot, mean - float(self._mean[target, slot]))
                else:
                    self._lasting.place(target, slot, mean, rows)
                self._place(target, slot, mean, rows, now)

    def settle(self, now: float) -> None:
        """Weigh what lasts, and let silent corrections fade."""
        self._lasting.weigh()
        faded = self._lasting.shrunk(self._mean) * self._evidence_share(self._fade(now)) * self._fade(now)
        for target, bound in enumerate(BOUNDS):
            np.clip(faded[target], -bound, bound, out=self.by_slot[target], casting="same_kind")

    def _fade(self, now: float) -> NDArray[np.float64]:
        fade: NDArray[np.float64] = np.exp2(np.minimum(self._since - now, 0.0) / self._half_life_s)
        return fade

    def _evidence_share(self, fade: NDArray[np.float64]) -> NDArray[np.float64]:
        evidence = self._evidence * fade
        return evidence / (evidence + PRIOR_ROWS)

    def _learn(self, target: int, slot: int, residual: float, now: float) -> None:
        at, bound = (target, slot), BOUNDS[target]
        residual = min(max(residual, -bound), bound)
        fade = 2.0 ** (min(float(self._since[at]) - now, 0.0) / self._half_life_s)
        memory = min(float(self._memory[at]) * fade + 1.0, 1.0 / RATE)
        evidence = min(float(self._evidence[at]) * fade + 1.0, MOST_EVIDENCE)
        learner = self._learners[target][slot]
        if learner is None or learner.fading_factor != 1.0 / memory:
            learner = self._learners[target][slot] = _learner(1.0 / memory, float(self._mean[at]))
        learner.update(residual)
        mean = learner.get()
        self._mean[at], self._memory[at], self._evidence[at], self._since[at] = mean, memory, evidence, now
        self._lasting.observe(target, slot, residual, mean, fade)
        self._show(at)

    def _show(self, at: tuple[int, int]) -> None:
        lasting, evidence = self._lasting, float(self._evidence[at])
        middle, share = float(lasting.middle[at[0]]), float(lasting.share[at[0]])
        mean = min(max(middle + share * (float(self._mean[at]) - middle), -BOUNDS[at[0]]), BOUNDS[at[0]])
        self.by_slot[at] = mean * evidence / (evidence + PRIOR_ROWS)

    def _place(self, target: int, slot: int, mean: float, rows: int, now: float) -> None:
        at, evidence = (target, slot), min(float(rows), MOST_EVIDENCE)
        self._learners[target][slot] = None
        self._mean[at], self._memory[at], self._evidence[at] = mean, min(float(rows), 1.0 / RATE), evidence
        self._since[at] = now
        self._show(at)


def _learner(rate: float, mean: float) -> EWMean:
    """A forgetting mean that stands at `mean` and takes the next row at `rate`."""
    learner = EWMean(rate)
    learner.update(mean)
    return learner
