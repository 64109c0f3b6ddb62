"""From costs to an ordered list of endpoints."""

import numpy as np
from numpy.typing import NDArray

from picker.engines.kernels import bare
from picker.engines.rows import Column


def choose(cost: Column, count: int, rng: np.random.Generator) -> tuple[list[int], float]:
    """The `count` cheapest rows, best first, and the probability that the first one had of being first.

    Equal costs are drawn uniformly, wherever they stand; rows of infinite cost are never chosen.

    >>> order, propensity = choose(np.array([3.0, 1.0, 1.0, np.inf]), 3, np.random.default_rng(0))
    >>> sorted(order[:2]), order[2], propensity
    ([1, 2], 0, 0.5)
    """
    order = np.empty(count, np.intp)
    found, ties = _choose(cost, order, rng.random())
    return order[:found].tolist(), 1.0 / ties if found else 0.0


@bare
def _choose(cost: Column, order: NDArray[np.intp], drawn: float) -> tuple[int, int]:
    """Fill `order`; how many there are, and among how many equal ones the first was drawn. `drawn`, in [0, 1), serves
    for every place: what is left of it after a draw among m is as uniform as it was, with log2(m) bits less."""
    first_ties = 0
    for place in range(len(order)):
        least, ties = np.inf, 0
        for row in range(len(cost)):
            if cost[row] <= least and cost[row] < np.inf and not _taken(order, place, row):
                ties = ties + 1 if cost[row] == least else 1
                least = cost[row]
        if not ties:
            return place, first_ties
        if not place:
            first_ties = ties
        which = int(drawn * ties)
        drawn = drawn * ties - which
        for row in range(len(cost)):
            if cost[row] == least and not _taken(order, place, row):
                if not which:
                    order[place] = row
                    break
                which -= 1
    return len(order), first_ties


@bare
def _taken(order: NDArray[np.intp], places: int, row: int) -> bool:
    taken = False
    for place in range(places):
        taken |= order[place] == row
    return taken


def warm() -> None:
    """Compile, or load what an earlier process compiled."""
    _choose(np.zeros(1), np.zeros(2, np.intp), 0.0)
