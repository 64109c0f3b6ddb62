"""A verdict says who is better, by how much and how sure that is; or that it cannot be said."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.simulator.verdict import Verdict, bootstrap_interval, compare


def cell(
    policy: str, seed: int, ttft: float, *, load: float | None = 0.8, goodput: float = 5.0, **more: object
) -> dict[str, Any]:
    times = {"mean": ttft, "p50": ttft, "p90": ttft, "p99": 3 * ttft}
    flat = {"mean": 20.0, "p50": 20.0, "p90": 20.0, "p99": 20.0}
    return {
        "policy": policy, "load": load, "seed": seed, "ttft_ms": times, "tpot_ms": flat, "e2e_ms": flat,
        "goodput": goodput, "requests": 100, "completed": 100, **more,
    }  # fmt: skip


def of(verdicts: list[Verdict], policy: str = "new", metric: str = "mean TTFT") -> Verdict:
    (found,) = (v for v in verdicts if v.policy == policy and v.metric == metric)
    return found


HARD = (100.0, 500.0, 2500.0, 220.0, 900.0)
"""Mean TTFT of the baseline by seed: seeds differ far more than policies do."""


def test_a_planted_effect_is_found_though_seeds_differ_far_more_than_policies() -> None:
    new = [
        cell("new", seed, hard / ratio)
        for seed, (hard, ratio) in enumerate(zip(HARD, (1.2, 1.3, 1.2, 1.25, 1.22), strict=True))
    ]

    verdict = of(compare([cell("old", seed, hard) for seed, hard in enumerate(HARD)] + new, "old"))

    assert (verdict.outcome, verdict.seeds) == ("better", 5)
    assert verdict.ratio == pytest.approx(1.234, abs=0.001)
    assert verdict.text.startswith("new is 1.23x (1.20-1.")
    assert verdict.text.endswith(") better than old in mean TTFT at load 0.8")


def test_the_same_effect_is_a_loss_from_the_other_side() -> None:
    cells = [cell("old", s, 100.0 + s) for s in range(4)] + [
        cell("new", s, (100.0 + s) * (1.5 + s / 50)) for s in range(4)
    ]

    there, back = of(compare(cells, "old")), of(compare(cells, "new"), "old")

    assert (there.outcome, back.outcome) == ("worse", "better")
    assert there.factor == back.factor
    assert there.text == f"new is {back.factor} worse than old in mean TTFT at load 0.8"


def test_a_difference_whose_sign_changes_with_the_seed_is_no_verdict() -> None:
    cells = [cell("old", s, 100.0) for s in range(3)] + [cell("new", s, t) for s, t in enumerate((80.0, 101.0, 90.0))]

    verdict = of(compare(cells, "old"))

    assert verdict.outcome == "undecided"
    assert verdict.text == "new and old cannot be told apart in mean TTFT at load 0.8: 1.11x (0.99-1.25)"


def test_a_difference_too_small_to_matter_is_called_even() -> None:
    cells = [cell("old", s, 100.0) for s in range(5)] + [cell("new", s, 99.9) for s in range(5)]

    assert of(compare(cells, "old")).text == "new and old are even in mean TTFT at load 0.8: 1.00x (1.00-1.00)"


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_common_seeds_give_no_verdict(seeds: int) -> None:
    cells = [cell("old", s, 100.0) for s in range(5)] + [cell("new", s, 10.0) for s in range(seeds)]

    verdict = of(compare(cells, "old"))

    assert (verdict.outcome, verdict.ratio) == ("not enough seeds", None)
    assert (
        verdict.text == f"not enough seeds to judge new and old in mean TTFT at load 0.8: {seeds} in common, 3 needed"
    )


def test_seeds_that_only_one_of_them_ran_do_not_count() -> None:
    cells = [cell("old", s, 100.0) for s in (0, 1, 2, 3)] + [cell("new", s, 50.0) for s in (1, 2, 3, 9)]

    assert of(compare(cells, "old")).seeds == 3


def test_more_goodput_is_better() -> None:
    cells = [cell("old", s, 1.0, goodput=4.0) for s in range(3)] + [cell("new", s, 1.0, goodput=5.0) for s in range(3)]

    assert (
        of(compare(cells, "old"), metric="goodput").text
        == "new is 1.25x (1.25-1.25) better than old in goodput at load 0.8"
    )


@pytest.mark.parametrize("nothing", [{"goodput": 0.0}, {"goodput": math.inf}])
def test_a_rate_of_zero_has_no_ratio(nothing: dict[str, Any]) -> None:
    cells = [cell("old", s, 1.0) for s in range(3)] + [cell("new", s, 1.0, **nothing) for s in range(3)]

    assert of(compare(cells, "old"), metric="goodput").outcome == "no ratio"


def test_a_run_that_completed_nothing_has_no_ratio() -> None:
    nothing = dict.fromkeys(("mean", "p50", "p90", "p99"))
    cells = [cell("old", s, 1.0) for s in range(3)] + [cell("new", s, 1.0, ttft_ms=nothing) for s in range(3)]

    assert "zero or missing" in of(compare(cells, "old")).text


def test_a_policy_that_is_fast_because_it_loses_requests_is_told_on() -> None:
    cells = [cell("old", s, 100.0) for s in range(3)] + [cell("new", s, 50.0, completed=80) for s in range(3)]

    assert of(compare(cells, "old")).text.endswith("(mind: new lost 20.0% of its requests, old 0.0%)")


def test_every_policy_load_and_metric_has_its_line() -> None:
    cells = [
        cell(policy, seed, 100.0, load=load) for policy in ("a", "b", "c") for load in (0.5, 0.9) for seed in range(3)
    ]

    verdicts = compare(cells, "b")

    assert {(v.policy, v.at) for v in verdicts} == {(p, at) for p in "ac" for at in ("load 0.5", "load 0.9")}
    assert len(verdicts) == 2 * 2 * 5


def test_a_time_scale_stands_in_for_a_load() -> None:
    cells = [cell(policy, seed, 100.0, load=None, time_scale=2.0) for policy in ("old", "new") for seed in range(3)]

    assert of(compare(cells, "old")).at == "time scale 2"


@pytest.mark.parametrize(
    ("cells", "complaint"),
    [
        ([cell("a", 0, 1.0)], "baseline 'old' did not run; there are: a"),
        ([cell("old", 0, 1.0), cell("old", 0, 2.0)], "old at load 0.8 with seed 0 is given twice"),
        ([{"policy": "old"}], "cell 0: .*load"),
        ([{**cell("old", 0, 1.0), "ttft_ms": 7}], "cell 0: .*ttft_ms"),
    ],
)
def test_what_cannot_be_compared_is_refused(cells: list[dict[str, Any]], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        compare(cells, "old")


def test_nothing_compares_to_nothing() -> None:
    assert compare([], "old") == []


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=9))
def test_an_interval_holds_the_mean_and_stays_within_the_values(values: list[float]) -> None:
    low, high = bootstrap_interval(values)

    assert min(values) <= low <= np.mean(values) + 1e-9
    assert np.mean(values) - 1e-9 <= high <= max(values)
    assert bootstrap_interval(values) == (low, high)


def test_with_three_seeds_the_interval_is_the_whole_range() -> None:
    assert bootstrap_interval([0.1, 0.4, 0.2]) == pytest.approx((0.1, 0.4), abs=1e-4)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(7)

    def covered(count: int) -> float:
        pairs = (bootstrap_interval(rng.normal(size=count)) for _ in range(400))
        return float(np.mean([low <= 0 <= high for low, high in pairs]))

    assert covered(5) > 0.9
    assert 0.92 < covered(12) < 0.98


def test_an_interval_of_one_value_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two"):
        bootstrap_interval([1.0])
