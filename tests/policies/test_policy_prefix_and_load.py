"""AIBrix's rule: the best holder unless it, or the pool, is out of balance."""

from small_pool import best, costs, make

from picker.policies.example import example_request

REQUEST = example_request(prompt_tokens=1000)
POLICY = make("prefix-and-load")


def test_the_best_prefix_holder_wins() -> None:
    assert best(POLICY, REQUEST, hit_tokens=[160, 800, 0], batch=[2, 3, 3]) == [1]


def test_of_equal_holders_the_less_loaded_wins() -> None:
    assert best(POLICY, REQUEST, hit_tokens=[800, 800, 0], batch=[3, 2, 0]) == [1]


def test_equal_holders_with_equal_load_tie() -> None:
    assert best(POLICY, REQUEST, hit_tokens=[800, 800, 0], batch=[2, 2, 0]) == [0, 1]


def test_a_holder_more_than_a_deviation_above_the_mean_is_passed_over() -> None:
    # Mean 2, deviation 2.8: eight requests are too many.
    assert best(POLICY, REQUEST, hit_tokens=[800, 160, 0, 0, 0], batch=[8, 2, 0, 0, 0]) == [1]


def test_an_imbalanced_pool_forgets_prefixes() -> None:
    assert best(POLICY, REQUEST, hit_tokens=[0, 800, 0], batch=[0, 8, 9]) == [0]
    assert best(POLICY, REQUEST, hit_tokens=[0, 800, 0], batch=[0, 1, 8]) == [1]


def test_without_any_hit_the_least_loaded_wins() -> None:
    assert best(POLICY, REQUEST, batch=[3, 1, 1]) == [1, 2]


def test_overloaded_endpoints_come_last_among_the_fallbacks() -> None:
    assert costs(POLICY, REQUEST, hit_tokens=[800, 160, 0, 0, 0], batch=[8, 2, 0, 0, 1]) == [3, 0, 1, 1, 2]


def test_the_imbalance_can_be_set() -> None:
    wide = make("prefix-and-load", imbalance=100)

    assert best(wide, REQUEST, hit_tokens=[0, 800, 0], batch=[0, 8, 9]) == [1]
