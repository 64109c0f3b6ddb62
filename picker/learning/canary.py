"""Is the rule doing better than the model? A few picks are left to the one not in charge, and both are compared.

Per arm the mean of log TTFT beyond what was expected before the pick, each row weighted by one over the probability of
its arm, so that both means are over the same moments. Both forget alike, by time and by rows of either arm; what shakes
the whole pool shakes both.

    z = (mean of the model - mean of the rule - margin) / sqrt(variances of both means)

The margin is what a model may cost its own request for what it spares the others. z is looked at after every row: over
250 runs of 20,000 rows of equal arms (Student's t with 3 degrees of freedom, sd .6, shared shocks of sd .3) its largest
value with 30 rows in each arm was above 3 in two runs and never above 3.2, so it trips at 3.25. The way back asks for
fresh rows of both, and that the model's mean and one standard error stay within the margin.
"""

import math
from dataclasses import dataclass

from picker.learning.experience import BY_MODEL, BY_RULE

MOST_WEIGHT = 1e6
"""A pick of a smaller chance than one in so many is not compared: it would outweigh all others."""
FARTHEST = 2.0
"""Log residuals beyond this say no more than this."""


@dataclass(slots=True)
class Moments:
    """Weighted mean and variance that forget."""

    weight: float = 0.0
    squares: float = 0.0
    mean: float = 0.0
    scatter: float = 0.0

    def forget(self, keep: float) -> None:
        """All rows so far weigh `keep` times what they did."""
        self.weight *= keep
        self.squares *= keep * keep
        self.scatter *= keep

    def add(self, value: float, weight: float = 1.0) -> None:
        """A row; `weight` above zero."""
        self.weight += weight
        self.squares += weight * weight
        off = value - self.mean
        self.mean += weight / self.weight * off
        self.scatter += weight * off * (value - self.mean)

    @property
    def rows(self) -> float:
        """Effective rows (Kish): as many of equal weight would tell as much."""
        return self.weight * self.weight / self.squares if self.squares > 0 else 0.0

    @property
    def variance_of_mean(self) -> float:
        """inf below two rows."""
        rows = self.rows
        return self.scatter / self.weight / (rows - 1) if rows >= 2 else math.inf


class Canary:
    """Two arms and a verdict: `tripped` while the rule is held to be better."""

    def __init__(self, *, z: float, margin: float, fewest_rows: float, window_s: float, window_rows: float) -> None:
        self.tripped = False
        self._z, self._margin, self._fewest = z, margin, fewest_rows
        self._window_s, self._keep = window_s, 1.0 - 1.0 / window_rows
        self._arms = (Moments(), Moments())
        self._last_s: float | None = None

    def observe(self, by: int, beyond: float, weight: float, now: float) -> bool:
        """A pick `by` the rule or the model took `beyond` more log ms than was expected before it; `now` in seconds.

        Whether the verdict changed: `restart` then, once its numbers are read.
        """
        if not math.isfinite(beyond) or not 0 < weight <= MOST_WEIGHT:
            return False
        keep = self._keep
        if self._last_s is not None:
            keep *= math.exp(min(self._last_s - now, 0.0) / self._window_s)
        self._last_s = now
        for arm in self._arms:
            arm.forget(keep)
        self._arms[by].add(min(max(beyond, -FARTHEST), FARTHEST), weight)
        changed = self.enough and (self.back if self.tripped else self.z >= self._z)
        self.tripped ^= changed
        return changed

    def restart(self) -> None:
        """Compare from now on only."""
        self._arms = (Moments(), Moments())

    @property
    def rows(self) -> tuple[float, float]:
        """Effective rows by the rule and by the model."""
        return self._arms[BY_RULE].rows, self._arms[BY_MODEL].rows

    @property
    def enough(self) -> bool:
        """Whether both arms have rows enough to be compared."""
        rule, model = self._arms
        return rule.rows >= self._fewest and model.rows >= self._fewest

    @property
    def difference(self) -> float:
        """Mean log TTFT of the model's picks beyond that of the rule's: above 0 the rule is better."""
        return self._arms[BY_MODEL].mean - self._arms[BY_RULE].mean

    @property
    def error(self) -> float:
        """Standard error of the difference; inf while an arm has fewer than two rows."""
        rule, model = self._arms
        return math.sqrt(rule.variance_of_mean + model.variance_of_mean)

    @property
    def z(self) -> float:
        """How many standard errors the model is worse by than it may be; 0 while that cannot be told."""
        error = self.error
        return (self.difference - self._margin) / max(error, 1e-9) if math.isfinite(error) else 0.0

    @property
    def back(self) -> bool:
        """Whether the model is not worse: its mean and one standard error within the margin."""
        return self.difference + self.error <= self._margin
