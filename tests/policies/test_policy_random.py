"""Random: every endpoint alike."""

from small_pool import SmallPool, best, make

from picker.policies.example import example_request


def test_load_and_prefixes_make_no_difference() -> None:
    request = example_request(prompt_tokens=1000)

    assert best(make("random"), request, batch=[9, 0, 1], hit_tokens=[992, 0, 0]) == [0, 1, 2]


def test_picks_spread_by_the_draw_alone() -> None:
    pool, policy = SmallPool(4, seed=3), make("random")

    for i in range(400):
        pool.pick(policy, example_request(prompt_tokens=100), now=float(i))

    assert 60 <= pool.batch.min() <= pool.batch.max() <= 140
