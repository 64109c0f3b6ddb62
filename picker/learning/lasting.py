"""How much of what tells endpoints apart lasts, and how much is the hour's luck.

Requests that come together miss together: a burst that queues at one endpoint makes a run of residuals there, and a
mean of its last rows takes the run for the endpoint. So means are shrunk towards the middle of the pool, as James and
Stein do: by the share of what they vary that is found between endpoints over the long run.

    share = between / (between + noise)
    between   variance, over endpoints, of their slow means (the last 50 rows)
    noise     mean square of a fast mean about its endpoint's slow one

Like engines have no corrections then, however bursty their traffic; unlike ones keep theirs.
"""

import numpy as np
from numpy.typing import NDArray

SLOW_ROWS = 50.0
NOISE_ROWS = 500.0
_SETTLED_ROWS = 5.0
"""Of an endpoint's rows: earlier ones say nothing of noise, for both means are still the same."""
_WEIGHT_ROWS, _LEAST_WEIGHT = 10.0, 20.0
"""An endpoint counts by its rows, up to so many; before the pool has so many in all, means are taken at their word."""
_TINY = 1e-9


class Lasting:
    """Slow means by target and slot, and what follows from them for all; targets as in `Corrections`."""

    def __init__(self, capacity: int) -> None:
        self.share, self.middle = [1.0, 1.0], [0.0, 0.0]
        """By target, as of the last `weigh`: of a mean's distance from the middle, how much is believed."""
        self._mean, self._rows = ([[0.0] * capacity for _ in range(2)] for _ in range(2))
        self._noise, self._noise_rows = [0.0, 0.0], [0.0, 0.0]

    def ensure(self, capacity: int) -> None:
        """Make room for slots below `capacity`."""
        for column in (*self._mean, *self._rows):
            column.extend([0.0] * (capacity - len(column)))

    def observe(self, target: int, slot: int, residual: float, fast_mean: float, fade: float) -> None:
        """A row, and the fast mean with it; `fade`, in (0, 1], is what is left of what was known before."""
        means, counts = self._mean[target], self._rows[target]
        rows = counts[slot] = min(counts[slot] * fade + 1.0, SLOW_ROWS)
        means[slot] += (residual - means[slot]) / rows
        if rows >= _SETTLED_ROWS:
            seen = self._noise_rows[target] = min(self._noise_rows[target] + 1.0, NOISE_ROWS)
            self._noise[target] += ((fast_mean - means[slot]) ** 2 - self._noise[target]) / seen

    def hurry(self, slot: int, rows: float) -> None:
        """The endpoint became another one: its next rows weigh as much as if only so many had been seen."""
        for counts in self._rows:
            counts[slot] = min(counts[slot], rows)

    def place(self, target: int, slot: int, mean: float, rows: float) -> None:
        """Start over."""
        self._mean[target][slot], self._rows[target][slot] = mean, min(rows, SLOW_ROWS)

    def shift(self, target: int, slot: int, by: float) -> None:
        """Residuals are against another model from now on, which says so much less of this endpoint."""
        self._mean[target][slot] += by

    def weigh(self) -> None:
        """Share and middle anew, of each target of which enough is known."""
        weights = np.minimum(np.array(self._rows), _WEIGHT_ROWS)
        for target, (weight, mean) in enumerate(zip(weights, np.array(self._mean), strict=True)):
            total = float(weight.sum())
            if total < _LEAST_WEIGHT:
                continue
            middle = float(weight @ mean) / total
            between = float(weight @ (mean - middle) ** 2) / total
            self.middle[target] = middle
            self.share[target] = between / (between + self._noise[target] + _TINY)

    def shrunk(self, means: NDArray[np.float64]) -> NDArray[np.float64]:
        """`means`, (2, N), drawn towards the middle."""
        middle, share = np.array(self.middle)[:, None], np.array(self.share)[:, None]
        closer: NDArray[np.float64] = middle + share * (means - middle)
        return closer
