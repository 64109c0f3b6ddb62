"""A calibrated guess of log TTFT that a model has to beat: linear least squares, row by row, that forgets.

Kept as A = sum of x xT and b = sum of x y, both fading with each row; where they are solved, a small ridge is added to
A: numbers that stop varying blow nothing up. River's LinearRegression is not used: on made-up rows of this kind it
erred by .74 (log, rows 100 to 1,000) where this errs by .50, and by 1e12 at a learning rate of .05; on scaled numbers
it erred by .51, but by 2.2 over the first hundred rows, where this errs by .62.

Which covariates depends on the question. `at_pick` knows the endpoint that was picked: as much as the rule sees of it,
to judge predictions by. `before_pick` knows nothing of the choice: to compare who chose. Were it told of the endpoint,
it would forgive a bad choice by expecting its outcome.
"""

import math
from collections.abc import Sequence
from operator import mul

import numpy as np
from numpy.typing import NDArray

from picker.engines.kernels import bare
from picker.engines.rows import Column, Rows

Matrix = NDArray[np.float64]

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
        self._squares, self._products = np.zeros((size, size)), np.zeros(size)
        self._coefficients: list[float] = [0.0] * size
        self._rows = 0
        self._solve_at = 1

    def predict(self, covariates: Sequence[float]) -> float:
        """Log TTFT, ms; 0 before the first row."""
        if self._rows >= self._solve_at:
            self._coefficients = np.linalg.solve(self._squares + self._ridge, self._products).tolist()
            # Few more rows change little where there are many.
            self._solve_at = self._rows + 1 + min(self._rows // 20, 20)
        return math.fsum(map(mul, self._coefficients, covariates))

    def learn(self, covariates: Sequence[float], log_ttft: float) -> None:
        """A finished request. Rows with a number that is not finite are left out."""
        if math.isfinite(log_ttft + sum(covariates)):
            _fold(self._squares, self._products, np.array(covariates), log_ttft, self._keep)
            self._rows += 1


@bare
def _fold(squares: Matrix, products: Column, x: Column, y: float, keep: float) -> None:
    for i in range(len(x)):
        products[i] = products[i] * keep + x[i] * y
        for j in range(len(x)):
            squares[i, j] = squares[i, j] * keep + x[i] * x[j]


def warm() -> None:
    """Compile, or load what an earlier process compiled."""
    Baseline(1).learn([1.0], 0.0)


def at_pick(new_tokens: float, batch: float) -> tuple[float, float, float]:
    """What the rule knows of the endpoint that was picked."""
    return 1.0, math.log1p(max(new_tokens, 0.0)), math.log1p(max(batch, 0.0))


def before_pick(prompt_tokens: float, rows: Rows) -> tuple[float, float, float, float, float]:
    """What is known of a request and of the pool whoever picks; needs at least one row."""
    return (
        1.0,
        math.log1p(max(prompt_tokens, 0.0)),
        math.log1p(float(np.minimum.reduce(rows.new_tokens))),
        math.log1p(float(np.add.reduce(rows.batch)) / len(rows)),
        math.log1p(float(np.add.reduce(rows.queued_tokens)) / len(rows)),
    )
