"""`picker replay`: policies against each other on a simulated pool, on all cores, resumable."""

import json
import multiprocessing
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from picker.policies.registry import DEFAULT_POLICY, REGISTRY
from picker.policies.variant import policy_maker
from picker.simulator.bounds import NAMES, is_bound, make_bound
from picker.simulator.generator import SCHEME
from picker.simulator.learning_time import learning_times, with_learning_times
from picker.simulator.migration import Migration
from picker.simulator.pool_spec import parse_pool
from picker.simulator.replay_run import Cell, Setting, measure_capacity, run_cell
from picker.simulator.report import render
from picker.simulator.signals import Signals
from picker.simulator.summary import Slo
from picker.simulator.verdict import compare

READABLE = click.Path(exists=True, dir_okay=False, path_type=Path)
DELAY = click.FloatRange(0, 1e6)


@dataclass(frozen=True, slots=True)
class Grid:
    """Which cells: every policy at every load (or time scale) with every seed."""

    policies: tuple[str, ...]
    loads: tuple[float, ...]
    time_scale: float | None
    seeds: int
    first_seed: int = 0


def _numbers(_: click.Context, __: click.Parameter, value: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in value.split(",") if part.strip())
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a comma list of numbers") from None
    if not numbers or not all(0 < number <= 10 for number in numbers):
        raise click.BadParameter("loads must be in (0, 10]")
    return tuple(dict.fromkeys(numbers))


def _policies(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
    unknown = [name for name in names if name.partition("?")[0] not in REGISTRY and not is_bound(name)]
    if unknown or not names:
        known = ", ".join((*sorted(REGISTRY), *NAMES))
        raise click.BadParameter(f"no policy {', '.join(unknown) or 'given'}; there are: {known}")
    try:
        for name in names:
            if not is_bound(name):
                policy_maker(name)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return names


@click.command()
@click.argument("trace")
@click.option("--pool", required=True, help='Engines, as in "h100_sxm/llama-3-8b tp1:8,l40s/llama-3-8b tp1:4".')
@click.option("--policy", "policies", callback=_policies, default=DEFAULT_POLICY, help="Comma list; NAME?key=value&...")
@click.option("--load", "loads", callback=_numbers, default="0.8", help="Comma list of shares of the pool's capacity.")
@click.option("--time-scale", type=click.FloatRange(0, 1e6, min_open=True), help="Arrivals so much denser; no --load.")
@click.option("--seeds", type=click.IntRange(1, 1000), default=1, help="How many seeds.")
@click.option("--first-seed", type=click.IntRange(0, 1 << 31), default=0, help="They are this one and the next ones.")
@click.option("--engine-models", type=READABLE, help="CSV of step-time rows instead of the shipped ones.")
@click.option("--alpha", type=click.FloatRange(0, 1), default=0.0, help="Price of unequal lengths in a decode batch.")
@click.option("--host-ms", type=click.FloatRange(0, 1000), default=0.0, help="CPU time between two steps.")
@click.option("--events", type=READABLE, help="JSON or YAML list of joins, leaves, slow-downs and crashes.")
@click.option("--limit", type=click.IntRange(1), help="Only the first N requests.")
@click.option("--skip", type=click.IntRange(0), default=0, help="Leave out the trace's first N requests before that.")
@click.option("--turns", type=click.IntRange(1), help="Of each session only the first N requests.")
@click.option("--share-system", is_flag=True, help="Sessions with equally long tools and system prompts share them.")
@click.option("--warm-up", type=click.IntRange(0), default=0, help="Leave the first N requests out of the numbers.")
@click.option("--jobs", type=click.IntRange(1, 1024), help="Processes; default one per core.")
@click.option(
    "--matching", type=click.Choice(["exact", "text"]), default="exact", help="What the router knows prompts by."
)
@click.option("--decision-ms", type=DELAY, default=1.0, help="From a request's arrival to the engine.")
@click.option("--response-ms", type=DELAY, default=1.0, help="From the engine back to router and client.")
@click.option("--scrape-s", type=click.FloatRange(0.05, 1.5), default=0.1, help="Between scrapes of a busy engine.")
@click.option("--event-lag-ms", type=DELAY, default=10.0, help="From the end of a step to its KV events in the index.")
@click.option(
    "--detection-ms", type=DELAY, default=1000.0, help="From a join, leave or crash to the router's new pool."
)
@click.option("--regret-stride", type=click.IntRange(0), default=16, help="Regret at one pick in N; 0 for none.")
@click.option("--kv", type=click.Choice(["pull", "compute"]), default="pull", help="How KV moves between engines.")
@click.option("--link-gbps", type=click.FloatRange(0.01, 1e5), default=100.0, help="Of each engine, for moved KV.")
@click.option("--transfers", type=click.IntRange(1, 64), default=3, help="Moves open at one engine.")
@click.option("--message-ms", type=DELAY, default=2.0, help="Between agents that agree on a move.")
@click.option("--handover-ms", type=DELAY, default=30.0, help="From that to the request in its next engine.")
@click.option("--move-ahead", "ahead", is_flag=True, help="Who moved is admitted before all that wait.")
@click.option("--known-steps", is_flag=True, help="Tell policies that plan the engines' step times.")
@click.option("--slo-ttft-ms", "ttft_ms", type=DELAY, default=1000.0, help="SLO of the first token, plus")
@click.option(
    "--slo-ttft-ms-per-1k", "ttft_ms_per_1k", type=DELAY, default=62.5, help="so much per 1,000 prompt tokens."
)
@click.option("--slo-tpot-ms", "tpot_ms", type=DELAY, default=50.0, help="SLO of each further token.")
@click.option("--baseline", help="Compared with; default: the first.")
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Results.")
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Report, one HTML file.")
def replay(
    trace: str,
    pool: str,
    policies: tuple[str, ...],
    loads: tuple[float, ...],
    time_scale: float | None,
    seeds: int,
    first_seed: int,
    jobs: int | None,
    baseline: str | None,
    out: Path,
    report: Path | None,
    **given: Any,
) -> None:
    """Replay TRACE against policies on a simulated pool.

    TRACE is a file (Mooncake jsonl, agentic sessions, CSV of lengths, our own decision log; gzipped or not) or a
    generator such as "gen:shared?groups=25&share=0.47&rate=8". Finished cells are kept in OUT.cells, and a run that was
    broken off goes on from there.
    """
    try:
        if not trace.startswith(SCHEME) and not Path(trace).is_file():
            raise ValueError(f"no file {trace!r}")
        setting = _setting(trace, pool, given)
        parse_pool(setting.pool, setting.types())
        setting.pool_events()
        beginning = setting.workload(first_seed, 1)
        for policy in filter(is_bound, policies):
            make_bound(policy, beginning)
        grid = Grid(policies, loads, time_scale, seeds, first_seed)
        if baseline is None:
            baseline = policies[0]
        elif baseline not in policies:
            raise ValueError(f"the baseline {baseline} is none of the policies")
        done = replay_grid(setting, grid, out, jobs or os.cpu_count() or 1, Console(stderr=True))
        times = learning_times(done, baseline)
        _write(out, with_learning_times(done, times))
        verdicts = compare(done, baseline)
        if report is not None:
            report.write_text(render(done, verdicts, shlex.join(["picker", *sys.argv[1:]])), encoding="utf-8")
    except (ValueError, OSError, RuntimeError) as error:
        raise click.ClickException(str(error)) from error
    for line in [*(verdict.text for verdict in verdicts), *(time.text for time in times)]:
        click.echo(line)
    click.echo(f"{len(done)} cells written to {out}")


def replay_grid(setting: Setting, grid: Grid, out: Path, jobs: int, console: Console) -> list[dict[str, Any]]:
    """All cells, in the order policy, load, seed; those that OUT.cells holds are not run again. Raises ValueError,
    OSError."""
    folder = Path(f"{out}.cells") / setting.key()
    folder.mkdir(parents=True, exist_ok=True)
    loads: list[tuple[float | None, float]] = [(None, grid.time_scale)] if grid.time_scale is not None else []
    if grid.time_scale is None:
        capacity = _capacity(setting, Path(f"{out}.cells"), console)
        loads = [(load, load * capacity["time_scale"]) for load in grid.loads]
    cells = [
        Cell(policy, load, seed, scale)
        for policy in grid.policies
        for load, scale in loads
        for seed in range(grid.first_seed, grid.first_seed + grid.seeds)
    ]
    todo = [cell for cell in cells if _read(folder / cell.file_name) is None]
    with _bar(console) as bar:
        task = bar.add_task("cells", total=len(cells), completed=len(cells) - len(todo))
        _run_all(setting, todo, folder, jobs, lambda: bar.advance(task))
    return [cell for cell in (_read(folder / cell.file_name) for cell in cells) if cell is not None]


def _run_all(setting: Setting, cells: Sequence[Cell], folder: Path, jobs: int, done: Callable[[], None]) -> None:
    if jobs == 1 or len(cells) < 2:
        for cell in cells:
            run_and_keep(setting, cell, folder)
            done()
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(cells)), mp_context=spawn) as workers:
        running: list[Future[None]] = [workers.submit(run_and_keep, setting, cell, folder) for cell in cells]
        try:
            for finished in as_completed(running):
                finished.result()
                done()
        except BaseException:
            workers.shutdown(wait=False, cancel_futures=True)
            raise


def run_and_keep(setting: Setting, cell: Cell, folder: Path) -> None:
    """Run one cell and write it down at once."""
    _write(folder / cell.file_name, run_cell(setting, cell))


def _capacity(setting: Setting, folder: Path, console: Console) -> dict[str, float]:
    """Measured once for a trace and a pool, then kept."""
    kept = folder / f"capacity-{setting.capacity_key()}.json"
    known: dict[str, float] | None = _read(kept)
    if known is None:
        with console.status("measuring the pool's capacity") as status:
            known = measure_capacity(
                setting,
                lambda scale, p99: status.update(f"measuring the pool's capacity: x{scale:.3g}, P99 TTFT {p99:.0f} ms"),
            )
        _write(kept, known)
    rate = known["arrivals_per_s"]
    console.print(f"capacity: {rate:.3g} arrivals/s, the trace at x{known['time_scale']:.3g}", highlight=False)
    return known


def _setting(trace: str, pool: str, given: dict[str, Any]) -> Setting:
    """From options that are called as the fields are. Raises OSError, ValueError."""
    files = {name: given.pop(name) for name in ("engine_models", "events")}
    return Setting(
        trace,
        pool,
        **{name: file.read_text(encoding="utf-8") for name, file in files.items() if file is not None},
        **_named(Setting, given),
        signals=Signals(**_named(Signals, given)),
        slo=Slo(**_named(Slo, given)),
        migration=Migration(**_named(Migration, given)),
    )


def _named(kind: type[Setting | Signals | Slo | Migration], given: Mapping[str, Any]) -> dict[str, Any]:
    return {field.name: given[field.name] for field in fields(kind) if field.name in given}


def _read(path: Path) -> Any:
    """What was written there whole, or None."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _write(path: Path, value: object) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=1) + "\n")
    part.replace(path)


@contextmanager
def _bar(console: Console) -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        yield bar
