"""Plans change when that is clearly better, and no sooner."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stage_traffic import ENGINE, EVEN, Asked, chats_and_documents, recorded

from picker.stages.lengths import Lengths
from picker.stages.replan import Look, Plan, ReplanSettings, decide, is_due
from picker.stages.step_model import StepModel

SETTINGS = ReplanSettings()
EIGHT = dict.fromkeys(range(8), ENGINE)


def seen(documents: float = 0.2, seed: int = 0, over_s: float = 200.0, number: int = 800) -> Lengths:
    return recorded(chats_and_documents(seed, number, documents), over_s=over_s)


def decided(lengths: Lengths, current: Plan | None = None, models: dict[int, StepModel] = EIGHT) -> Plan:
    return decide(current, lengths, models, SETTINGS)


def test_a_plan_says_what_it_divides_and_what_that_is_worth() -> None:
    plan = decided(seen())

    assert plan.staged
    assert plan.gain >= 0.05
    assert plan.reason.startswith("2 stages, parted at ")
    assert "saved is expected, give or take" in plan.reason
    assert plan.stages[0].low == 0
    assert plan.stages[-1].high == float("inf")
    assert sorted(engine for stage in plan.stages for engine in stage.engines) == list(range(8))
    assert all(one.high == two.low for one, two in zip(plan.stages, plan.stages[1:], strict=False))


@pytest.mark.parametrize(
    ("lengths", "models", "why"),
    [
        (recorded([(1000.0, 1000.0, 200.0)] * 500), EIGHT, "no division is expected to be better"),
        (seen(number=50), EIGHT, "requests seen, 200 needed"),
        (seen(), {3: ENGINE}, "fewer than two engines"),
    ],
)
def test_without_a_significant_gain_nothing_is_staged_and_the_reason_is_told(
    lengths: Lengths, models: dict[int, StepModel], why: str
) -> None:
    plan = decided(lengths, models=models)

    assert not plan.staged
    assert plan.reason.startswith("not staged: ")
    assert why in plan.reason


def test_a_gain_below_what_is_asked_for_is_not_taken() -> None:
    plan = decide(None, seen(), EIGHT, replace(SETTINGS, least_gain=0.5))

    assert not plan.staged
    assert "50% are needed" in plan.reason


def test_the_same_traffic_keeps_its_plan() -> None:
    plan = decided(seen(seed=0))

    for seed in range(1, 5):
        plan, before = decided(seen(seed=seed), plan), plan
        assert [stage.engines for stage in plan.stages] == [stage.engines for stage in before.stages]
        assert plan.moved == 0


def test_another_mix_moves_engines_a_few_at_a_time() -> None:
    plan = decided(seen(documents=0.3, over_s=300.0, number=1500))
    before = len(plan.stages[0].engines)
    chats = seen(documents=0.05, over_s=100.0, number=1500)

    moved = []
    for _ in range(4):
        plan = decided(chats, plan)
        moved.append(plan.moved)

    assert 0 < max(moved) <= 2
    assert moved[-1] == 0
    below = sum(len(stage.engines) for stage in plan.stages if stage.high <= 4096)
    assert below > before


def test_engines_that_leave_are_no_longer_in_the_plan_and_new_ones_are() -> None:
    plan = decided(seen())

    other = decided(seen(), plan, dict.fromkeys((0, 2, 3, 4, 5, 6, 7, 9), ENGINE))

    assert other.engines == {0, 2, 3, 4, 5, 6, 7, 9}
    assert other.moved <= 2


def test_staging_ends_when_its_reason_is_gone() -> None:
    plan = decided(seen())

    assert not decided(recorded([(1000.0, 1000.0, 200.0)] * 800, over_s=100.0), plan).staged


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(1, 1e5), st.floats(1, 1e5), st.floats(1, 5000)).map(lambda r: (r[0], min(r[:2]), r[2])),
        min_size=1,
        max_size=40,
    ),
    st.floats(5, 500),
    st.integers(1, 6),
)
def test_a_plan_is_whole_and_never_expected_to_lose(asked: list[Asked], over_s: float, engines: int) -> None:
    models = {i: ENGINE if i % 2 else EVEN for i in range(engines)}
    plan = decide(None, recorded(asked * 8, over_s=over_s), models, replace(SETTINGS, requests=1.0))

    assert plan.engines == frozenset(models)
    assert all(stage.engines for stage in plan.stages)
    assert plan.gain >= (SETTINGS.least_gain if plan.staged else 0.0)
    assert plan.reason.startswith("not staged") != plan.staged


def test_a_new_look_is_due_on_drift_on_new_engines_and_after_a_while() -> None:
    traffic, drifted = seen().traffic(), seen(documents=0.9, seed=1).traffic()
    engines = frozenset(range(8))
    look = Look(100.0, traffic, engines)

    assert is_due(Look(), traffic, engines, 0.0, SETTINGS)
    assert not is_due(look, traffic, engines, 129.0, SETTINGS)
    assert is_due(look, traffic, engines, 130.0, SETTINGS)
    assert not is_due(look, drifted, engines, 109.0, SETTINGS)
    assert is_due(look, drifted, engines, 110.0, SETTINGS)
    assert is_due(look, traffic, engines | {9}, 101.0, SETTINGS)
