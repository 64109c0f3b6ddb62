"""Who is asked although nothing speaks for it yet."""

import math

import numpy as np
import pytest

from picker.learning.exploration import bonus, probe

STARVED = np.array([1.0, 400.0, 2.0, 90.0])


def test_newcomers_get_a_head_start_until_their_tenth_row() -> None:
    assert bonus(np.array([0, 9, 10, 500])).tolist() == [-0.2, -0.2, 0.0, 0.0]


def test_the_endpoint_left_out_longest_is_probed() -> None:
    assert probe(STARVED, math.inf, picks_per_s=20.0) == 1


def test_an_endpoint_is_left_out_only_in_proportion_to_the_traffic() -> None:
    assert probe(STARVED, math.inf, picks_per_s=0.05) is None
    assert probe(np.array([1.0, 29.0]), math.inf, picks_per_s=1000.0) is None


def test_there_is_one_probe_at_a_time() -> None:
    assert probe(STARVED, 0.0, picks_per_s=20.0) is None


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_without_a_rate_nobody_is_probed(rate: float) -> None:
    assert probe(STARVED, math.inf, picks_per_s=rate) is None


def test_an_empty_pool_has_nobody_to_probe() -> None:
    assert probe(np.empty(0), math.inf, picks_per_s=20.0) is None


def test_probes_stay_below_one_pick_in_a_hundred() -> None:
    rate, last, probes = 50.0, -math.inf, 0
    since = np.full(64, 1000.0)
    for pick in range(10_000):
        now = pick / rate
        if probe(since, now - last, rate) is not None:
            probes, last = probes + 1, now
    assert 50 < probes < 100
