"""The detector of hot prefixes: alarm, drop, exit, window."""

from collections.abc import Sequence

import numpy as np
import pytest
from msgspec.structs import replace
from small_pool import SmallPool, make

from picker.engines.rows import Rows
from picker.policies.example import example_request, example_rows
from picker.policies.hot_prefix import MAX_PICKS, HotPrefixes, prefix_of
from picker.policies.policy import Policy
from picker.requests.request import Request

HOT = example_request(prompt_tokens=1600, prefix=1)
HOLDER_KEEPS_WINNING = {"hit_tokens": [1584, 0, 0, 0], "batch": [9, 2, 2, 2]}
TWO_HOLD_IT = {"hit_tokens": [1584, 1584, 0, 0], "batch": [9, 2, 2, 2]}


def other(i: int) -> Request:
    return example_request(prompt_tokens=1600, prefix=1000 + i)


def ask(policy: Policy, now: float, request: Request = HOT, /, **columns: Sequence[float]) -> list[float]:
    """Score and pick the best; returns the costs."""
    rows = example_rows(request, **(columns or HOLDER_KEEPS_WINNING))
    cost = policy.score(request, rows, now).cost
    policy.picked(request, rows, int(cost.argmin()), now)
    return [float(each) for each in cost]


def alarmed(share: float = 0.5, until: float = 20.0) -> Policy:
    """After 40 picks, that share of them for the hot prefix, all within `until` seconds."""
    policy = make("multiplicative")
    for i in range(40):
        now = until * i / 40
        if i % 10 < 10 * share:
            ask(policy, now)
        else:
            ask(policy, now, other(i), batch=[0, 0, 0, 0])
    return policy


def left_out(policy: Policy, now: float, request: Request = HOT, /, **columns: Sequence[float]) -> list[bool]:
    rows = example_rows(request, **(columns or HOLDER_KEEPS_WINNING))
    return [bool(out) for out in np.isinf(policy.score(request, rows, now).cost)]


def test_the_only_holder_of_half_the_traffic_is_left_out_while_it_wins_though_busier() -> None:
    assert left_out(alarmed(), 20.0) == [True, False, False, False]


def test_other_requests_still_reach_the_hot_endpoint() -> None:
    assert left_out(alarmed(), 20.0, other(99), batch=[0, 9, 9, 9]) == [False] * 4


def test_a_request_with_the_same_prefix_and_its_own_tail_is_of_the_same_class() -> None:
    longer = replace(HOT, prompt_tokens=1700.0, chain=np.append(HOT.chain, np.uint64(7)))

    assert left_out(alarmed(), 20.0, longer) == [True, False, False, False]


def test_a_share_that_the_holder_can_carry_raises_no_alarm() -> None:
    # One of four endpoints holds it: x / (1 - x) must exceed 1 / 3, so a fifth of the traffic is fine.
    assert left_out(alarmed(share=0.2), 20.0) == [False] * 4


def test_a_holder_that_is_not_the_busier_one_stays() -> None:
    policy = make("multiplicative")
    for i in range(60):
        ask(policy, i / 10, hit_tokens=[1584, 0, 0, 0], batch=[1, 2, 2, 2])

    assert left_out(policy, 6.0, hit_tokens=[1584, 0, 0, 0], batch=[1, 2, 2, 2]) == [False] * 4


def test_a_holder_that_loses_now_and_then_stays() -> None:
    policy = make("multiplicative")
    for i in range(60):
        batch = [9.0, 2.0, 2.0, 2.0] if i % 2 else [900.0, 2.0, 2.0, 2.0]
        ask(policy, i / 10, hit_tokens=[1584, 0, 0, 0], batch=batch)

    assert left_out(policy, 6.0) == [False] * 4


def test_nothing_is_left_out_before_four_picks_per_endpoint() -> None:
    policy = make("multiplicative")
    first = [ask(policy, i / 10) for i in range(16)]

    assert not np.isinf(first).any()
    ask(policy, 2.0)
    ask(policy, 2.1)
    assert left_out(policy, 2.2) == [True, False, False, False]


def test_the_alarm_clears_once_enough_endpoints_hold_the_prefix() -> None:
    policy = alarmed(share=0.5)

    # x / (1 - x) = 1 equals 2 holders against 2 others.
    assert left_out(policy, 20.0, **TWO_HOLD_IT) == [False] * 4


def test_after_the_alarm_cleared_a_drop_must_be_earned_again() -> None:
    policy = alarmed(share=0.5)

    ask(policy, 20.1, other(99), batch=[0, 0, 0, 0])
    ask(policy, 20.2, other(98), batch=[0, 0, 0, 0])
    ask(policy, 20.2, **TWO_HOLD_IT)

    assert left_out(policy, 20.3) == [False] * 4


def test_the_alarm_clears_when_the_prefix_goes_out_of_fashion() -> None:
    policy = alarmed(share=0.5)
    for i in range(200):
        ask(policy, 20.0 + i / 10, other(i), batch=[0, 0, 0, 0])

    assert left_out(policy, 40.0) == [False] * 4


def test_an_old_alarm_means_nothing_after_a_pause() -> None:
    assert left_out(alarmed(until=20.0), 81.0) == [False] * 4


def test_all_endpoints_holding_the_prefix_are_never_left_out() -> None:
    everywhere = {"hit_tokens": [1584.0] * 4, "batch": [9.0, 2.0, 2.0, 2.0]}

    assert left_out(alarmed(share=1.0), 20.0, **everywhere) == [False] * 4


def test_the_detector_can_be_turned_off() -> None:
    policy = make("multiplicative", hotPrefixWindowSeconds=0)
    for i in range(60):
        ask(policy, i / 10)

    assert left_out(policy, 6.0) == [False] * 4


def test_a_left_out_endpoint_says_why() -> None:
    scores = alarmed().score(HOT, example_rows(HOT, **HOLDER_KEEPS_WINNING), now=20.0)

    assert scores.reasons["hot_prefix"].tolist() == [1.0, 0.0, 0.0, 0.0]


def test_scoring_during_a_drop_changes_nothing() -> None:
    policy = alarmed()

    assert [left_out(policy, 20.0) for _ in range(100)] == [[True, False, False, False]] * 100


def test_a_hot_prefix_spreads_until_its_holders_carry_its_share() -> None:
    pool, policy, running = SmallPool(8), make("multiplicative"), []
    for i in range(800):
        request = HOT if i % 10 < 6 else other(i)
        running.append((request is HOT, pool.pick(policy, request, now=i / 50)))
        pool.first_byte()
        if len(running) > 64:
            pool.end(running.pop(0)[1])

    holders = sum(int(HOT.chain[0]) in cache for cache in pool.cached)
    # 60 % of the traffic: x / (1 - x) = 1.5 needs 5 of 8.
    assert holders >= 5
    assert pool.batch.max() <= 3 * pool.batch.min()


def many_picks(count: int) -> HotPrefixes:
    detector = HotPrefixes(window_s=60.0)
    for i in range(count):
        request = other(i)
        rows: Rows = example_rows(request, hit_tokens=[1600, 0])
        detector.picked(prefix_of(request, 1600.0), rows, rows.new_tokens, now=i * 1e-6)
    return detector


@pytest.mark.parametrize("count", [MAX_PICKS, MAX_PICKS + 1, 3 * MAX_PICKS])
def test_the_window_holds_so_many_picks_and_no_more(count: int) -> None:
    detector = many_picks(count)

    assert len(detector._picks) == MAX_PICKS
    assert len(detector._classes) == MAX_PICKS
