"""The page."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from picker.simulator.learning_time import learning_times
from picker.simulator.report.bounds import Measure, Standing, standings
from picker.simulator.report.cells import Cell, Figure, Grid, mean, read_cells
from picker.simulator.report.headline import DECIDES, headline
from picker.simulator.verdict import FEWEST_SEEDS, METRICS, Verdict

EXTRA = "a report needs matplotlib: pip install 'picker[report]'"


@dataclass(frozen=True, slots=True)
class Row:
    """One policy at one load, ready to be printed."""

    policy: str
    seeds: int
    numbers: tuple[tuple[str, str], ...]
    """Each with its interval, or empty."""


COLUMNS = (
    *(f"{metric.name} ({metric.unit})" for metric in METRICS),
    "throughput (requests/s)",
    "prefix hits (% of prompt tokens)",
    "preemptions",
    "mean regret (ms of TTFT)",
    "busy engines, least to most (% of time)",
    "lost requests (%)",
)


def render(cells: Sequence[Mapping[str, Any]], verdicts: Sequence[Verdict], command: str) -> str:
    """One HTML document without any reference to the outside. `command` is shown as what made it.

    Raises ValueError for something that is no cell, or no cells; RuntimeError without matplotlib.
    """
    try:
        from picker.simulator.report import charts, over_time
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("matplotlib"):
            raise
        raise RuntimeError(EXTRA) from None
    if not cells:
        raise ValueError("a report needs at least one cell")
    grid = read_cells(cells)
    environment = Environment(
        loader=PackageLoader("picker.simulator.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    standing = standings(grid)
    baseline = verdicts[0].baseline if verdicts else ""
    times = learning_times(cells, baseline)
    return environment.get_template("page.html.j2").render(
        headline=headline(cells, grid),
        command=command,
        traces=_distinct(cell.trace for cell in _all(grid)),
        pools=_distinct(cell.pool for cell in _all(grid)),
        seeds=max(len(group) for group in grid.cells.values()),
        fewest=FEWEST_SEEDS,
        verdicts=_by_load(verdicts),
        deciding=DECIDES.name,
        baseline=baseline,
        judged=sum(verdict.ratio is not None for verdict in verdicts),
        columns=COLUMNS,
        tables={
            load: [_row(grid, policy, load) for policy in grid.policies if grid.at(policy, load)] for load in grid.loads
        },
        standings=standing,
        measures=list(standing[0].shares) if standing else [],
        percent=_share,
        learning_times=times,
        learning=over_time.learning_curves(grid, baseline, times),
        curves=charts.curves(grid),
        distributions=charts.distributions(grid),
        maps=charts.load_maps(grid),
    )


def _all(grid: Grid) -> Iterable[Cell]:
    return (cell for group in grid.cells.values() for cell in group)


def _distinct(names: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name]


def _by_load(verdicts: Sequence[Verdict]) -> dict[str, list[Verdict]]:
    grouped: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        grouped.setdefault(verdict.at, []).append(verdict)
    return grouped


def _row(grid: Grid, policy: str, load: str) -> Row:
    cells = grid.at(policy, load)
    busy = [engine.busy_share for cell in cells for engine in cell.engines]
    numbers = (
        *(_number(grid.figure(policy, load, metric)) for metric in METRICS),
        _number(mean(cell.throughput for cell in cells)),
        _number(mean(100 * cell.prefix_hit_ratio for cell in cells)),
        _number(mean(float(cell.preemptions) for cell in cells)),
        _number(mean(None if cell.regret_ms is None else cell.regret_ms.mean for cell in cells)),
        (f"{100 * min(busy):.0f} to {100 * max(busy):.0f}" if busy else "none", ""),
        _number(mean(100 * cell.lost for cell in cells)),
    )
    return Row(policy, len(cells), numbers)


def _number(figure: Figure | None) -> tuple[str, str]:
    if figure is None:
        return "none", ""
    if figure.low is None or figure.high is None or figure.low == figure.high:
        return _short(figure.mean), ""
    return _short(figure.mean), f"{_short(figure.low)} to {_short(figure.high)}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _share(standing: Standing, measure: Measure) -> str:
    share = standing.shares[measure]
    return "none" if share is None else f"{100 * share:.0f} %"
