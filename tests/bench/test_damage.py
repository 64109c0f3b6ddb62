"""Models, engines and loads misbehave: what the learned policy costs the pool, beside the rule on the same requests."""

from functools import cache

import pytest

from bench.damage import AT_S, FIRST, LAST, LEARNED, MISFORTUNES, RULE, Run, play
from picker.learning.guard import Reason

WORST = 1.10
"""Of the rule's mean TTFT: one seed's luck included."""


HOT = "hot prefixes, small caches"


@cache
def both(name: str, seed: int = 0) -> tuple[Run, Run]:
    """The learned policy's run and the rule's."""
    return play(MISFORTUNES[name], LEARNED, seed), play(MISFORTUNES[name], RULE, seed)


@pytest.mark.parametrize("name", sorted(MISFORTUNES.keys() - {HOT}))
def test_no_misfortune_costs_more_than_the_rule_by_more_than_luck(name: str) -> None:
    ours, theirs = both(name)
    assert ours.ttft_ms() < WORST * theirs.ttft_ms()


@pytest.mark.parametrize("name", ["models turned upside down", "models shuffled"])
def test_from_a_poisoned_model_the_guard_takes_over_and_the_pool_recovers(name: str) -> None:
    ours, theirs = both(name)
    taken = ours.handed_over(Reason.ERROR, AT_S)[0].at_s
    assert taken < AT_S + 20
    assert ours.ttft_ms(taken + 10) < WORST * theirs.ttft_ms(taken + 10)


def test_a_model_of_no_numbers_decides_nothing() -> None:
    ours, _ = both("models of no numbers")
    assert ours.guard.counts[Reason.OUT_OF_RANGE] > 0.4 * sum(ours.guard.counts.values())


def test_a_model_that_was_never_right_never_takes_charge() -> None:
    ours, _ = both("upside down from the first")
    assert ours.guard.counts[Reason.NONE] == 0


def test_without_any_model_the_pool_is_the_rules() -> None:
    ours, theirs = both("no model ever")
    assert ours.ttft_ms() == pytest.approx(theirs.ttft_ms(), rel=0.05)


@pytest.mark.parametrize("name", ["an engine twice as slow", "no new model, an engine twice as slow"])
def test_an_engine_that_slows_down_gets_less_within_seconds(name: str) -> None:
    ours, _ = both(name)
    assert ours.share(FIRST, AT_S + 10) < 0.8 * ours.share(FIRST, 15, AT_S)


def test_an_engine_that_lies_about_being_idle_is_not_flooded_as_under_the_rule() -> None:
    ours, theirs = both("an engine that says it is idle")
    assert ours.share(LAST, AT_S) < theirs.share(LAST, AT_S)
    assert ours.ttft_ms(AT_S) < theirs.ttft_ms(AT_S)


def test_engines_of_a_new_class_are_used_soon_and_the_pool_is_better_for_it() -> None:
    ours, theirs = both("two engines of a new class")
    joined = {"10.0.0.3:8000", "10.0.0.4:8000"}
    assert sum(ours.share(address, AT_S + 10) for address in joined) > 0.4
    assert ours.ttft_ms(AT_S) < theirs.ttft_ms(AT_S)


def test_where_spreading_hot_prefixes_would_evict_them_everywhere_guard_and_marginal_cost_keep_them() -> None:
    def over_seeds(policy: str) -> tuple[float, float]:
        """Mean TTFT and hit ratio; single seeds differ by more than policies at the edge of what the pool can take."""
        runs = [play(MISFORTUNES[HOT], policy, seed) for seed in (0, 1)]
        return sum(run.ttft_ms() for run in runs), sum(run.hit_ratio for run in runs)

    rule, whole, greedy = (over_seeds(policy) for policy in (RULE, LEARNED, f"{LEARNED}?without=guard+marginal-cost"))
    assert whole[0] < WORST * rule[0]
    assert greedy[0] > 1.2 * whole[0]
    assert greedy[1] < 0.95 * whole[1]
