"""The page says what the kept numbers say, and no more."""

import pytest
from planted import PLACE, cell, cells

from results import page, tables
from results.board import P99, TTFT, Board
from results.grid import BASELINE, SEEDS, Place
from results.record import Record

POOL = PLACE.pool


def board(factors: dict[str, tuple[float, ...]], **more: object) -> Board[Place]:
    return Board({PLACE: cells(factors, **more)})


def column(text: str, name: str) -> list[str]:
    head, _, *lines = ([part.strip() for part in line.strip("|").split("|")] for line in text.splitlines())
    return [line[head.index(name)] for line in lines]


def test_a_ratio_pairs_seeds_and_tells_how_sure_it_is() -> None:
    text = tables.ratios(board({"new": (0.8, 0.82, 0.78, 0.8, 0.8)}), POOL, TTFT)
    (ratio,) = column(text, "new")
    assert ratio.startswith("0.80 (0.7")
    assert column(text, "seeds") == ["5"]
    assert column(text, "lowest") == ["new"]


def test_too_few_seeds_have_no_interval() -> None:
    assert column(tables.ratios(board({"new": (0.8, 0.8)}), POOL, TTFT), "new") == ["0.80"]
    assert column(tables.ratios(board({"new": (0.8, 0.8)}), POOL, TTFT), "seeds") == ["2–5"]


def test_who_cannot_be_told_from_the_lowest_is_named_with_it() -> None:
    text = tables.ratios(board({"lucky": (0.5, 1.5, 0.9, 1.2, 0.7), "slow": (2.0,) * 5}), POOL, TTFT)
    assert column(text, "lowest") == [f"lucky = {BASELINE}"]


def test_a_policy_that_did_not_run_everywhere_says_in_how_many_cells_it_did() -> None:
    some = [*cells({"new": (0.5,) * 5}), cell(BASELINE, 0, 100.0, load=0.95)]
    text = tables.glance(Board({PLACE: some}), POOL)
    assert column(text, "cells") == ["2", "1"]
    assert column(text, "mean TTFT") == ["1.00", "0.50"]


def test_refused_requests_are_shown_where_policies_differ_in_them() -> None:
    assert tables.lost(board({"new": (0.5,) * 5}), POOL) == ""
    assert column(tables.lost(board({"new": (0.5,) * 5}, completed=90), POOL), "new") == ["10.0%"]


def test_what_was_not_measured_is_a_dash() -> None:
    nothing = {"mean": None, "p50": None, "p90": None, "p99": None}
    text = tables.ratios(board({"new": (1.0,)}, ttft_ms=nothing), POOL, P99)
    assert column(text, "new") == ["–"]


def test_a_loss_is_named_only_where_it_is_more_than_luck() -> None:
    lucky, better = board({"new": (0.5, 1.5, 0.9, 1.2, 0.7)}), board({"new": (0.8,) * 5, "clairvoyant-ttft": (0.5,)})
    assert len(tables.losses(lucky, [POOL]).splitlines()) == 2
    assert column(tables.losses(better, [POOL]), "lowest") == ["new"]
    assert column(tables.losses(better, [POOL]), "mean TTFT") == ["0.80 (0.80–0.80)"]


def test_a_policy_that_learns_is_no_loss_to_a_rule() -> None:
    assert len(tables.losses(board({"learned": (0.5,) * 5}), [POOL]).splitlines()) == 2


def test_where_the_learned_policy_is_worse_is_said_and_nowhere_else() -> None:
    assert tables.learned_worse(board({"learned": (1.019,) * 5}), [POOL]) == ""
    assert column(tables.learned_worse(board({"learned": (1.03,) * 5}), [POOL]), "mean TTFT") == ["1.03 (1.03–1.03)"]


def test_what_the_paper_says_stands_beside_what_is_seen_here() -> None:
    text = tables.published(board({"jsq": (4.0,) * 5}), POOL)
    changed = dict(zip(column(text, "against"), column(text, "mean TTFT here"), strict=True))
    assert changed["jsq"] == "-75% (-75% to -75%)"
    assert changed["preble"] == "–"


def test_bounds_win_nothing_and_stand_beside_the_best_that_can_be_shipped() -> None:
    known = board({"clairvoyant-ttft": (0.5,), "clairvoyant-total": (0.7,), "new": (0.9,) * 5})
    assert column(tables.ratios(known, POOL, TTFT), "lowest") == ["new"]
    text = tables.bounds(known, POOL)
    assert column(text, "clairvoyant-ttft: TTFT") == ["0.50"]
    assert column(text, "lowest of the shipped")[0].endswith("new")


def test_hardware_classes_show_who_got_the_long_prompts() -> None:
    classes = [
        {"type": "a", "engines": 8, "busy_share": 0.5, "requests": 75, "prompt_tokens": 900.0, "ttft_ms": 50.0},
        {"type": "b", "engines": 4, "busy_share": 0.9, "requests": 25, "prompt_tokens": 9000.0, "ttft_ms": 5000.0},
    ]
    first = Board({PLACE: [cell(BASELINE, SEEDS[0], 100.0, classes=classes)]})
    text = tables.classes(first, POOL, 0.8, [BASELINE])
    assert "75.0% | 900 | 50 | 50.0% | 25.0% | 9,000 | 5,000 | 90.0%" in text


def test_without_any_cell_there_is_no_page() -> None:
    with pytest.raises(ValueError, match="no cell"):
        page.render({PLACE: Record("x")})


def test_the_page_is_what_the_kept_numbers_say() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.render(page.read_all()), "run: python -m results.page"
