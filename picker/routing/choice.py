"""From costs to an ordered list of endpoints."""

import numpy as np
from numpy.typing import NDArray

from picker.engines.rows import Column


def choose(cost: Column, count: int, rng: np.random.Generator) -> tuple[NDArray[np.intp], float]:
    """The `count` cheapest rows, best first, and the probability that the first one had of being first.

    Ties are drawn uniformly among exactly equal costs; rows of infinite cost are never chosen.

    >>> order, propensity = choose(np.array([3.0, 1.0, 1.0, np.inf]), 3, np.random.default_rng(0))
    >>> sorted(order[:2].tolist()), order[2].item(), propensity
    ([1, 2], 0, 0.5)
    """
    best = cost.min()
    if not np.isfinite(best):
        return np.empty(0, dtype=np.intp), 0.0
    ties = np.flatnonzero(cost == best)
    if count == 1:
        return ties[rng.integers(len(ties)) if len(ties) > 1 else 0 :][:1], 1.0 / len(ties)
    # Within equal costs the order is random: sort by (cost, noise) among the few cheapest only.
    few = min(len(cost), max(count, len(ties)))
    cheapest = np.argpartition(cost, few - 1)[:few] if few < len(cost) else np.arange(len(cost))
    order = cheapest[np.lexsort((rng.random(few), cost[cheapest]))][:count]
    return order[np.isfinite(cost[order])], 1.0 / len(ties)
