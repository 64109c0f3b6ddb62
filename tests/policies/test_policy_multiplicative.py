"""LMetric's product: where it sends, and that a burst sees itself."""

import numpy as np
import pytest
from small_pool import SmallPool, best, costs, make

from picker.policies.example import example_request, example_rows


def test_cost_is_prefill_work_times_batch_plus_one() -> None:
    request = example_request(prompt_tokens=1000)

    cost = costs(make("multiplicative"), request, queued_tokens=[0, 500], hit_tokens=[800, 0], batch=[3, 1])

    assert cost == [200 * 4, 1500 * 2]


def test_of_idle_endpoints_the_prefix_holder_is_chosen() -> None:
    request = example_request(prompt_tokens=1000)

    assert best(make("multiplicative"), request, hit_tokens=[0, 992, 480]) == [1]


def test_a_holder_busy_enough_loses_to_an_idle_stranger() -> None:
    request = example_request(prompt_tokens=1000)

    assert best(make("multiplicative"), request, hit_tokens=[900, 0], batch=[9, 0]) == [0, 1]
    assert best(make("multiplicative"), request, hit_tokens=[900, 0], batch=[10, 0]) == [1]


def test_queued_prefill_outweighs_a_prefix_hit() -> None:
    request = example_request(prompt_tokens=1000)

    assert best(make("multiplicative"), request, hit_tokens=[992, 0], queued_tokens=[5000, 0]) == [1]


def test_equal_endpoints_tie() -> None:
    assert best(make("multiplicative"), example_request(prompt_tokens=1000), batch=[2, 2, 2]) == [0, 1, 2]


@pytest.mark.parametrize("prefilled", [True, False], ids=["prefilled at once", "nothing prefilled"])
def test_a_burst_of_equal_requests_spreads_over_the_pool(prefilled: bool) -> None:
    pool, policy = SmallPool(4), make("multiplicative")
    request = example_request(prompt_tokens=2000)

    for i in range(500):
        pool.pick(policy, request, now=i / 500)
        if prefilled:
            pool.first_byte()

    assert pool.batch.sum() == 500
    assert pool.batch.max() <= 2 * pool.batch.min()


def test_a_burst_of_unlike_requests_spreads_over_the_pool() -> None:
    pool, policy, rng = SmallPool(4), make("multiplicative"), np.random.default_rng(1)

    for i in range(500):
        request = example_request(prompt_tokens=float(rng.integers(100, 4000)), prefix=int(rng.integers(0, 30)))
        pool.pick(policy, request, now=i / 500)

    assert pool.batch.max() <= 2 * pool.batch.min()


def test_reasons_explain_the_cost() -> None:
    request = example_request(prompt_tokens=1000)
    rows = example_rows(request, queued_tokens=[0, 500], hit_tokens=[800, 0], batch=[3, 1])

    scores = make("multiplicative").score(request, rows, now=0.0)

    why = scores.reasons
    np.testing.assert_array_equal((why["queued_tokens"] + why["new_tokens"]) * (why["batch"] + 1), scores.cost)
