"""Stages are held to their word: what they save is measured against what they promised."""

import math
from dataclasses import replace

import pytest

from picker.stages.promise import BARRED_S, ENOUGH, Promise
from picker.stages.replan import Plan, Stage, unstaged

STAGED = Plan(
    (Stage(0.0, 4096.0, (0,), 1.0), Stage(4096.0, math.inf, (1,), 1.0)), "", gain=0.2, ms=8.0, unstaged_ms=10.0
)
OPEN = 30
PLAIN = unstaged((0, 1), "", 10.0)


def served(promise: Promise, ms_per_token: float, requests: int = ENOUGH) -> None:
    for _ in range(requests):
        promise.ended(promise.era, 100 * ms_per_token, 100)


def staged_after(plain_ms: float) -> Promise:
    """Without stages answers took `plain_ms` per token where 10 were predicted; now there are stages."""
    promise = Promise()
    promise.objection(PLAIN, 0.0, OPEN)
    served(promise, plain_ms)
    assert promise.objection(STAGED, 0.0, OPEN) == ""
    promise.follows(True, OPEN)
    return promise


@pytest.mark.parametrize("wrong_by", [0.5, 1.0, 3.0])
def test_a_kept_promise_stands_however_wrong_the_model_is_on_the_whole(wrong_by: float) -> None:
    promise = staged_after(10.0 * wrong_by)
    served(promise, 8.0 * wrong_by)

    assert promise.objection(STAGED, 100.0, OPEN) == ""


@pytest.mark.parametrize("wrong_by", [0.5, 1.0, 3.0])
def test_stages_that_lose_are_dropped_and_barred_longer_each_time(wrong_by: float) -> None:
    promise = staged_after(10.0 * wrong_by)
    served(promise, 11.0 * wrong_by)

    assert promise.objection(STAGED, 100.0, OPEN) == "20.0% was promised and 10.0% lost"
    promise.follows(False, OPEN)
    assert "barred for" in promise.objection(STAGED, 100.0 + BARRED_S - 1, OPEN)
    assert promise.objection(STAGED, 101.0 + BARRED_S, OPEN) == ""

    promise.follows(True, OPEN)
    served(promise, 11.0 * wrong_by)
    assert "lost" in promise.objection(STAGED, 1000.0, OPEN)
    promise.follows(False, OPEN)
    assert promise.objection(STAGED, 1001.0 + BARRED_S, OPEN) != ""


@pytest.mark.parametrize(("without_ms", "barred"), [(10.0, True), (15.0, False)])
def test_stages_are_acquitted_where_it_is_no_better_without_them(without_ms: float, barred: bool) -> None:
    promise = staged_after(10.0)
    served(promise, 12.0)
    assert "lost" in promise.objection(STAGED, 100.0, OPEN)
    promise.follows(False, OPEN)

    served(promise, without_ms)

    assert ("barred" in promise.objection(STAGED, 110.0, OPEN)) == barred


def test_a_gain_smaller_than_promised_is_still_a_gain() -> None:
    promise = staged_after(10.0)
    served(promise, 9.5)

    assert promise.objection(STAGED, 100.0, OPEN) == ""


def test_few_requests_and_those_placed_before_prove_nothing() -> None:
    promise = staged_after(10.0)
    served(promise, 30.0, ENOUGH - 1)
    for _ in range(ENOUGH):
        promise.ended(promise.era - 1, 5000.0, 100)

    assert promise.objection(STAGED, 100.0, OPEN) == ""


@pytest.mark.parametrize("requests", [2, 90])
def test_while_lines_grow_or_drain_nothing_is_compared(requests: int) -> None:
    promise = staged_after(10.0)
    served(promise, 30.0)

    assert promise.objection(STAGED, 100.0, requests) == ""
    assert promise.objection(STAGED, 130.0, requests) == ""


def test_what_is_planned_for_a_part_of_the_load_is_no_prediction() -> None:
    promise = staged_after(10.0)
    served(promise, 30.0)

    assert promise.objection(replace(STAGED, load=0.5), 100.0, OPEN) == ""


def test_a_plan_without_stages_is_never_objected_to() -> None:
    promise = staged_after(10.0)
    served(promise, 30.0)

    assert promise.objection(PLAIN, 100.0, OPEN) == ""
