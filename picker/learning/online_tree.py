"""River's trees as the other predictor: what the physical base misses, learned row by row, with no one who trains.

Each is a Hoeffding adaptive tree (Bifet and Gavaldà 2009): it splits a leaf once enough rows agree how, watches its
branches for drift, and replaces those that err by ones grown meanwhile. The price is Python's: trees are walked
endpoint by endpoint. `docs/learning.md` says how they compare with LightGBM's.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from river.tree import HoeffdingAdaptiveTreeRegressor
from river.tree.splitter import TEBSTSplitter

LIFETIME = 20_000
"""Rows after which a tree, which only grows, gives way to one that has been learning since half of them."""
DEPTH = 8
LARGEST = 2.0
"""Of a log residual, learned or said."""
_DIGITS = 1
"""Of a feature's values on their compressed scale: closer ones are told apart by no split. River's other splitter that
is bounded, QOSplitter, finds no split between two values alone, which is what hardware classes have."""
_FARTHEST = 1e9

Features = NDArray[np.floating]
Row = dict[int, float]


class Regressor(Protocol):
    """What is used of River's."""

    def learn_one(self, x: Row, y: float) -> None: ...
    def predict_one(self, x: Row) -> float: ...


class OnlineTrees:
    """A tree for the log residual of TTFT, another for that of TPOT; in memory bounded by depth, step and lifetime.

    Numbers that are not finite are never learned, and predicted to be 0: the base as it is.
    """

    def __init__(self, seed: int = 0, *, lifetime: int = LIFETIME) -> None:
        """Equal seeds and rows give equal predictions."""
        self._ttft, self._tpot = _Line(seed, lifetime), _Line(seed + 1, lifetime)

    def learn(self, features: Features, log_residual_ttft: float, log_residual_tpot: float) -> None:
        """One row came to its end. `features`: (F,); residuals: log of measured over the base's, nan where unknown."""
        row = _row(features)
        if row is not None:
            self._ttft.learn(row, log_residual_ttft)
            self._tpot.learn(row, log_residual_tpot)

    def predict(self, features: Features) -> NDArray[np.float32]:
        """Log residuals of TTFT and TPOT on each of N endpoints, shape (2, N); `features`: (F, N)."""
        rows = [_row(endpoint) for endpoint in np.asarray(features).T]
        return np.array(
            [[0.0 if row is None else line.predict(row) for row in rows] for line in (self._ttft, self._tpot)],
            np.float32,
        )


class _Line:
    """A tree and, in the second half of its life, its heir."""

    def __init__(self, seed: int, lifetime: int) -> None:
        self._seed, self._lifetime = seed, lifetime
        self._tree, self._heir = _tree(seed), _tree(seed)
        self._age = 0

    def learn(self, row: Row, residual: float) -> None:
        if not np.isfinite(residual):
            return
        told = min(max(residual, -LARGEST), LARGEST)
        self._tree.learn_one(row, told)
        self._age += 1
        if self._age > self._lifetime // 2:
            self._heir.learn_one(row, told)
        if self._age >= self._lifetime:
            self._tree, self._heir, self._age = self._heir, _tree(self._seed), self._lifetime // 2

    def predict(self, row: Row) -> float:
        return min(max(self._tree.predict_one(row), -LARGEST), LARGEST)


def _tree(seed: int) -> Regressor:
    return HoeffdingAdaptiveTreeRegressor(
        grace_period=200,
        bootstrap_sampling=False,
        max_depth=DEPTH,
        delta=0.01,
        leaf_prediction="mean",
        splitter=TEBSTSplitter(_DIGITS),
        seed=seed,
    )


def _row(features: Features) -> Row | None:
    """As River wants it, on a scale that is even near 0 and logarithmic far out; None where a number is not finite."""
    if not np.isfinite(features).all():
        return None
    compressed = np.arcsinh(np.clip(features, -_FARTHEST, _FARTHEST))
    return dict(enumerate(compressed.tolist()))
