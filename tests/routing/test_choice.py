"""Costs to an ordered list: cheapest first, ties by lot."""

import math
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from picker.routing.choice import choose

COSTS = st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.5, math.inf]), min_size=1, max_size=60)


@given(COSTS, st.integers(1, 6), st.integers(0, 2**32))
def test_the_cheapest_come_first_each_once_and_never_an_excluded_one(costs: list[float], count: int, seed: int) -> None:
    order, propensity = choose(np.array(costs), count, np.random.default_rng(seed))
    assert [costs[row] for row in order] == sorted(cost for cost in costs if cost < math.inf)[:count]
    assert len(set(order)) == len(order)
    assert propensity == (1 / costs.count(min(costs)) if order else 0.0)


def test_ties_are_drawn_evenly_even_when_all_are_equal() -> None:
    rng, cost = np.random.default_rng(1), np.ones(40)
    firsts = Counter(choose(cost, 3, rng)[0][0] for _ in range(4000))
    seconds = Counter(choose(cost, 3, rng)[0][1] for _ in range(4000))
    assert len(firsts) == len(seconds) == 40
    assert max(firsts.values()) < 3 * min(firsts.values())
