"""Least request: the smallest batch, nothing else."""

from small_pool import SmallPool, best, make

from picker.policies.example import example_request


def test_the_smallest_batch_wins_whatever_is_cached() -> None:
    request = example_request(prompt_tokens=1000)

    assert best(make("least-request"), request, batch=[3, 1, 2], hit_tokens=[992, 0, 0]) == [1]


def test_equal_batches_tie() -> None:
    assert best(make("least-request"), example_request(prompt_tokens=1000), batch=[1, 4, 1]) == [0, 2]


def test_a_burst_spreads_evenly() -> None:
    pool, policy = SmallPool(4), make("least-request")

    for i in range(500):
        pool.pick(policy, example_request(prompt_tokens=100), now=float(i))

    assert pool.batch.tolist() == [125.0] * 4
