"""Pickers: from total scores to costs that give the wanted draw when the lowest comes first and ties are drawn."""

from collections.abc import Callable

import numpy as np

from picker.engines.rows import Column

Picker = Callable[[Column, np.random.Generator], tuple[Column, Column | None]]
"""Total scores of shape (N,) to costs, and the chance of each to come first where it is not that of a drawn tie."""

LAST = 1e300
"""Cost of an endpoint that comes after all others, ties drawn."""


def max_score(total: Column, rng: np.random.Generator) -> tuple[Column, Column | None]:
    """The highest score first."""
    return -total, None


def uniform(total: Column, rng: np.random.Generator) -> tuple[Column, Column | None]:
    """All alike."""
    return np.zeros(len(total)), None


def weighted_random(total: Column, rng: np.random.Generator) -> tuple[Column, Column | None]:
    """Each place of the list drawn in proportion to the scores of those left; all alike where every score is 0.

    Algorithm A-Res (Efraimidis and Spirakis 2006) in logarithms: the greatest U^(1/w) is the least -log(U) / w.
    """
    weights = np.maximum(total, 0.0)
    whole = float(weights.sum())
    if whole <= 0.0:
        return uniform(total, rng)
    keys = np.full(len(total), LAST)
    np.divide(rng.exponential(size=len(total)), weights, out=keys, where=weights > 1e-290)
    return np.minimum(keys, LAST), weights / whole


PICKERS: dict[str, Picker] = {
    "max-score-picker": max_score,
    "random-picker": uniform,
    "weighted-random-picker": weighted_random,
}
