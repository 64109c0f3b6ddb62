"""The physical base: milliseconds as a non-negative sum of amounts of work, one set of coefficients per hardware class.

Non-negative coefficients make more work never look faster, so that the base holds where no row has been yet. It is
fitted several times, on errors relative to the larger of what was measured and what the fit before says, and with less
weight on rows far from that (Huber's weights): a few absurd latencies, long or short, do not bend it. A class leans on
the fit over all classes until it has rows of its own.
"""

import numpy as np
from numpy.typing import NDArray

from picker.engines.table import MAX_HARDWARE
from picker.learning.features import Matrix

LEAST_CLASS_ROWS = 15
_LEAN = 2.0
"""How many mean rows the fit over all classes weighs in that of one."""
_FAR = 0.5
"""Relative error from which a row weighs less."""
_ROUNDS = 3


def fit_base(terms: Matrix, target_ms: NDArray[np.float64], hardware: NDArray[np.intp]) -> Matrix:
    """Coefficients of shape (MAX_HARDWARE, K) from `terms`, (rows, K), and `target_ms`, (rows,), at least one row.

    Classes with fewer than LEAST_CLASS_ROWS rows have the coefficients of all rows together.
    """
    scale = np.maximum(np.abs(terms).mean(axis=0), 1e-9)
    scaled = terms / scale
    everyone = _fit(scaled, target_ms, None)
    base: Matrix = np.tile(everyone, (MAX_HARDWARE, 1))
    for kind in np.unique(hardware).tolist():
        own = hardware == kind
        if np.count_nonzero(own) >= LEAST_CLASS_ROWS:
            base[kind] = _fit(scaled[own], target_ms[own], everyone)
    coefficients: Matrix = base / scale
    return coefficients


def _fit(terms: Matrix, target_ms: NDArray[np.float64], prior: NDArray[np.float64] | None) -> NDArray[np.float64]:
    found, said, trust = np.zeros(terms.shape[1]), np.full(len(terms), np.median(target_ms)), np.ones(len(terms))
    for _ in range(_ROUNDS):
        weight = 1.0 / np.maximum(np.maximum(target_ms, said), 1.0)
        rows, goal = terms * weight[:, None], target_ms * weight
        lean, towards = np.empty((0, terms.shape[1])), np.empty(0)
        if prior is not None:
            strength = _LEAN * np.maximum(1e-3, rows.mean(axis=0))
            lean, towards = np.diag(strength), strength * prior
        found = _nnls(np.vstack((rows * trust[:, None], lean)), np.concatenate((goal * trust, towards)))
        said = terms @ found
        misses = np.abs(said - target_ms) / np.maximum(np.maximum(target_ms, said), 1.0)
        trust = np.sqrt(np.minimum(1.0, _FAR / np.maximum(misses, 1e-9)))
    return found


def _nnls(rows: Matrix, goal: NDArray[np.float64]) -> NDArray[np.float64]:
    # Not above: only who trains should wait for SciPy to load.
    from scipy.optimize import nnls

    found: tuple[NDArray[np.float64], float] = nnls(rows, goal, maxiter=20 * rows.shape[1])
    return found[0]
