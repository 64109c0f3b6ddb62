"""A calibrated guess of log TTFT that a model has to beat: linear least squares, row by row, that forgets.

Kept as A = sum of x xT and b = sum of x y, both fading with each row, and a small ridge that does not fade: numbers
that stop varying blow nothing up. River's LinearRegression is not used: on made-up rows of this kind it erred by .74
(log, rows 100 to 1,000) where this errs by .50, and by 1e12 at a learning rate of .05; on scaled numbers it erred by
.51, but by 2.2 over the first hundred rows, where this errs by .62.

Which covariates depends on the question. `at_pick` knows the endpoint that was picked: as much as the rule sees of it,
to judge predictions by. `before_pick` knows nothing of the choice: to compare who chose. Were it told of the endpoint,
it would forgive a bad choice by expecting its outcome.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from picker.engines.rows import Rows

_RIDGE = 0.01
AT_PICK, BEFORE_PICK = 3, 5
"""How many numbers `at_pick` and `before_pick` give."""


class Baseline:
    """Log TTFT as a linear function of `size` covariates."""

    def __init__(self, size: int, *, memory_rows: float = 1000.0) -> None:
        """Raises ValueError unless `size` is at least 1 and `memory_rows` above 1."""
        if size < 1 or not memory_rows > 1:
            raise ValueError("size must be at least 1 and memory_rows above 1")
        self._keep = 1.0 - 1.0 / memory_rows
        self._ridge = _RIDGE * np.eye(size)
        self._squares, self._products = self._ridge.copy(), np.zeros(size)
        self._coefficients: NDArray[np.float64] = np.zeros(size)
        self._rows = 0
        self._solve_at = 1

    def predict(self, covariates: Sequence[float]) -> float:
        """Log TTFT, ms; 0 before the first row."""
        if self._rows >= self._solve_at:
            self._coefficients = np.asarray(np.linalg.solve(self._squares, self._products), np.float64)
            # Few more rows change little where there are many.
            self._solve_at = self._rows + 1 + min(self._rows // 20, 20)
        return float(self._coefficients @ np.asarray(covariates))

    def learn(self, covariates: Sequence[float], log_ttft: float) -> None:
        """A finished request. Rows with a number that is not finite are left out."""
        x = np.asarray(covariates, np.float64)
        if math.isfinite(log_ttft) and np.isfinite(x).all():
            self._squares = self._keep * self._squares + np.outer(x, x) + (1.0 - self._keep) * self._ridge
            self._products = self._keep * self._products + x * log_ttft
            self._rows += 1


def at_pick(new_tokens: float, batch: float) -> tuple[float, float, float]:
    """What the rule knows of the endpoint that was picked."""
    return 1.0, math.log1p(max(new_tokens, 0.0)), math.log1p(max(batch, 0.0))


def before_pick(prompt_tokens: float, rows: Rows) -> tuple[float, float, float, float, float]:
    """What is known of a request and of the pool whoever picks; needs at least one row."""
    return (
        1.0,
        math.log1p(max(prompt_tokens, 0.0)),
        math.log1p(float(rows.new_tokens.min())),
        math.log1p(float(rows.batch.mean())),
        math.log1p(float(rows.queued_tokens.mean())),
    )
