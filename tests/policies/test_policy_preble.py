"""Preble: exploit long matches, even out the rest over a window."""

import numpy as np
import pytest
from small_pool import best, costs, make

from picker.policies.example import example_request, example_rows
from picker.policies.policy import Policy
from picker.policies.preble import SlicedWindow

COLD = example_request(prompt_tokens=1600)
UNIT = {"prefillMsPerToken": 1, "decodeMsPerToken": 2, "decodeTokens": 100}


def place(policy: Policy, row: int, now: float, n: int = 2) -> None:
    policy.picked(COLD, example_rows(COLD, batch=[0.0] * n), row, now)


def test_a_match_over_half_is_exploited_whatever_the_load() -> None:
    assert best(make("preble"), COLD, hit_tokens=[0, 816], batch=[0, 99]) == [1]


def test_of_equal_matches_the_less_loaded_wins() -> None:
    assert best(make("preble"), COLD, hit_tokens=[1600, 1600, 0], batch=[3, 2, 0]) == [1]


def test_a_match_of_half_or_less_goes_by_cost() -> None:
    policy = make("preble", **UNIT)
    place(policy, row=1, now=0.0)

    assert best(policy, COLD, 1.0, hit_tokens=[0, 800]) == [0]


def test_cost_is_the_windows_work_plus_the_missed_prefill() -> None:
    policy = make("preble", **UNIT)
    place(policy, row=1, now=0.0)

    assert costs(policy, COLD, 1.0, hit_tokens=[0, 160]) == [1600, 1600 + 200 + 1440]


def test_work_leaves_after_three_minutes() -> None:
    policy = make("preble", **UNIT)
    place(policy, row=1, now=5.0)

    assert costs(policy, COLD, 169.0, batch=[0, 0]) == [1600, 3400]
    assert costs(policy, COLD, 185.0, batch=[0, 0]) == [1600, 1600]
    place(policy, row=0, now=185.0)
    assert costs(policy, COLD, 185.0, batch=[0, 0]) == [3400, 1600]


def test_cold_requests_alternate() -> None:
    policy, picks = make("preble"), []
    for i in range(8):
        picks.append(best(policy, COLD, float(i), batch=[0, 0])[0])
        place(policy, picks[-1], now=float(i))

    assert sorted(picks) == [0] * 4 + [1] * 4


@pytest.mark.parametrize("slot", [0, 15, 16, 17, 5000])
def test_the_window_grows_to_any_slot(slot: int) -> None:
    window = SlicedWindow()
    window.add(3, 1.0, now=0.0)
    window.add(slot, 2.0, now=0.0)

    assert window.sums(np.array([3, slot, slot + 1, 99_999]), now=1.0).tolist() == [1.0, 2.0, 0.0, 0.0]


def test_the_window_agrees_with_a_plain_sum() -> None:
    rng, window, added = np.random.default_rng(0), SlicedWindow(), []
    for now in np.cumsum(rng.exponential(4.0, 500)):
        slot, amount = int(rng.integers(0, 40)), float(rng.integers(1, 100))
        window.add(slot, amount, float(now))
        added.append((now, slot, amount))
        later = float(now + rng.choice([0.0, 30.0, 400.0]))
        oldest = later // 10 - 17
        expected = [sum(a for t, s, a in added if s == slot and t // 10 >= oldest) for slot in range(40)]
        assert window.sums(np.arange(40), later).tolist() == pytest.approx(expected)
