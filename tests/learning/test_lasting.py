"""What of a correction is the endpoint's own, and what is a burst's."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.learning.correction import TTFT, Corrections
from picker.learning.lasting import Lasting

ENDPOINTS = 8
TWICE_AS_SLOW = math.log(2)


def run(seed: int, slowed: int = 0, seconds: int = 400) -> Corrections:
    """Runs of eight requests that miss together, by one endpoint each; the first `slowed` ones are twice as slow."""
    rng = np.random.default_rng(seed)
    corrections = Corrections(ENDPOINTS)
    for second in range(seconds):
        slot, burst = second % ENDPOINTS, rng.normal(0, 0.3)
        for _ in range(8):
            residual = burst + rng.normal(0, 0.1) + (TWICE_AS_SLOW if slot < slowed else 0.0)
            corrections.observe(slot, residual, math.nan, float(second))
        corrections.settle(float(second))
    return corrections


@pytest.mark.parametrize("seed", range(5))
def test_bursts_correct_no_endpoint_of_a_pool_of_like_ones(seed: int) -> None:
    corrections = run(seed)
    assert np.ptp(corrections.by_slot[TTFT]) < 0.5 * np.ptp([known.mean for known in corrections._known[TTFT]])


@pytest.mark.parametrize("seed", range(5))
def test_an_endpoint_of_its_own_stays_apart_from_the_others(seed: int) -> None:
    shown = np.mean([run(seed, slowed=1, seconds=s).by_slot[TTFT] for s in range(320, 400, 8)], axis=0)
    assert shown[0] - np.median(shown) > 0.4 * TWICE_AS_SLOW


def test_what_all_endpoints_miss_alike_is_shown_whole() -> None:
    corrections = Corrections(4)
    for second in range(200):
        corrections.observe(second % 4, 0.5, math.nan, float(second))
    corrections.settle(200.0)
    assert corrections.by_slot[TTFT] == pytest.approx([0.5] * 4, rel=0.1)


def test_few_rows_are_taken_at_their_word() -> None:
    lasting = Lasting(4)
    lasting.observe(TTFT, 0, 0.6, 0.6, 1.0)
    lasting.weigh()
    assert lasting.shrunk(np.full((2, 4), 0.6)) == pytest.approx(np.full((2, 4), 0.6))


def test_a_new_model_that_says_more_of_everybody_leaves_their_differences() -> None:
    lasting = Lasting(2)
    for _ in range(100):
        for slot, mean in ((0, 0.0), (1, 0.4)):
            lasting.observe(TTFT, slot, mean, mean, 1.0)
    lasting.weigh()
    share = lasting.share[TTFT]
    for slot in (0, 1):
        lasting.shift(TTFT, slot, -1.0)
    lasting.weigh()
    assert (lasting.share[TTFT], lasting.middle[TTFT]) == pytest.approx((share, 0.2 - 1.0))


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(-1.5, 1.5)), max_size=200))
def test_a_share_is_a_share_and_draws_nobody_past_the_middle(rows: list[tuple[int, float]]) -> None:
    lasting = Lasting(4)
    for slot, residual in rows:
        lasting.observe(TTFT, slot, residual, residual, 1.0)
        lasting.weigh()
    means = np.zeros((2, 4))
    means[TTFT] = [-1.0, 0.0, 0.5, 1.0]
    order = np.diff(lasting.shrunk(means)[TTFT])
    assert all(0 <= share <= 1 for share in lasting.share)
    assert (order >= 0).all()
