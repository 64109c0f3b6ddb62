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
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from river.stats import EWMean

from picker.learning.lasting import Lasting

TTFT, TPOT = 0, 1
BOUNDS = (1.5, 1.0)
"""Largest correction of TTFT and of TPOT, in log. One row says no more than that either."""
RATE = 0.12
PRIOR_ROWS = 3.0
MOST_EVIDENCE = 60.0
_ROWS_AFTER_DRIFT = 2.0


@dataclass(slots=True)
class _Known:
    """Of one slot and target."""

    mean: float = 0.0
    memory: float = 0.0
    evidence: float = 0.0
    since: float = -math.inf
    learner: EWMean | None = None


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
        self._known = tuple([_Known() for _ in range(capacity)] for _ in BOUNDS)
        self._lasting = Lasting(capacity)

    def ensure(self, capacity: int) -> None:
        """Make room for slots below `capacity`."""
        if capacity <= self.by_slot.shape[1]:
            return
        wider = np.zeros((2, max(capacity, 2 * self.by_slot.shape[1])), np.float32)
        wider[:, : self.by_slot.shape[1]] = self.by_slot
        self.by_slot = wider
        for known in self._known:
            known.extend(_Known() for _ in range(wider.shape[1] - len(known)))
        self._lasting.ensure(wider.shape[1])

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
            for known in self._known:
                known[slot].memory = min(known[slot].memory, _ROWS_AFTER_DRIFT)
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
                known = self._known[target][slot]
                if rows and known.memory:
                    self._lasting.shift(target, slot, mean - known.mean)
                else:
                    self._lasting.place(target, slot, mean, rows)
                self._place(target, slot, mean, rows, now)

    def settle(self, now: float) -> None:
        """Weigh what lasts, and let silent corrections fade."""
        self._lasting.weigh()
        columns = [[(each.mean, each.evidence, each.since) for each in known] for known in self._known]
        mean, evidence, since = np.array(columns).transpose(2, 0, 1)
        fade = np.exp2(np.minimum(since - now, 0.0) / self._half_life_s)
        evidence *= fade
        faded = self._lasting.shrunk(mean) * (evidence / (evidence + PRIOR_ROWS)) * fade
        for target, bound in enumerate(BOUNDS):
            np.clip(faded[target], -bound, bound, out=self.by_slot[target], casting="same_kind")

    def _learn(self, target: int, slot: int, residual: float, now: float) -> None:
        known, bound = self._known[target][slot], BOUNDS[target]
        residual = min(max(residual, -bound), bound)
        fade = 2.0 ** (min(known.since - now, 0.0) / self._half_life_s)
        known.memory = min(known.memory * fade + 1.0, 1.0 / RATE)
        known.evidence = min(known.evidence * fade + 1.0, MOST_EVIDENCE)
        known.since = now
        learner = known.learner
        if learner is None or learner.fading_factor != 1.0 / known.memory:
            learner = known.learner = _learner(1.0 / known.memory, known.mean)
        learner.update(residual)
        known.mean = learner.get()
        self._lasting.observe(target, slot, residual, known.mean, fade)
        self._show(target, slot)

    def _show(self, target: int, slot: int) -> None:
        known, lasting, bound = self._known[target][slot], self._lasting, BOUNDS[target]
        middle = lasting.middle[target]
        mean = min(max(middle + lasting.share[target] * (known.mean - middle), -bound), bound)
        self.by_slot[target, slot] = mean * known.evidence / (known.evidence + PRIOR_ROWS)

    def _place(self, target: int, slot: int, mean: float, rows: int, now: float) -> None:
        self._known[target][slot] = _Known(mean, min(float(rows), 1.0 / RATE), min(float(rows), MOST_EVIDENCE), now)
        self._show(target, slot)


def _learner(rate: float, mean: float) -> EWMean:
    """A forgetting mean that stands at `mean` and takes the next row at `rate`."""
    learner = EWMean(rate)
    learner.update(mean)
    return learner
