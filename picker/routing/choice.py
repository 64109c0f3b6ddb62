"""From costs to an ordered list of endpoints."""

import math

import numpy as np
from numpy.typing import NDArray

from picker.engines.kernels import bare
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
    few = min(count + SPARE, len(cost))
    rows = np.empty(few, np.intp)
    ties = _cheapest(cost, rng.random(few), rows)
    if few < len(cost) and cost[rows[count - 1]] == cost[rows[-1]]:
        # The tie may go on beyond the few: all of it takes part in the draw.
        rows = np.flatnonzero(cost <= cost[rows[-1]])
        rows = rows[np.lexsort((rows, rng.random(len(rows)), cost[rows]))]
        ties = int(np.count_nonzero(cost == cost[rows[0]]))
    order = [row for row in rows[:count].tolist() if cost[row] < math.inf]
    return order, 1.0 / ties if order else 0.0


@bare
def _cheapest(cost: Column, draws: Column, rows: NDArray[np.intp]) -> int:
    """Write the cheapest rows, as many as there is room for, by cost, then by lot; how many share the least cost."""
    few = len(rows)
    for row in range(len(cost)):
        at = min(row, few)
        if at == few:
            if not cost[row] < cost[rows[few - 1]]:
                continue
            at -= 1
        if few < len(cost):  # their order does not matter where all are taken
            while at > 0 and cost[row] < cost[rows[at - 1]]:
                rows[at] = rows[at - 1]
                at -= 1
        rows[at] = row
    for i in range(1, few):
        row, draw, at = rows[i], draws[i], i
        while at > 0 and (cost[row] < cost[rows[at - 1]] or (cost[row] == cost[rows[at - 1]] and draw < draws[at - 1])):
            rows[at], draws[at] = rows[at - 1], draws[at - 1]
            at -= 1
        rows[at], draws[at] = row, draw
    ties = 1
    while ties < few and cost[rows[ties]] == cost[rows[0]]:
        ties += 1
    return ties


def warm() -> None:
    """Compile, or load what an earlier process compiled."""
    _cheapest(np.zeros(1), np.zeros(1), np.zeros(1, np.intp))
