"""Stages laid down by an operator: which there are, and whose they are."""

import doctest
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.stages import fixed
from picker.stages.fixed import lay, read
from picker.stages.replan import Plan

TWO = read(["0-512:1", "512-:3"])


def engines_of(plan: Plan) -> list[tuple[int, ...]]:
    return [stage.engines for stage in plan.stages]


def test_the_examples_hold() -> None:
    assert doctest.testmod(fixed).failed == 0


@pytest.mark.parametrize(
    "wrong",
    [
        ["512-:1"],
        ["0-512:1"],
        ["0-512:0", "512-:1"],
        ["0-512:1", "600-:1"],
        ["0-512:1", "512-512:1", "512-:1"],
        ["0-:1", "512-:1"],
        ["short:1"],
        ["0-512:1,512-:1"],
        [*(f"{i}-{i + 1}:1" for i in range(64)), "64-:1"],
    ],
)
def test_what_leaves_a_length_to_nobody_or_to_two_is_refused(wrong: list[str]) -> None:
    with pytest.raises(ValueError, match=r"stage"):
        read(wrong)


def test_engines_are_dealt_by_shares_and_the_plan_says_that_it_was_laid_down() -> None:
    plan = lay(TWO, range(8), None)

    assert engines_of(plan) == [(0, 1), (2, 3, 4, 5, 6, 7)]
    assert [(stage.low, stage.high) for stage in plan.stages] == [(0.0, 512.0), (512.0, math.inf)]
    assert (plan.staged, plan.fixed, plan.reason) == (True, True, "as laid down, parted at 512 tokens")


def test_who_stays_keeps_its_stage_when_engines_come_and_go() -> None:
    plan = lay(TWO, range(8), None)

    assert engines_of(lay(TWO, [1, 3, 4, 5, 6, 7, 9], plan)) == [(1, 9), (3, 4, 5, 6, 7)]


def test_with_fewer_engines_than_stages_there_are_none() -> None:
    plan = lay(TWO, [4], None)

    assert not plan.staged
    assert plan.reason == "not staged: 2 stages need as many engines, there are 1"


@given(
    shares=st.lists(st.integers(1, 9999), min_size=1, max_size=12),
    spare=st.integers(0, 60),
    gone=st.sets(st.integers(0, 71)),
)
def test_every_engine_has_one_stage_and_every_stage_an_engine(shares: list[int], spare: int, gone: set[int]) -> None:
    edges = [*(f"{100 * i}-{100 * (i + 1)}" for i in range(len(shares) - 1)), f"{100 * (len(shares) - 1)}-"]
    ranges = read([f"{edge}:{share}" for edge, share in zip(edges, shares, strict=True)])
    pool = list(range(len(shares) + spare))
    plan = lay(ranges, pool, None)
    left = [engine for engine in pool if engine not in gone] or pool
    for made, engines in ((plan, pool), (lay(ranges, left, plan), left)):
        assert sorted(engine for stage in made.stages for engine in stage.engines) == engines
        assert all(stage.engines for stage in made.stages)
