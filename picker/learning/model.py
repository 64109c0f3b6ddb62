"""A trained model: plain arrays, never changed, swapped whole by one reference.

    TTFT = max(own, line - head) x exp(trees) x exp(correction)
    TPOT = base x exp(trees) x exp(correction)

where `line` is the base's time from when the prefill first in line began until our own first token, `head` how much of
that has passed, and `own` what is left of it once everybody in line is done.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from picker.learning.features import OWN_TERMS, Features, Matrix
from picker.learning.forest import Forest, predict

LEAST_MS = 0.1
TTFT_BOUND, TPOT_BOUND = 1.5, 1.0
"""Largest say of the trees, in log: beyond it they speak of what they have not seen."""

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Correction:
    """What an endpoint's last rows say beyond the shared model: mean log residuals, nan where unknown, over how many
    rows."""

    log_ttft: float
    log_tpot: float
    rows: int


NOT_CORRECTED = Correction(math.nan, math.nan, 0)


@dataclass(frozen=True, slots=True)
class Model:
    """Base coefficients by hardware class, trees on the log of what the base misses, and how far it was trained."""

    version: int
    rows: int
    """Rows it was trained on."""
    ttft_base: Matrix
    """Shape (MAX_HARDWARE, TTFT_TERMS), ms per unit, not negative."""
    tpot_base: Matrix
    """Shape (MAX_HARDWARE, TPOT_TERMS)."""
    ttft_trees: Forest
    tpot_trees: Forest
    lowest: NDArray[np.float32]
    """Shape (TREE_FEATURES,): least value of each feature in the rows trained on."""
    highest: NDArray[np.float32]
    corrections: Mapping[int, Correction] = field(default_factory=dict)
    """By endpoint number."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The shared model's word on N endpoints, before corrections; each of shape (N,)."""

    log_ttft: Vector
    """Log of ms."""
    log_tpot: Vector


def estimate(model: Model, known: Features, hardware: NDArray[np.intp]) -> Estimate:
    """Predict for N endpoints of these classes. This is the meaning; picks run `picker.learning.kernel`."""
    base = base_ttft(model.ttft_base, known.ttft_terms, known.head_ms, hardware)
    trees = known.trees.astype(np.float32)
    ttft = np.log(base) + np.clip(predict(model.ttft_trees, trees), -TTFT_BOUND, TTFT_BOUND)
    tpot = np.log(base_tpot(model.tpot_base, known.tpot_terms, hardware))
    return Estimate(ttft, tpot + np.clip(predict(model.tpot_trees, trees), -TPOT_BOUND, TPOT_BOUND))


def base_ttft(base: Matrix, terms: Matrix, head_ms: Vector, hardware: NDArray[np.intp]) -> Vector:
    """TTFT in ms, (N,), by the base alone; `terms` is (TTFT_TERMS, N)."""
    parts = base[hardware].T * terms
    left: Vector = np.maximum(parts[list(OWN_TERMS)].sum(axis=0), parts.sum(axis=0) - head_ms)
    return np.maximum(left, LEAST_MS)


def waits(base: Matrix, terms: Matrix, head_ms: Vector, hardware: NDArray[np.intp]) -> tuple[Vector, Vector]:
    """How long the line is before a request's own prefill, and that prefill on an idle engine, both ms, (N,)."""
    usual = terms.copy()
    usual[len(OWN_TERMS) :] = 0.0
    alone = base_ttft(base, usual, np.zeros_like(head_ms), hardware)
    return np.maximum(0.0, base_ttft(base, terms, head_ms, hardware) - alone), alone


def base_tpot(base: Matrix, terms: Matrix, hardware: NDArray[np.intp]) -> Vector:
    """TPOT in ms, (N,), by the base alone; `terms` is (TPOT_TERMS, N)."""
    whole: Vector = (base[hardware].T * terms).sum(axis=0)
    return np.maximum(whole, LEAST_MS)
