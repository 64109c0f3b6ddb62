"""Who is asked although nothing speaks for it yet."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.engines.rows import Column
from picker.learning.exploration import bonus, preferred, starved
from picker.learning.features import Matrix


def test_newcomers_get_a_head_start_until_their_tenth_row() -> None:
    assert bonus(np.array([0, 9, 10, 500])).tolist() == [-0.2, -0.2, 0.0, 0.0]


def test_an_endpoint_left_out_for_long_is_starved() -> None:
    assert starved(400.0, 4, math.inf, picks_per_s=20.0)


def test_one_that_was_never_picked_is_starved() -> None:
    assert starved(math.inf, 4, math.inf, picks_per_s=20.0)


def test_an_endpoint_is_left_out_only_in_proportion_to_the_traffic() -> None:
    assert not starved(400.0, 4, math.inf, picks_per_s=0.05)
    assert not starved(29.0, 2, math.inf, picks_per_s=1000.0)


def test_there_is_one_probe_at_a_time() -> None:
    assert not starved(400.0, 4, 0.0, picks_per_s=20.0)


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_without_a_rate_nobody_is_probed(rate: float) -> None:
    assert not starved(400.0, 4, math.inf, picks_per_s=rate)


def test_probes_stay_below_one_pick_in_a_hundred() -> None:
    rate, last, probes = 50.0, -math.inf, 0
    for pick in range(10_000):
        now = pick / rate
        if starved(1000.0, 64, now - last, rate):
            probes, last = probes + 1, now
    assert 50 < probes < 100


NUMBERS = st.integers(0, 6).map(float) | st.sampled_from([math.nan, math.inf])


def told(cost: Column, rule_cost: Column, share: float, explored: float) -> tuple[Matrix, float, int]:
    """Costs and chances, what is near at a tenth more, and the rule's choice."""
    columns = np.empty((2, len(cost)))
    return columns, *preferred(cost, rule_cost, int(cost.argmin()), 1.1, share, explored, columns)


class TestPreferred:
    """Costs 10, 11, 12 and 30; what the rule thinks of the same endpoints differs."""

    COST = np.array([10.0, 11.0, 12.0, 30.0])

    def test_the_rules_choice_comes_first_where_the_model_finds_it_near(self) -> None:
        (costs, chance), within, ruled = told(self.COST, np.array([2.0, 1.0, 3.0, 4.0]), 1.0, 0.0)
        assert (int(costs.argmin()), ruled, within) == (1, 1, 11.0)
        assert chance.tolist() == [0.0, 1.0, 0.0, 0.0]

    def test_the_models_where_it_does_not(self) -> None:
        (costs, chance), _, ruled = told(self.COST, np.array([2.0, 2.0, 3.0, 1.0]), 1.0, 0.0)
        assert (costs.tolist(), ruled) == (self.COST.tolist(), 3)
        assert chance.tolist() == [1.0, 0.0, 0.0, 0.0]

    def test_the_rule_draws_among_its_cheapest_and_exploration_among_those_that_are_near(self) -> None:
        (_, chance), _, _ = told(self.COST, np.array([2.0, 2.0, 1.0, 1.0]), 0.9, 0.2)
        assert chance == pytest.approx([0.9 * 0.8 + 0.9 * 0.1, 0.9 * 0.1, 0.05, 0.05])

    @given(st.lists(st.tuples(NUMBERS, st.integers(0, 4)), min_size=1, max_size=9))
    def test_chances_are_a_distribution_and_the_rules_where_the_least_cost_is_no_number(
        self, costs: list[tuple[float, int]]
    ) -> None:
        cost, rule_cost = np.array([pair[0] for pair in costs]), np.array([float(pair[1]) for pair in costs])
        (_, chance), _, ruled = told(cost, rule_cost, 0.9, 0.1)
        assert chance.sum() == pytest.approx(1.0)
        assert ruled == rule_cost.argmin()
        if not math.isfinite(cost.min()):
            assert (chance[rule_cost > rule_cost.min()] == 0.0).all()
