"""`picker validate-engine`: how far the step model is from a run that was measured on a real engine."""

import json
from dataclasses import replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import click
from rich import box
from rich.console import Console
from rich.table import Table

from picker.simulator.measured_run import MEASURES, MeasuredRun, errors_pct, measured, parse_run, simulate, simulated
from picker.simulator.steptime import StepTime, load_table, parse_table

ROW = "rtxpro6000/llama-3.1-8b tp1"
READABLE = click.Path(exists=True, dir_okay=False, path_type=Path)
OTHERS = ((0.0, 0.0), (0.055, 0.0), (0.2, 0.0), (0.0, 0.5), (0.0, 1.0))
"""(alpha, host ms) that are always shown beside those asked for: the spans seen on real engines."""


@click.command("validate-engine")
@click.argument("run_dir", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--engine-models", type=READABLE, help="CSV of step-time rows; default: those shipped.")
@click.option("--row", default=ROW, help="The engine type that was measured.")
@click.option("--alpha", type=click.FloatRange(0, 1), default=0.0, help="Price of unequal lengths in one batch.")
@click.option("--host-ms", type=click.FloatRange(0, 1000), default=0.0, help="CPU time between two steps, in ms.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the errors there.")
def validate_engine(
    run_dir: Path | None, engine_models: Path | None, row: str, alpha: float, host_ms: float, json_file: Path | None
) -> None:
    """Replay a measured run (RUN_DIR; default: the one shipped) on the engine model and give its error in per cent.

    RUN_DIR holds meta.json (vLLM's flags), requests.jsonl (lengths and measured times) and, for prefix hits,
    workload.jsonl, the latter two perhaps as .gz or .zst. Nothing is fitted to the run.
    """
    try:
        run = read_run(run_dir or files("picker.simulator") / "data" / "measured_run_rtxpro6000_8b")
        table = load_table() if engine_models is None else parse_table(engine_models.read_text())
        if row not in table:
            raise ValueError(f"no step-time row {row!r}; there are: {', '.join(sorted(table))}")
        settings = dict.fromkeys(((alpha, host_ms), *OTHERS))
        errors = {pair: _errors(run, replace(table[row], alpha=pair[0], host_ms=pair[1])) for pair in settings}
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    asked = errors[alpha, host_ms]
    Console().print(_table(errors, f"{row}, {len(run.requests)} requests: error of the model in per cent"))
    click.echo(
        f"With alpha {alpha:g} and {host_ms:g} ms of host time per step the model's mean end-to-end time "
        f"is {asked['e2e_error_pct']['mean']:+.1f} % off."
    )
    if json_file is not None:
        report = {**asked, "row": row, "alpha": alpha, "host_ms": host_ms, "requests": len(run.requests)}
        try:
            json_file.write_text(json.dumps(report, indent=2) + "\n")
        except OSError as error:
            raise click.ClickException(str(error)) from error


def read_run(folder: Path | Traversable) -> MeasuredRun:
    """A run from its folder. Raises OSError and ValueError."""
    meta, requests = _read(folder, "meta.json"), _read(folder, "requests.jsonl")
    if meta is None or requests is None:
        raise ValueError(f"{folder} is no measured run: it needs meta.json and requests.jsonl")
    return parse_run(meta, requests, _read(folder, "workload.jsonl"))


def _read(folder: Path | Traversable, name: str) -> bytes | None:
    found = (folder / (name + suffix) for suffix in ("", ".gz", ".zst"))
    return next((file.read_bytes() for file in found if file.is_file()), None)


def _errors(run: MeasuredRun, step_time: StepTime) -> dict[str, dict[str, float]]:
    return errors_pct(measured(run), simulated(simulate(run, step_time)))


def _table(errors: dict[tuple[float, float], dict[str, dict[str, float]]], title: str) -> Table:
    table = Table(title=title, box=box.SIMPLE)
    table.add_column("alpha", justify="right")
    table.add_column("host ms", justify="right")
    for measure in MEASURES:
        table.add_column(f"{measure} mean p50 p99", justify="right")
    for (alpha, host_ms), error in errors.items():
        cells = (" ".join(f"{value:+5.1f}" for value in measure.values()) for measure in error.values())
        table.add_row(f"{alpha:g}", f"{host_ms:g}", *cells)
    return table
