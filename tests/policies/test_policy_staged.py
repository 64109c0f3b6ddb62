"""Length stages as a policy: the inner policy's choice, among the engines that the plan and milliseconds allow."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_pool import make
from test_policy_contract import pools, requests

from picker.engines.rows import Rows
from picker.policies.example import example_request, example_rows
from picker.policies.learned import Learned
from picker.policies.policy import Learns, innermost
from picker.policies.stage_watch import Watch
from picker.policies.staged import Staged, Thought
from picker.requests.request import Request
from picker.stages.replan import Plan, Stage, unstaged
from picker.stages.step_model import StepModel

MODEL = StepModel(fixed_ms=6.0, decode_ms=0.02, context_ms=40.0, prefill_ms=0.02, work_ms=0.9, alpha=0.5, kv_tokens=4e5)
PLAN = Plan(
    (Stage(0.0, 4096.0, (0, 1), 5.0, 4000.0), Stage(4096.0, math.inf, (2, 3), 2.0, 60_000.0)),
    "for a test",
    gain=0.2,
    ms=8.0,
    unstaged_ms=10.0,
)


@dataclass(frozen=True)
class Pod:
    address: str = "10.0.0.1:8000"
    name: str = ""
    labels: dict[str, str] = field(default_factory=lambda: {"picker.dev/hardware": "h100"})


@dataclass
class Done:
    status: int = 200
    streamed: bool = True
    ttft_s: float | None = 0.1
    completion_tokens: int | None = 200
    tpot_s: float | None = 0.01


def staged(within: str = "multiplicative", plan: Plan = PLAN, model: StepModel = MODEL, **params: object) -> Staged:
    policy = make("staged", within=within, **params)
    assert isinstance(policy, Staged)
    policy.meet(dict.fromkeys(sorted(plan.engines), Pod()), lambda slot: None)
    policy.adopt(Thought(plan, dict.fromkeys(sorted(plan.engines), model)), 0.0)
    return policy


def first(policy: Staged, request: Request, **columns: list[float]) -> int:
    return int(policy.score(request, example_rows(request, **columns), 0.0).cost.argmin())


@pytest.mark.parametrize(("prompt", "home"), [(500.0, {0, 1}), (20_000.0, {2, 3})])
def test_a_request_goes_to_the_stage_of_its_length(prompt: float, home: set[int]) -> None:
    request = example_request(prompt)

    scores = staged().score(request, example_rows(request, batch=[2, 3, 2, 3]), 0.0)

    assert set(np.argsort(scores.cost)[:2].tolist()) == home
    assert int(scores.cost.argmin()) == min(home)
    assert scores.because == "home"
    assert scores.reasons["stage"].tolist() == [0, 0, 1, 1]


def test_the_answer_to_be_expected_counts_for_the_length_unless_requests_move_on() -> None:
    request = example_request(4000.0)
    stays, moves = staged(), staged(migration=True)

    # 200 tokens are expected before any answer was seen: 4,200 in all.
    assert first(stays, request, batch=[1.0] * 4) in (2, 3)
    assert first(moves, request, batch=[1.0] * 4) in (0, 1)


def test_within_the_stage_the_inner_policy_decides() -> None:
    request = example_request(1600.0)
    pool = {"hit_tokens": [0.0, 800.0, 0.0, 0.0], "queued_tokens": [0.0, 0.0, 0.0, 0.0], "batch": [1.0, 1.0, 0.0, 0.0]}

    assert first(staged(), request, **pool) == 1


def test_a_hot_stage_overflows_to_its_neighbour() -> None:
    request = example_request(1000.0)
    hot = {"batch": [40.0, 40.0, 1.0, 1.0], "queued_tokens": [90_000.0, 90_000.0, 0.0, 0.0]}

    scores = staged().score(request, example_rows(request, **hot), 0.0)

    assert int(scores.cost.argmin()) in (2, 3)
    assert scores.because == "overflow"


def test_a_stage_further_away_takes_no_overflow() -> None:
    three = Plan(
        (
            Stage(0.0, 1024.0, (0,), 5.0, 1000.0),
            Stage(1024.0, 16_384.0, (1,), 5.0, 16_000.0),
            Stage(16_384.0, math.inf, (2,), 2.0, 60_000.0),
        ),
        "for a test",
    )
    policy = staged(plan=three)
    request = example_request(500.0)

    hot = {"batch": [50.0, 50.0, 0.0], "queued_tokens": [200_000.0, 150_000.0, 0.0]}
    assert first(policy, request, **hot) == 1


@pytest.mark.parametrize(("hit", "chosen"), [(20_000.0, {0}), (1_000.0, {2, 3})])
def test_a_prefix_elsewhere_is_worth_its_milliseconds_and_no_more(hit: float, chosen: set[int]) -> None:
    request = example_request(20_000.0)
    policy = staged(model=replace(MODEL, alpha=0.05))

    assert first(policy, request, hit_tokens=[hit, 0.0, 0.0, 0.0], batch=[2.0, 2.0, 0.0, 0.0]) in chosen


def test_engines_whose_cache_is_too_small_are_no_home() -> None:
    request = example_request(20_000.0)

    assert first(staged(), request, kv_tokens=[400_000.0, 400_000.0, 8_000.0, 8_000.0]) in (0, 1)


def test_of_a_subset_without_its_stage_any_engine_serves() -> None:
    request = example_request(500.0)

    assert first(staged(), request, slots=[2, 3], batch=[5.0, 1.0]) == 1


@settings(max_examples=40, deadline=None)
@given(data=st.data(), within=st.sampled_from(["multiplicative", "learned"]))
def test_with_a_plan_scores_are_still_costs_for_every_row(data: st.DataObject, within: str) -> None:
    policy, request = staged(within), data.draw(requests())
    rows = data.draw(pools(request))

    scores = policy.score(request, rows, 0.0)

    for column in (scores.cost, *scores.reasons.values()):
        assert column.shape == (len(rows),)
        assert not np.isnan(column).any()
    assert np.isfinite(scores.cost).any()


@settings(max_examples=40, deadline=None)
@given(data=st.data(), within=st.sampled_from(["multiplicative", "learned"]))
def test_without_a_plan_it_is_the_inner_policy_pick_for_pick(data: st.DataObject, within: str) -> None:
    policy, inner = make("staged", within=within), make(within)

    for flight in range(data.draw(st.integers(1, 8))):
        request = data.draw(requests())
        rows = data.draw(pools(request))
        ours, theirs = policy.score(request, rows, float(flight)), inner.score(request, rows, float(flight))
        np.testing.assert_array_equal(ours.cost, theirs.cost)
        assert (ours.by, ours.because) == (theirs.by, theirs.because)
        for one, scores in ((policy, ours), (inner, theirs)):
            one.picked(request, rows, int(ours.cost.argmin()), float(flight))
            if isinstance(one, Learns):
                one.reserved(flight, request, rows, int(ours.cost.argmin()), scores, 1.0, float(flight))
                one.ended(flight, Done(), float(flight))


def serve(policy: Staged, seconds: int, prompt_of: Callable[[int], float], rate: int = 10) -> None:
    """Answers of 200 tokens from four engines whose steps are as MODEL says, all in turn."""
    flight = 0
    for second in range(seconds):
        for i in range(rate):
            prompt = prompt_of(flight)
            request, batch = Request(prompt_tokens=prompt), float(1 + i % 4)
            rows: Rows = example_rows(request, batch=[batch] * 4, kv_tokens=[400_000.0] * 4)
            scores = policy.score(request, rows, float(second))
            row = int(scores.cost.argmin()) if policy.plan.staged else flight % 4
            policy.picked(request, rows, row, float(second))
            policy.reserved(flight, request, rows, row, scores, 1.0, float(second))
            ttft = 0.006 + (MODEL.prefill_ms * prompt + MODEL.work_ms * prompt**2 / 2e6) / 1e3
            policy.first_byte(flight, ttft, float(second))
            policy.ended(flight, Done(ttft_s=ttft, tpot_s=0.008 + 4e-8 * prompt), float(second))
            flight += 1
        think = policy.due(float(second))
        if think is not None:
            policy.adopt(think(), float(second))


def test_it_comes_to_a_plan_by_what_it_sees_and_the_plan_says_why() -> None:
    policy = make("staged")
    assert isinstance(policy, Staged)
    policy.meet(dict.fromkeys(range(4), Pod()), lambda slot: None)
    policy.know({"h100": replace(MODEL, kv_tokens=2e6)})

    serve(policy, 62, lambda flight: 60_000.0 if flight % 25 == 0 else 600.0, rate=25)

    assert policy.plan.staged, policy.plan.reason
    assert "saved is expected" in policy.plan.reason
    assert policy.boundaries[0].tokens > 800


def test_a_kv_size_that_is_not_told_is_the_scraped_one() -> None:
    policy = make("staged")
    assert isinstance(policy, Staged)
    policy.meet(dict.fromkeys(range(4), Pod()), lambda slot: None)
    policy.know({"h100": replace(MODEL, kv_tokens=0.0)})

    serve(policy, 62, lambda flight: 600.0)

    [model] = set(policy.models.values())
    assert 320_000 < model.kv_tokens <= 400_000
    assert model == replace(MODEL, kv_tokens=model.kv_tokens)


def test_like_lengths_are_never_staged() -> None:
    policy = make("staged")
    assert isinstance(policy, Staged)
    policy.meet(dict.fromkeys(range(4), Pod()), lambda slot: None)

    serve(policy, 62, lambda flight: 600.0)

    assert not policy.plan.staged
    assert policy.plan.reason.startswith("not staged: ")


def test_stages_that_are_laid_down_hold_before_anything_is_known_and_whatever_they_bring() -> None:
    policy = make("staged", stages=["0-512:1", "512-:1"])
    assert isinstance(policy, Staged)
    policy.meet(dict.fromkeys(range(2), Pod()), lambda slot: None)
    think = policy.due(0.0)
    assert think is not None
    policy.adopt(think(), 0.0)

    for prompt, home in ((300.0, 0), (600.0, 1)):
        # However unlike the loads are.
        assert first(policy, example_request(prompt), batch=[50.0 * (1 - home), 50.0 * home]) == home
    assert policy.outlook == "as laid down, parted at 512 tokens"


def test_stages_that_are_laid_down_do_not_follow_the_load() -> None:
    policy = make("staged", stages=["0-512:1", "512-:3"])
    assert isinstance(policy, Staged)
    policy.meet(dict.fromkeys(range(4), Pod()), lambda slot: None)

    serve(policy, 40, lambda flight: 300.0)

    assert policy.boundaries[0].tokens == pytest.approx(512)
    assert len(policy.plan.stages) == 2


@pytest.mark.parametrize("stages", [["0-512:1"], ["512-:1"], ["0-:x"]])
def test_stages_that_leave_lengths_out_are_a_mistake(stages: list[str]) -> None:
    with pytest.raises(ValueError, match="stage"):
        make("staged", stages=stages)


def test_the_plan_ends_with_an_engine_that_leaves_and_a_new_one_is_due() -> None:
    policy = staged()
    policy.meet(dict.fromkeys((0, 1, 2), Pod()), lambda slot: None)
    policy.left(3)

    request = example_request(20_000.0)
    assert first(policy, request, slots=[0, 1, 2], batch=[1.0, 1.0, 1.0]) == 2
    assert policy.due(0.0) is not None
    assert policy.due(1.0) is None


def test_what_learns_within_hears_of_the_rows_it_was_shown() -> None:
    policy = staged("learned")
    request = example_request(20_000.0)
    rows = example_rows(request, batch=[1.0, 1.0, 1.0, 1.0])
    scores = policy.score(request, rows, 0.0)

    policy.reserved(1, request, rows, 3, scores, 1.0, 0.0)
    policy.first_byte(1, 0.5, 0.5)
    policy.ended(1, Done(), 2.0)

    inner = innermost(policy)
    assert isinstance(inner, Learned)
    assert len(inner.learner.drain(3.0)) == 1


def test_a_plan_under_which_answers_take_longer_is_dropped() -> None:
    policy, request = staged(), example_request(600.0)
    rows = example_rows(request, batch=[1.0] * 4)
    plan = Thought(PLAN, dict.fromkeys(range(4), MODEL))

    def answers(first: int, tpot_s: float) -> None:
        for flight in range(first, first + 250):
            scores = policy.score(request, rows, 0.0)
            policy.reserved(flight, request, rows, 0, scores, 1.0, 0.0)
            policy.first_byte(flight, 0.1, 0.1)
            policy.ended(flight, Done(tpot_s=tpot_s), 1.0)

    policy.adopt(Thought(unstaged(range(4), "for a test", 10.0), {}), 0.0)
    answers(0, 0.010)
    policy.adopt(Thought(unstaged(range(4), "for a test", 10.0), {}), 10.0)
    policy.adopt(plan, 20.0)
    assert policy.plan.staged
    answers(1000, 0.012)
    policy.adopt(plan, 30.0)

    assert not policy.plan.staged
    assert "was promised and" in policy.outlook


def test_engines_that_all_report_another_kv_size_are_planned_as_few_kinds() -> None:
    watch, request = Watch(), example_request(100.0)
    rows = example_rows(request, kv_tokens=[1000.0 * 2**i for i in range(12)] + [math.inf, math.nan])
    for flight in range(120):
        watch.placed(flight, request, rows, 0, 300.0)
        watch.first_byte(flight, 0.1)
        watch.ended(flight, Done())

    models = watch.models(dict.fromkeys(range(14), ""), {})

    [kv_tokens] = {model.kv_tokens for model in models.values() if model is not None}
    assert 800 < kv_tokens <= 1000
    assert None not in models.values()
    assert watch.models({99: ""}, {}) == {99: None}
