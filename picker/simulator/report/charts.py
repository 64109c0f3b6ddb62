"""The report's drawings. A policy keeps its colour, marker and line through all of them, and colour is never alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from picker.simulator.report.cells import Cell, Grid, is_bound, position
from picker.simulator.report.svg import inline
from picker.simulator.verdict import METRICS, Metric

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
"""Okabe and Ito's, told apart by colour-blind eyes; yellow left out for its contrast on white."""
MARKERS = "osD^vPX*<>h"
LINES = ("-", "--", "-.", ":")
WIDTH = 6.1
HEIGHT = 3.4
MOST_ENGINES = 64
"""Rows of a load map; further engines are left out, and the title says so."""


@dataclass(frozen=True, slots=True)
class Chart:
    """`svg` is safe markup; `caption` says what to see."""

    svg: Markup
    caption: str


def curves(grid: Grid) -> list[Chart]:
    """One chart per metric: every policy over load, with 95 % intervals."""
    return [_curve(grid, metric, f"curve-{number}") for number, metric in enumerate(METRICS)]


def distributions(grid: Grid) -> list[Chart]:
    """One chart per load: the share of requests whose first token came within a time."""
    charts = [_distribution(grid, load, f"cdf-{number}") for number, load in enumerate(grid.loads)]
    return [chart for chart in charts if chart is not None]


def load_maps(grid: Grid) -> list[Chart]:
    """One chart per load, the highest first: requests on each engine over time, a map per policy, of one seed."""
    ordered = reversed(list(enumerate(grid.loads)))
    charts = [_load_map(grid, load, f"map-{number}") for number, load in ordered]
    return [chart for chart in charts if chart is not None]


def styles(grid: Grid) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each policy's colour, marker and line."""
    for number, policy in enumerate(grid.policies):
        line = ":" if is_bound(policy) else LINES[number // len(COLOURS) % (len(LINES) - 1)]
        marker = MARKERS[number % len(MARKERS)]
        yield policy, {"color": COLOURS[number % len(COLOURS)], "marker": marker, "linestyle": line}


def _axes(title: str, x: str, y: str) -> tuple[Drawing, Axes]:
    drawing = Drawing(figsize=(WIDTH, HEIGHT), layout="constrained")
    axes = drawing.add_subplot()
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    return drawing, axes


def _curve(grid: Grid, metric: Metric, name: str) -> Chart:
    timed = any(load.startswith("time") for load in grid.loads)
    drawing, axes = _axes(
        f"{metric.name[0].upper()}{metric.name[1:]} by load",
        "arrivals, times as dense as in the trace" if timed else "load, as a fraction of the pool's capacity",
        f"{metric.name} ({metric.unit})",
    )
    for policy, style in styles(grid):
        points = [
            (position(grid.at(policy, load)[0]), figure)
            for load in grid.loads
            if (figure := grid.figure(policy, load, metric)) is not None
        ]
        if not points:
            continue
        x, means = [at for at, _ in points], [figure.mean for _, figure in points]
        below = [figure.mean - figure.low if figure.low is not None else 0.0 for _, figure in points]
        above = [figure.high - figure.mean if figure.high is not None else 0.0 for _, figure in points]
        axes.errorbar(x, means, yerr=[below, above], label=policy, capsize=3, markersize=5, linewidth=1.5, **style)
    if not metric.more_is_better:
        log_if_wide(axes)
    _legend(drawing, axes)
    better = "higher" if metric.more_is_better else "lower"
    title = f"{metric.name} of each policy by load"
    return Chart(
        inline(drawing, name, title), f"{metric.name}: {better} is better. Bars are 95 % intervals over seeds."
    )


def log_if_wide(axes: Axes) -> None:
    """A logarithmic y axis where values differ by more than a factor of four, one from zero otherwise."""
    low, high = axes.dataLim.ymin, axes.dataLim.ymax
    if 0 < 4 * low < high < float("inf"):
        axes.set_yscale("log")
        _plain_numbers(axes.yaxis, high / low)
    else:
        axes.set_ylim(bottom=0)


def _legend(drawing: Drawing, axes: Axes) -> None:
    """Beside the axes, where it hides no line."""
    if axes.lines:
        drawing.legend(*axes.get_legend_handles_labels(), loc="outside right upper", fontsize=8, frameon=False)


def _plain_numbers(axis: Axis, span: float) -> None:
    """1, 2, 5, 10, ... on a logarithmic axis, without powers; over three decades only 1, 10, 100, ..."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if span < 1000 else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def _distribution(grid: Grid, load: str, name: str) -> Chart | None:
    drawing, axes = _axes(f"TTFT at {load}", "TTFT (ms)", "share of requests (%)")
    for policy, style in styles(grid):
        grids = [cell.ttft_grid_ms for cell in grid.at(policy, load) if cell.ttft_grid_ms]
        if not grids or len({len(quantiles) for quantiles in grids}) > 1:
            continue
        quantiles = np.mean(grids, axis=0)
        shares = np.linspace(0, 100, len(quantiles))
        axes.plot(quantiles, shares, label=policy, markevery=0.2, markersize=4, linewidth=1.5, **style)
    if not axes.lines:
        return None
    if axes.dataLim.xmin > 0:
        axes.set_xscale("log")
        _plain_numbers(axes.xaxis, axes.dataLim.xmax / axes.dataLim.xmin)
    axes.set_ylim(0, 100)
    _legend(drawing, axes)
    title = f"Distribution of TTFT of each policy at {load}"
    return Chart(inline(drawing, name, title), "Further left is better. Quantiles averaged over seeds.")


def _load_map(grid: Grid, load: str, name: str) -> Chart | None:
    shown = [
        (policy, cell)
        for policy in grid.policies
        for cell in islice((cell for cell in grid.at(policy, load) if len(cell.series.t_s) > 1), 1)
    ]
    if not shown:
        return None
    top = max((max(map(max, cell.series.load)) for _, cell in shown if cell.series.load), default=1) or 1
    engines = max(min(len(cell.series.load), MOST_ENGINES) for _, cell in shown)
    high = 0.6 + 0.06 * engines
    drawing = Drawing(figsize=(11, high * len(shown) + 0.5), layout="constrained")
    rows = drawing.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (policy, cell) in zip(rows, shown, strict=True):
        times, loads = cell.series.t_s, cell.series.load[:MOST_ENGINES]
        image = axes.imshow(
            np.array(loads, dtype=float).reshape(len(loads), len(times)),
            aspect="auto",
            cmap="cividis",
            vmin=0,
            vmax=top,
            interpolation="nearest",
            extent=(times[0], times[-1], len(loads) - 0.5, -0.5),
        )
        axes.set_title(f"{policy}, seed {cell.seed}", fontsize=9, loc="left")
        axes.set_yticks(*_ticks(cell))
        axes.tick_params(axis="y", labelsize=7)
    rows[-1].set_xlabel("time (s)")
    drawing.supylabel("engine", fontsize=9)
    drawing.colorbar(
        image, ax=list(rows), label="requests on the engine", shrink=min(1.0, 2.5 / (high * len(shown))), pad=0.01
    )
    left_out = (
        f" (the first {MOST_ENGINES} engines)" if any(len(c.series.load) > MOST_ENGINES for _, c in shown) else ""
    )
    title = f"Requests on each engine over time at {load}{left_out}"
    drawing.suptitle(title, fontsize=11)
    return Chart(
        inline(drawing, name, title), "Running and waiting requests. Even colour from top to bottom is even load."
    )


def _ticks(cell: Cell) -> tuple[list[int], Sequence[str]]:
    """The first engine of each stretch of equal type, with the type's name."""
    types = [engine.type for engine in cell.engines[: min(len(cell.series.load), MOST_ENGINES)]]
    firsts = [i for i, kind in enumerate(types) if not i or types[i - 1] != kind]
    return firsts, [types[i].split("/")[0] for i in firsts]
