"""Boundaries follow the load and come to rest: properties of whole trajectories."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picker.stages.refine import BAND, Boundary, planned, refined


def trajectory(
    shares: Callable[[int, float], float], rounds: int, *, start: float = 4096.0, noise: float = 0.0, lag: float = 0.5
) -> tuple[list[Boundary], list[float]]:
    """The boundary over time, and the true log load ratio, where `shares(round, tokens)` of all load is below a length.

    Load follows what is placed with a lag, as requests that are there stay, and is observed with noise.
    """
    rng, boundary, below = np.random.default_rng(0), planned(start), shares(0, start)
    path, ratios = [], []
    for i in range(rounds):
        below += lag * (shares(i, boundary.tokens) - below)
        ratio = math.log(max(below, 1e-6) / max(1 - below, 1e-6))
        [boundary] = refined([boundary], [below * rng.lognormal(0, noise), (1 - below) * rng.lognormal(0, noise)])
        path.append(boundary)
        ratios.append(ratio)
    return path, ratios


def lognormal_share(median: float, spread: float) -> Callable[[float], float]:
    return lambda tokens: 0.5 * (1 + math.erf(math.log(tokens / median) / (spread * math.sqrt(2))))


def turns(path: list[Boundary]) -> int:
    """How often it went back on its way."""
    ways = [way for way in np.sign(np.diff([boundary.at for boundary in path])) if way]
    return sum(a != b for a, b in itertools.pairwise(ways))


medians, spreads = st.floats(2300.0, 7300.0), st.floats(0.4, 2.0)


@settings(max_examples=60, deadline=None)
@given(median=medians, spread=spreads)
def test_after_a_step_it_comes_to_rest_in_balance(median: float, spread: float) -> None:
    share = lognormal_share(median, spread)

    path, ratios = trajectory(lambda i, tokens: share(tokens), 400)

    assert max(abs(ratio) for ratio in ratios[-100:]) < 2.5 * BAND
    assert np.ptp([boundary.at for boundary in path[-100:]]) < 0.03
    assert turns(path) <= 6


@settings(max_examples=30, deadline=None)
@given(spread=spreads)
def test_it_follows_a_ramp_without_running_back_and_forth(spread: float) -> None:
    path, ratios = trajectory(lambda i, tokens: lognormal_share(3000.0 * 2 ** (i / 400), spread)(tokens), 400)

    assert turns(path) <= 6
    assert path[-1].at > path[100].at
    assert abs(ratios[-1]) < 0.6


@settings(max_examples=30, deadline=None)
@given(spread=spreads, noise=st.floats(0.0, 0.15))
def test_noise_about_balance_hardly_moves_it(spread: float, noise: float) -> None:
    share = lognormal_share(4096.0, spread)

    path, _ = trajectory(lambda i, tokens: share(tokens), 400, noise=noise)

    assert max(abs(boundary.at - 12.0) for boundary in path) < 0.25


def test_where_very_many_requests_are_of_one_length_the_hunt_ends() -> None:
    path, _ = trajectory(lambda i, tokens: 0.9 if tokens > 4000 else 0.1, 600)

    late = [boundary.at for boundary in path[-100:]]
    assert np.ptp(late) < 0.05


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.floats(0, 1e12) | st.just(math.nan), min_size=4, max_size=4), max_size=80))
def test_boundaries_stay_in_order_and_within_an_octave_of_the_plan(rounds: list[list[float]]) -> None:
    boundaries = tuple(planned(tokens) for tokens in (1000.0, 2000.0, 16_000.0))

    for loads in rounds:
        boundaries = refined(boundaries, loads)
        at = [boundary.at for boundary in boundaries]
        assert at == sorted(at)
        assert len(set(at)) == 3
        assert all(abs(boundary.at - boundary.planned) <= 1.0 for boundary in boundaries)


def test_an_empty_stage_takes_lengths_and_an_empty_pool_leaves_them() -> None:
    boundary = planned(4096.0)

    [idle] = refined([boundary], [0.0, 0.0])
    [moved] = refined([boundary], [10.0, 0.0])

    assert idle.at == boundary.at
    assert moved.at < boundary.at


def test_another_number_of_stages_is_refused() -> None:
    with pytest.raises(ValueError, match="part 2 stages, not 3"):
        refined([planned(100.0)], [1.0, 2.0, 3.0])
