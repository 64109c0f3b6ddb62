"""Sticky until saturated: where stickiness begins and where it ends."""

from small_pool import best, costs, make

from picker.policies.example import example_request

REQUEST = example_request(prompt_tokens=1600)
POLICY = make("sticky-until-saturated", peakPrefillRate=1000, toleratedTtftSeconds=10)


def test_a_holder_keeps_its_prefix_up_to_the_tolerated_queue() -> None:
    assert best(POLICY, REQUEST, hit_tokens=[0, 1600], queued_tokens=[0, 10_000]) == [1]


def test_past_the_tolerated_queue_the_least_load_wins() -> None:
    assert best(POLICY, REQUEST, hit_tokens=[0, 1600], queued_tokens=[0, 10_001]) == [0]


def test_what_counts_is_the_queue_beyond_the_emptiest_other() -> None:
    assert best(POLICY, REQUEST, hit_tokens=[0, 0, 1600], queued_tokens=[5000, 9000, 14_000]) == [2]


def test_one_unsaturated_holder_keeps_the_prefix_among_the_holders() -> None:
    assert best(POLICY, REQUEST, hit_tokens=[0, 1600, 1600], queued_tokens=[0, 50_000, 9000]) == [2]


def test_a_match_below_the_threshold_is_not_sticky() -> None:
    assert best(POLICY, REQUEST, hit_tokens=[0, 1264], queued_tokens=[0, 2000]) == [0]
    assert best(POLICY, REQUEST, hit_tokens=[0, 1280], queued_tokens=[0, 2000]) == [1]


def test_among_holders_the_least_queued_and_new_tokens_win() -> None:
    assert best(POLICY, REQUEST, hit_tokens=[1600, 1296, 0], queued_tokens=[400, 0, 0]) == [1]


def test_without_holders_load_decides_and_cached_tokens_are_not_load() -> None:
    assert costs(POLICY, REQUEST, hit_tokens=[0, 800], queued_tokens=[100, 0]) == [1700, 800]


def test_when_every_endpoint_holds_the_prefix_load_decides() -> None:
    assert best(POLICY, REQUEST, hit_tokens=[1600, 1600], queued_tokens=[90_000, 50]) == [1]


def test_fallbacks_are_other_holders_first_then_the_least_loaded() -> None:
    cost = costs(POLICY, REQUEST, hit_tokens=[1600, 0, 1600, 0], queued_tokens=[10, 5, 500, 0])

    assert sorted(range(4), key=cost.__getitem__) == [0, 2, 3, 1]


def test_the_default_saturation_is_286720_tokens() -> None:
    policy = make("sticky-until-saturated")

    assert best(policy, REQUEST, hit_tokens=[0, 1600], queued_tokens=[0, 286_720]) == [1]
    assert best(policy, REQUEST, hit_tokens=[0, 1600], queued_tokens=[0, 286_721]) == [0]
