"""Stages are judged on the same requests as the baseline, and the page says what was kept and what was missed."""

from pathlib import Path
from typing import Any

from planted import cell as planted

from results.board import Board
from results.stages import BASELINE, CASES, MOVED, PLACED, POLICIES, SEEDS, Case, policies_of, tasks
from results.stages_page import PAGE, moves, played, ratios, render, verdicts
from results.stages_run import play, read_all

CASE = CASES[0]
RATE = max(CASE.rates)
FREE = next(case for case in CASES if case.alpha == 0)
NOBODY = {"offered": 0, "given_up": 0, "moved": 0, "resumed": 0, "gigabytes": 0.0, "gap_ms": {"mean": None}}
SOME = NOBODY | {"offered": 9, "moved": 7, "gigabytes": 3.0, "gap_ms": {"mean": 60.0, "p99": 90.0}}


def cell(
    policy: str, e2e: float, good: float, rate: float = RATE, moved: dict[str, Any] | None = None
) -> dict[str, Any]:
    spread = {"mean": e2e, "p50": e2e, "p90": e2e, "p99": 2 * e2e}
    return planted(policy, SEEDS[0], 100.0, load=rate, e2e_ms=spread, goodput=good, moved=moved)


def board(e2e: float, good: float, case: Case = CASE) -> Board[Case]:
    rate = max(case.rates)
    return Board({case: [cell(BASELINE, 1000.0, 2.0, rate), cell(MOVED, e2e, good, rate, SOME)]})


def test_the_page_is_made_of_the_numbers_that_are_kept() -> None:
    assert Path(PAGE).read_text(encoding="utf-8") == render(read_all())


def test_a_target_is_met_only_where_it_is_reached() -> None:
    assert [said.rsplit(": ", 1)[1] for said in verdicts(board(590.0, 3.2))] == ["E2E and good requests met."]
    assert [said.rsplit(": ", 1)[1] for said in verdicts(board(610.0, 3.2))] == ["good requests met."]
    assert [said.rsplit(": ", 1)[1] for said in verdicts(board(590.0, 2.9))] == ["E2E met."]
    assert [said.rsplit(": ", 1)[1] for said in verdicts(board(610.0, 2.9))] == ["missed."]


def test_where_unlike_lengths_are_free_one_percent_is_allowed() -> None:
    assert verdicts(board(1009.0, 2.0, FREE))[0].endswith(": met.")
    assert "missed by mean end-to-end time x1.01" in verdicts(board(1014.0, 2.0, FREE))[0]


def test_ratios_are_to_the_baseline_at_the_same_rate() -> None:
    assert "| 0.50 | 0.50 | 1.00 | 1.00 | 1.50 |" in ratios(board(500.0, 3.0))


def test_moves_are_told_as_a_share_of_all_requests() -> None:
    assert f"| 9 | 0 | 7 | {7 / CASE.requests:.0%} | 3 | 60 | 90 |" in moves(board(500.0, 3.0))


def test_a_rate_without_its_baseline_is_not_shown() -> None:
    assert played(Board({CASE: [cell(MOVED, 1.0, 1.0)]})) == []


def test_every_case_plays_the_baseline_and_requests_that_move() -> None:
    for case in CASES:
        for rate in case.rates:
            assert {BASELINE, MOVED} <= set(policies_of(case, rate)) <= set(POLICIES)
    assert PLACED in policies_of(CASE, RATE)
    assert next(tasks()).case is CASES[0]


def test_a_cell_is_played_at_its_rate_and_told_of_moves() -> None:
    tiny = Case("tiny", "tiny", "gen:x?requests=60&mix=short", "h100_sxm/llama-3-8b tp1:2", 0.2, (10.0,), 60, 10)
    task = next(tasks())
    kept = play(type(task)(tiny, MOVED, 10.0, 1))
    assert (kept["requests"], kept["completed"], kept["load"]) == (50, 50, 10.0)
    assert kept["moved"]["moved"] == 0
