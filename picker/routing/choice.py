"""From costs to an ordered list of endpoints."""

import math

import numpy as np

from picker.engines.rows import Column

SPARE = 5
"""Candidates sorted beyond those asked for, so that a tie at the end of the list is seen."""


def choose(cost: Column, count: int, rng: np.random.Generator) -> tuple[list[int], float]:
    """The `count` cheapest rows, best first, and the probability that the first one had of being first.

    Equal costs are drawn uniformly, wherever they stand; rows of infinite cost are never chosen.

    >>> order, propensity = choose(np.array([3.0, 1.0, 1.0, np.inf]), 3, np.random.default_rng(0))
    >>> sorted(order[:2]), order[2], propensity
    ([1, 2], 0, 0.5)
    """
    few = count + SPARE
    rows = np.argpartition(cost, few - 1)[:few] if few < len(cost) else np.arange(len(cost))
    drawn = sorted(zip(cost[rows].tolist(), rng.random(len(rows)).tolist(), rows.tolist(), strict=True))
    if few < len(cost) and drawn[count - 1][0] == drawn[-1][0]:
        # The tie may go on beyond the few: all of it takes part in the draw.
        rows = np.flatnonzero(cost <= drawn[-1][0])
        drawn = sorted(zip(cost[rows].tolist(), rng.random(len(rows)).tolist(), rows.tolist(), strict=True))
    best = drawn[0][0]
    if not best < math.inf:
        return [], 0.0
    ties = sum(value == best for value, _, _ in drawn)
    return [row for value, _, row in drawn[:count] if value < math.inf], 1.0 / ties
