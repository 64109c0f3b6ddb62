"""From when on a learning policy stays better than the baseline, window by window and seed by seed."""

from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.simulator.learning_time import Windows, learning_times, stays_better, with_learning_times


def minutes(*ttft_ms: float, requests: int = 10) -> Windows:
    times = [60.0 * number for number in range(len(ttft_ms))]
    return Windows(60.0, times, list(ttft_ms), [requests] * len(ttft_ms))


def cell(policy: str, seed: int, *ttft_ms: float, learns: bool = False, load: float = 0.8) -> dict[str, Any]:
    nothing = dict.fromkeys(("mean", "p50", "p90", "p99"))
    arrived = {"t_s": [60.0 * i for i in range(len(ttft_ms))], "ttft_ms": [*ttft_ms], "requests": [9] * len(ttft_ms)}
    times = {"ttft_ms": nothing, "tpot_ms": nothing, "e2e_ms": nothing, "goodput": 0.0}
    series: dict[str, Any] = {"arrived": arrived, "learning": {"version": []} if learns else None}
    return {"policy": policy, "load": load, "seed": seed, **times, "series": series}


def replay(*learned: tuple[float, ...]) -> list[dict[str, Any]]:
    """One seed for each column of TTFT; the baseline's is 100 ms throughout."""
    ours = [cell("learned", seed, *ttft, learns=True) for seed, ttft in enumerate(learned)]
    return [*ours, *(cell("rule", seed, *[100.0] * len(ttft)) for seed, ttft in enumerate(learned))]


BETTER_LATER, BETTER_AT_ONCE, NEVER = (120.0, 100.0, 60.0, 70.0), (90.0, 50.0, 50.0, 50.0), (100.0,) * 4


def test_learning_takes_until_the_first_window_that_is_better_for_good() -> None:
    assert stays_better(minutes(120, 100, 60, 70), minutes(100, 100, 100, 100)) == 120.0


def test_a_worse_window_later_costs_nothing_while_the_lead_is_larger() -> None:
    assert stays_better(minutes(100, 50, 120, 60), minutes(100, 100, 100, 100)) == 60.0


def test_a_lead_that_is_lost_again_does_not_count() -> None:
    assert stays_better(minutes(100, 90, 180, 60), minutes(100, 100, 100, 100)) == 180.0
    assert stays_better(minutes(50, 50, 300), minutes(100, 100, 100)) is None


def test_half_a_percent_is_no_lead() -> None:
    assert stays_better(minutes(99.6, 99.6), minutes(100, 100)) is None
    assert stays_better(minutes(99.4, 99.4), minutes(100, 100)) == 0.0


def test_only_windows_that_both_have_are_compared() -> None:
    ours = Windows(60.0, [0.0, 120.0, 240.0], [500.0, 10.0, 10.0], [1, 1, 1])
    theirs = Windows(60.0, [60.0, 120.0, 180.0], [1.0, 20.0, 1.0], [1, 1, 1])
    assert stays_better(ours, theirs) == 120.0
    assert stays_better(ours, Windows()) is None


@given(st.lists(st.tuples(st.floats(1, 1e4), st.floats(1, 1e4), st.integers(1, 99)), min_size=1, max_size=30))
def test_from_then_on_the_policy_is_never_behind_and_from_no_earlier_window(
    drawn: list[tuple[float, float, int]],
) -> None:
    times = [60.0 * number for number in range(len(drawn))]
    ours, theirs = [mine for mine, _, _ in drawn], [other for _, other, _ in drawn]
    counts = [count for _, _, count in drawn]
    found = stays_better(Windows(60.0, times, ours, counts), Windows(60.0, times, theirs, counts))

    gains = [count * (0.995 * other - mine) for mine, other, count in drawn]
    leads = [min(accumulate(gains[start:])) for start in range(len(gains))]
    first = len(gains) if found is None else times.index(found)
    assert all(lead > -1e-3 for lead in leads[first : first + 1])
    assert all(lead < 1e-3 for lead in leads[:first])


def test_seeds_are_paired_and_their_median_is_told() -> None:
    (time,) = learning_times(replay(BETTER_LATER, BETTER_AT_ONCE, BETTER_LATER), "rule")
    assert time.by_seed == {0: 120.0, 1: 0.0, 2: 120.0}
    assert (
        time.text == "learned stays better than rule in TTFT at load 0.8 from 120 s on (median of 3 seeds; 0 to 120 s)"
    )


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ([BETTER_AT_ONCE], "from 0 s on (one seed)"),
        ([BETTER_LATER, BETTER_LATER, NEVER], "from 120 s on (median of 3 seeds; 120 to 120 s, not with 1)"),
        ([BETTER_LATER, NEVER], "stays better than rule in TTFT at load 0.8 with 1 of 2 seeds only"),
        ([NEVER, NEVER], "learned never stays better than rule in TTFT at load 0.8 (2 seeds)"),
    ],
)
def test_seeds_that_never_come_to_it_are_owned_up_to(seeds: list[tuple[float, ...]], said: str) -> None:
    (time,) = learning_times(replay(*seeds), "rule")
    assert time.text.endswith(said)


def test_the_baseline_and_policies_that_do_not_learn_have_no_learning_time() -> None:
    cells = [*replay(BETTER_LATER), cell("other", 0, *BETTER_AT_ONCE)]
    assert [time.policy for time in learning_times(cells, "rule")] == ["learned"]
    assert learning_times(cells, "learned") == []


def test_each_load_has_its_own_and_needs_the_baseline_there() -> None:
    alone = cell("learned", 0, *BETTER_LATER, learns=True, load=0.5)
    assert [time.at for time in learning_times([alone, *replay(BETTER_LATER)], "rule")] == ["load 0.8"]


def test_cells_tell_their_own_learning_time() -> None:
    cells = replay(BETTER_LATER, NEVER)
    told = with_learning_times(cells, learning_times(cells, "rule"))
    assert [one["learning_time"] for one in told] == [
        {"baseline": "rule", "better_from_s": 120.0},
        {"baseline": "rule", "better_from_s": None},
        None,
        None,
    ]


def test_what_is_no_cell_is_refused_with_its_number() -> None:
    cells = [*replay(BETTER_LATER), cell("learned", 1, 3.0, learns=True)]
    cells[2]["series"]["arrived"]["requests"] = []
    with pytest.raises(ValueError, match=r"cell 2: .*unlike lengths"):
        learning_times(cells, "rule")
