"""Cells are run once, in an order in which what is there is always a whole table, and kept small."""

import itertools
from pathlib import Path

import pytest
from planted import cell

from picker.simulator.ended import Ended
from results import run
from results.grid import BOUND_SEEDS, BOUNDS, LOADS, PLACES, POLICIES, SEEDS, TRACES, Place, Pool, Task, Trace, tasks
from results.record import Record, kept_cell, read, write
from results.run import Desk, run_missing, run_task

TINY = Place(Trace("tiny", "tiny", "gen:x?requests=60&rate=20", 60, 20), Pool("one", "one", "h100_sxm/llama-3-8b tp1"))


def test_every_policy_meets_every_trace_pool_load_and_seed_once() -> None:
    all_of = [task for task in tasks() if task.requests is None]
    assert len(set(all_of)) == len(all_of)
    rounds = itertools.product(PLACES, POLICIES, LOADS, SEEDS), itertools.product(PLACES, BOUNDS, LOADS, BOUND_SEEDS)
    assert set(all_of) == {Task(*one) for one in itertools.chain(*rounds)}


def test_a_seed_is_done_before_the_next_one_begins() -> None:
    seeds = [task.seed for task in tasks()]
    assert seeds == sorted(seeds)


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: trace.name)
def test_the_last_seeds_stretch_is_as_long_as_the_others(trace: Trace) -> None:
    place = Place(trace, PLACES[0].pool)
    assert place.setting(SEEDS[-1]).workload(SEEDS[-1], trace.limit).jobs == trace.limit


@pytest.mark.parametrize("trace", [trace for trace in TRACES if trace.step], ids=lambda trace: trace.name)
def test_stretches_of_different_seeds_lie_in_the_second_half_and_do_not_overlap(trace: Trace) -> None:
    assert trace.step >= trace.limit
    whole = Place(trace, PLACES[0].pool).setting(SEEDS[0])
    jobs = whole.workload(SEEDS[0], None).jobs + whole.skip
    assert whole.skip >= jobs // 2


def test_other_content_or_another_cut_is_another_key(tmp_path: Path) -> None:
    keys = {place.key() for place in PLACES}
    assert len(keys) == len(PLACES)
    for text in ("t,input_length,output_length\n0,5,5\n", "t,input_length,output_length\n0,5,6\n"):
        source = tmp_path / f"{len(keys)}.csv"
        source.write_text(text)
        keys.add(Place(Trace("a", "a", str(source), 1, 0), TINY.pool).key())
    assert len(keys) == len(PLACES) + 2


def test_a_load_is_a_share_of_the_capacitys_rate_whatever_the_stretchs_own() -> None:
    cell = run_task(Task(TINY, "random", 0.5, SEEDS[0]), {"arrivals_per_s": 6.0})
    assert cell["arrivals_per_s"] == pytest.approx(3.0)
    assert cell["requests"] == TINY.trace.limit - TINY.trace.warm_up


def test_a_run_goes_on_where_it_was_and_says_what_cannot_be_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "NUMBERS_AT", tmp_path)
    kept = cell("random", SEEDS[0], 1.0, load=0.5)
    write(tmp_path / TINY.kept, Record(TINY.key(), {"arrivals_per_s": 6.0}, {("random", 0.5, SEEDS[0], None): kept}))
    wanted = [Task(TINY, policy, 0.5, SEEDS[0]) for policy in ("random", "jsq", "nosuch")]
    assert run_missing(Desk(wanted), jobs=1) == 1
    assert "no policy" in capsys.readouterr().out
    again = Desk(wanted)
    assert [task.policy for task in again.todo] == ["nosuch"]
    assert again.records[TINY].cells["random", 0.5, SEEDS[0], None] == kept


def test_runs_of_different_policies_keep_each_others_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "NUMBERS_AT", tmp_path)
    one, other = (Task(TINY, policy, 0.5, SEEDS[0]) for policy in ("random", "jsq"))
    desks = {task: Desk([task]) for task in (one, other)}
    for task, desk in desks.items():
        desk.keep(task, cell(task.policy, SEEDS[0], 1.0, load=0.5))
    assert Desk([one, other]).todo == []


def test_numbers_of_something_else_are_not_taken(tmp_path: Path) -> None:
    write(tmp_path / "x.json", Record("old", {"arrivals_per_s": 6.0}, {("a", 0.5, 0, None): cell("a", 0, 1.0)}))
    assert read(tmp_path / "x.json", "old").cells
    assert read(tmp_path / "x.json", "new") == Record("new")


def test_a_cell_is_kept_with_what_became_of_each_hardware_class() -> None:
    engines = [
        {"address": address, "type": kind, "busy_share": 0.123456789} for address, kind in (("1", "a"), ("2", "b"))
    ]
    ended = [
        Ended(job, 0.0, ttft, 9.0, prompt, 5, 0, 0, 200, address)
        for job, ttft, prompt, address in ((0, 99.0, 99, "1"), (1, 10.0, 100, "1"), (2, 30.0, 300, "1"))
    ]
    kept = kept_cell(cell("x", 0, 1.0, engines=engines), ended, warm_up=1, short=None)
    assert kept["classes"] == [
        {"type": "a", "engines": 1, "busy_share": 0.12346, "requests": 2, "prompt_tokens": 200.0, "ttft_ms": 20.0},
        {"type": "b", "engines": 1, "busy_share": 0.12346, "requests": 0, "prompt_tokens": None, "ttft_ms": None},
    ]
