"""Cases change mid-run at known times, are counted from their first request on, and the page says what was kept."""

from dataclasses import replace
from pathlib import Path

import pytest
from planted import cell as planted

from picker.simulator.generator import generate
from picker.simulator.learning_time import Windows
from results import shifts_run
from results.board import TTFT, Board, Ratio
from results.shifts import (
    ABLATED,
    ABLATION_SEEDS,
    ABLATIONS,
    BASELINE,
    BOUND,
    CASES,
    LEARNED,
    POLICIES,
    ROLLOUT,
    SEEDS,
    Case,
    Pace,
    Task,
    paced,
    tasks,
)
from results.shifts_page import PAGE, render
from results.shifts_run import play, read_all
from results.shifts_tables import (
    Part,
    ablations,
    aim,
    bounds,
    learning,
    lost,
    phases,
    ratio_before,
    targets,
    times,
    verdicts,
    windows,
)

POOL = "h100_sxm/llama-3-8b tp1:2"
TINY = Case("tiny", "tiny", "gen:x?requests=90", POOL, (Pace("slow", 30, 5.0), Pace("fast", 60, 20.0)), rollout=True)
HUNDRED_MS = [[10, 1000.0]] * 12
"""Two minutes of a request a second."""


def cell(policy: str, ttft: float, bins: list[list[float]], seed: int = SEEDS[0]) -> dict[str, object]:
    parts = [planted(policy, seed, ttft * factor) for factor in (1, 2, 3)]
    return planted(policy, seed, ttft, load=None, bins=bins, phases=parts, tail=parts[0], reasons={})


def board(ttft: dict[str, float], bins: dict[str, list[list[float]]]) -> Board[Case]:
    return Board({CASES[0]: [cell(name, value, bins.get(name, HUNDRED_MS)) for name, value in ttft.items()]})


def test_a_pace_lasts_as_long_as_its_requests_take_and_keeps_their_order() -> None:
    found = paced(generate(TINY.trace, seed=1), TINY.paces)
    assert [job.index for _, job in found.arrivals] == list(range(90))
    assert found.arrivals[30][0] == pytest.approx(6_000)
    assert TINY.borders_s == [6.0]
    assert 8_000 < found.arrivals[-1][0] < 9_000


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_last_seeds_stretch_is_as_long_as_the_case_asks(case: Case) -> None:
    case.setting(SEEDS[-1]).pool_events()
    assert case.workload(SEEDS[-1]).jobs == case.requests


def test_all_policies_meet_every_case_before_any_part_is_left_out() -> None:
    order = list(tasks())
    whole = [task for task in order if task.policy in POLICIES]
    assert len(whole) == len(CASES) * len(POLICIES) * len(SEEDS)
    assert [task.seed for task in whole] == sorted(task.seed for task in whole)
    parts = [task for task in order if "?" in task.policy]
    assert len(parts) == len(ABLATED) * len(ABLATIONS) * len(ABLATION_SEEDS)
    assert order.index(parts[0]) > order.index(whole[-1])


def test_titles_may_change_but_what_is_played_may_not() -> None:
    assert replace(TINY, title="other", bound=False, rollout=False).key() == TINY.key()
    assert replace(TINY, pool="l40s/llama-3-8b tp1:2").key() != TINY.key()


def test_a_cell_tells_its_phases_its_minutes_and_who_decided() -> None:
    kept = play(Task(TINY, LEARNED, SEEDS[0]))
    assert [part["timed"] for part in kept["phases"]] == [30, 60]
    assert sum(count for count, _ in kept["bins"]) == kept["completed"] == 90
    assert sum(total for _, total in kept["bins"]) / 90 == pytest.approx(kept["ttft_ms"]["mean"], rel=1e-3)
    assert sum(kept["reasons"].values()) == 90
    assert kept["reasons"]["rule: cold"] > 40


def test_the_rollout_plays_the_last_requests_and_the_baseline_what_leads_up_to_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shifts_run, "TAIL", 30)
    theirs, base = (play(Task(TINY, policy, SEEDS[0])) for policy in (ROLLOUT, BASELINE))
    assert theirs["tail"]["timed"] == 30
    assert theirs["phases"][0]["ttft_ms"] == base["phases"][0]["ttft_ms"]
    assert theirs["tail"] != base["tail"]


def test_the_clairvoyant_ttft_beats_the_rule_on_its_own_figure() -> None:
    bound, base = (play(Task(TINY, policy, SEEDS[0]))["ttft_ms"]["mean"] for policy in (BOUND, BASELINE))
    assert bound < base


def test_learning_time_is_by_the_minute_and_its_price_is_what_came_before() -> None:
    ours = [[10, 2000.0]] * 6 + [[10, 100.0]] * 6
    text = learning(board({BASELINE: 100, "prefix-and-load": 100, LEARNED: 90}, {LEARNED: ours}))
    assert "| 60 | 2.00 |" in text
    assert windows(ours).ttft_ms == [200.0, 10.0]
    assert ratio_before(ours, HUNDRED_MS, 0.0) is None


def test_minutes_without_a_request_are_none() -> None:
    assert windows([[10, 900.0]] * 6 + [[0, 0.0]] * 6 + [[1, 30.0]]).t_s == [0.0, 120.0]
    assert windows([]) == Windows()


def test_a_request_that_some_engine_cannot_hold_is_in_no_time_whoever_takes_it(tmp_path: Path) -> None:
    trace = tmp_path / "one_long.csv"
    trace.write_text("t,input_length,output_length\n0,200000,5\n1,100,5\n2,100,5\n")
    case = Case("long", "long", str(trace), "h100_sxm/llama-3-8b tp1,l40s/llama-3-8b tp1", (Pace("all", 3, 1.0),))
    cells = [play(Task(case, policy, SEEDS[0])) for policy in (BOUND, BASELINE)]
    assert [cell["timed"] for cell in cells] == [2, 2]
    assert cells[0]["completed"] == cells[0]["requests"] == 3


def test_what_was_not_completed_is_told() -> None:
    cells = {policy: cell(policy, 100, HUNDRED_MS) for policy in POLICIES}
    cells[LEARNED]["completed"] = 98
    assert lost(Board({CASES[0]: cells.values()})).endswith("| 0.0% | 0.0% | 2.0% |")
    assert lost(board(dict.fromkeys(POLICIES, 100.0), {})) == ""


def test_never_better_is_said_with_the_loss_of_the_whole_run() -> None:
    text = learning(board({BASELINE: 100, "prefix-and-load": 100, LEARNED: 120}, {LEARNED: [[10, 1200.0]] * 12}))
    assert "| never | 1.20 |" in text


def test_a_target_that_is_met_is_bold_and_a_loss_beyond_two_percent_is_shown() -> None:
    met = targets(board({BASELINE: 130, "prefix-and-load": 200, LEARNED: 100}, {}))
    assert "| **2.00x** | 1.25x | **1.30x** |" in met
    assert met.endswith("| 0.77 | 1.00 | yes |")
    missed = targets(board({BASELINE: 95, "prefix-and-load": 200, LEARNED: 100}, {}))
    assert missed.endswith("| 1.05 | 1.00 | **no** |")


def test_the_words_name_what_was_missed_and_by_how_much() -> None:
    told = verdicts(board({BASELINE: 95, "prefix-and-load": 200, LEARNED: 100}, {}))
    title = CASES[0].title
    assert told[0] == "Beside `prefix-and-load`: met in 1 of 1 cases. Missed: none."
    assert told[1] == f"Beside `{BASELINE}`: met in 0 of 1 cases. Missed: {title} (0.95x of 1.25x)."
    assert told[2] == f"mean TTFT, to the better rule: more than 2 % worse on: {title} (1.05)."
    assert told[4] == "mean TPOT, to the better rule: more than 2 % worse on: none."


def test_a_target_that_is_met_by_losing_requests_is_not_met() -> None:
    cells = {BASELINE: 130, "prefix-and-load": 200, LEARNED: 100}
    kept = {policy: cell(policy, ttft, HUNDRED_MS) for policy, ttft in cells.items()}
    kept[LEARNED]["completed"] = 98
    losing = Board({CASES[0]: kept.values()})
    assert "| 2.00x | 1.25x | 1.30x |" in targets(losing)
    assert targets(losing).endswith("| yes, but loses more |")
    assert CASES[0].title in verdicts(losing)[-1]


def test_a_target_that_is_nearly_met_is_missed() -> None:
    assert times(Ratio(1 / 1.249, 3), 1.25) == "1.24x"
    assert times(Ratio(1 / 1.25, 3), 1.25) == "**1.25x**"


def test_the_bounds_gain_is_what_others_are_measured_by() -> None:
    text = bounds(board({BASELINE: 100, "prefix-and-load": 150, LEARNED: 90, BOUND: 75}, {}))
    assert text.endswith("| 1.50 / 1.00 | 0.90 / 1.00 | 0.75 / 1.00 | 40% | 2.00x |")


def test_a_part_is_worth_what_the_policy_loses_without_it() -> None:
    case = next(case for case in CASES if case.name in ABLATED)
    part = next(iter(ABLATIONS))
    ttft = {BASELINE: 100, "prefix-and-load": 100, LEARNED: 80, f"{LEARNED}?{part}": 120}
    head, _, *lines = ablations(Board({case: [cell(name, ms, HUNDRED_MS) for name, ms in ttft.items()]})).splitlines()
    assert case.title in head
    assert lines == [f"| {ABLATIONS[part]} (`{part}`) | 1 | 1.50 / 1.50 / 1.00 |"]


def test_like_engines_are_promised_less_than_unlike_ones() -> None:
    aims = {case.name: (aim(case, "prefix-and-load"), aim(case, BASELINE)) for case in CASES}
    assert aims["slowed"] == (1.41, None)
    assert aims["agentic-close"] == (1.41, 1.1)
    assert aims["load"] == (1.9, 1.25)
    assert times(None, 1.9) == "–"


def test_a_phase_is_compared_with_the_same_phase() -> None:
    two = board({BASELINE: 100, "prefix-and-load": 200, LEARNED: 50}, {})
    assert Part("phases", 1, TTFT).of(two.at(CASES[0], LEARNED, None)[SEEDS[0]]) == 100
    line = next(line for line in phases(two).splitlines() if "12 a second" in line)
    assert "| 200 | 0.50 |" in line
    assert line.endswith("| 0.25 |")


def test_the_page_says_what_was_kept() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(read_all(CASES))


def test_a_page_without_cells_is_refused() -> None:
    with pytest.raises(ValueError, match="no cell"):
        render({})
