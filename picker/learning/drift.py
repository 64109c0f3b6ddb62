"""Notice that an endpoint has become another one: slower, faster, restarted with other settings.

River's Page-Hinkley test on the log residual beyond the shared model (before correction: a correction hides what it has
learned). Measured on one row a second of residuals with standard deviation .3, Student's t with 3 degrees of freedom,
after 200 quiet rows; false alarms over 100,000 stationary rows, t / autocorrelated by .3:

    detector                                      +.4: rows to alarm, median / P90     false alarms per 10,000 rows
    PageHinkley(10, delta .15, threshold 3)               12 / 18                              .2 / 7
    PageHinkley(10, delta .2, threshold 3)                16 / 27                              .1 / 3
    PageHinkley(defaults: 30, .005, 50)                  174 / 196                              0 / .4
    ADWIN(delta .1, every row)                            22 / 29                               0 / 3
    ADWIN(defaults: .002, every 32)                       56 / 88                               0 / 0

Page-Hinkley serves: a false alarm only makes a correction follow its rows for a while, a late one costs every request
sent there. Its sums do not fade (alpha 1): faded sums sink to where the allowance `delta` no longer holds them down.
Where residuals spread wider than .3 they are scaled down to it, by their spread over all endpoints.
"""

import math

from river.base import DriftDetector
from river.drift import PageHinkley
from river.stats import EWMean

_ALLOWANCE, _THRESHOLD, _FIRST_ROWS = 0.15, 3.0, 10
_SPREAD = 0.3
"""Standard deviation of residuals that the test is set for."""
_FARTHEST = 1.5
_LEVEL_RATE, _SPREAD_RATE = 0.05, 0.002


class Drift:
    """One detector per slot. Slots below zero (the endpoint left) are ignored."""

    def __init__(self) -> None:
        self.drifted: set[int] = set()
        """Slots that drifted since a reader last took them out: their older rows tell of another endpoint."""
        self._detectors: dict[int, DriftDetector] = {}
        self._levels: dict[int, float] = {}
        self._square = EWMean(_SPREAD_RATE)

    def observe(self, slot: int, residual: float) -> bool:
        """A finished request's log of actual over predicted TTFT, before correction; whether that is a drift.

        Not finite: no row. The detector starts anew after each drift.
        """
        if slot < 0 or not math.isfinite(residual):
            return False
        residual = min(max(residual, -_FARTHEST), _FARTHEST)
        detector = self._detectors.get(slot)
        if detector is None:
            detector = self._detectors[slot] = PageHinkley(_FIRST_ROWS, _ALLOWANCE, _THRESHOLD, alpha=1.0)
        detector.update(residual * self._scale(slot, residual))
        if detector.drift_detected:
            self.drifted.add(slot)
        return bool(detector.drift_detected)

    def clear(self, slot: int) -> None:
        """The endpoint left: what was seen of it says nothing about the slot's next owner."""
        self._detectors.pop(slot, None)
        self._levels.pop(slot, None)
        self.drifted.discard(slot)

    def _scale(self, slot: int, residual: float) -> float:
        level = self._levels.get(slot, residual)
        self._square.update((residual - level) ** 2)
        self._levels[slot] = level + _LEVEL_RATE * (residual - level)
        return min(1.0, _SPREAD / math.sqrt(max(self._square.get(), 1e-12)))
