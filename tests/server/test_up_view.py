"""The live table of `picker up`."""

import doctest
from typing import Any

from rich.console import Console

from picker.server.up import view
from picker.server.up.handoff import Beside, HandedOff, Tally
from picker.server.up.view import handoff_table, progress, screen

ENGINE: dict[str, Any] = {
    "address": "127.0.0.1:1",
    "hardware": "l40s/llama-3-8b tp1",
    "running": 2.0,
    "waiting": 0.0,
    "kv_usage": 0.25,
    "queued_tokens": 512.0,
    "failing": None,
    "picks": 70,
    "recent_picks": 30,
    "failed": 0,
    "prefix_hit_ratio": 0.5,
    "ttft_ms": {"p50": 80.0, "p99": 400.0},
}
LEARNED = {
    "by": "model",
    "because": "none",
    "version": 12,
    "age_s": 3.4,
    "rows": 480,
    "error": 0.11,
    "baseline_error": 0.31,
    "ttft_ms": {"rule": {"mean": 512.4, "answers": 31}, "model": {"mean": 312.2, "answers": 256}},
}


def shown(endpoints: list[dict[str, Any]], learning: dict[str, Any] | None, width: int = 100) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(screen("learned", endpoints, learning, progress()))
    return capture.get()


def test_every_engine_is_shown_with_its_hardware_and_its_share_of_the_latest_picks() -> None:
    text = shown([ENGINE, {**ENGINE, "address": "127.0.0.1:2", "hardware": "h100_sxm/x", "recent_picks": 90}], None)
    first, second = (line for line in text.splitlines() if "512" in line)
    assert first.split() == ["1", "l40s", "2", "0", "25", "512", "50", "70", "25", "0", "80", "400"]
    assert ("h100" in second, " 75 " in second) == (True, True)


def test_the_table_fits_a_narrow_terminal() -> None:
    busy = {**ENGINE, "address": "127.0.0.1:32767", "running": 100, "waiting": 1000, "queued_tokens": 99999}
    text = shown([{**busy, "picks": 10000, "ttft_ms": {"p50": 12345.0, "p99": 54321.0}}], None, width=80)
    assert "…" not in text


def test_a_policy_that_learns_says_who_decides_and_how_both_fare() -> None:
    text = shown([ENGINE], LEARNED)
    assert "the model decides; version 12, 3 s old, 480 answers seen, predictions off by x1.12\n" in text
    assert "mean TTFT of the last minute: by the model 312 ms over 256, by the rule 512 ms over 31" in text


def test_before_the_first_answer_nothing_is_made_up() -> None:
    cold = {**LEARNED, "by": "rule", "because": "cold", "version": 0, "rows": 0, "error": None, "ttft_ms": {}}
    assert "the rule decides: cold; no model yet, 0 answers seen\nmean TTFT of the last minute: -" in shown([], cold)


def test_behind_proxies_the_stages_and_the_streams_that_crossed_them_are_shown() -> None:
    first = Beside(0.0, 256.0, Tally(taken=1, moved=12, saved=2, gap_s=0.03), pid=4711, alive=False)
    last = Beside(256.0, None, Tally(taken=12, moved=1), pid=4712, alive=True)
    console = Console(width=80)
    with console.capture() as capture:
        handed = HandedOff("as laid down", {"127.0.0.1:1": first, "127.0.0.1:2": last})
        console.print(screen("staged", [ENGINE], None, progress(), handed))
    text = capture.get()

    rows = [line.split() for line in text.splitlines() if "256" in line]
    assert rows == [["1", "0-256", "1", "12", "2", "dead"], ["2", "256-", "12", "1", "0", "kill", "-9", "4712"]]
    assert "13 streams moved, 2 outlived their engine; a move's median gap 30 ms" in text


def test_without_a_plan_all_lengths_are_everybodys() -> None:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(handoff_table(HandedOff("", {"127.0.0.1:1": Beside(None, None, Tally(), pid=1, alive=True)})))
    assert ["1", "all", "0", "0", "0", "kill", "-9", "1"] in [line.split() for line in capture.get().splitlines()]


def test_the_examples_hold() -> None:
    assert doctest.testmod(view).failed == 0
