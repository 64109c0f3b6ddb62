"""Learning over time: when the model takes over, and from when on it pays."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from picker.simulator.learning_time import LearningTime, Windows
from picker.simulator.report.cells import Cell, Grid, Learning
from picker.simulator.report.charts import Chart, log_if_wide, styles
from picker.simulator.report.svg import inline

WIDE, HIGH = 11.0, 5.6
USUAL = (5.0, 95.0)
"""Percentiles of the pale points that the axis makes room for: single ones lie orders of magnitude apart."""
IN_CHARGE = "none"
"""The reason for the rule to be in charge, while it is not."""
MOST_LABELS = 8
"""Hand-overs beyond so many are drawn without their name."""


def learning_curves(grid: Grid, baseline: str, times: Sequence[LearningTime]) -> list[Chart]:
    """One chart per load and policy that learns, the highest load first, of one seed: TTFT over time beside the
    baseline's, the model's error beside that of a calibrated estimate, and how many picks are the model's. `baseline`
    may be empty."""
    known = {(time.policy, time.at): time for time in times}
    return [
        _chart(grid, cell, _rival(grid, cell, baseline), known.get((policy, load)), f"learning-{load_at}-{policy_at}")
        for load_at, load in reversed(list(enumerate(grid.loads)))
        for policy_at, policy in enumerate(grid.policies)
        if (cell := next((one for one in grid.at(policy, load) if _told(one)), None)) is not None
    ]


def _told(cell: Cell) -> bool:
    return cell.series.learning is not None and len(cell.series.t_s) > 1


def _rival(grid: Grid, cell: Cell, baseline: str) -> Cell | None:
    """The baseline's run with the same seed."""
    if cell.policy == baseline:
        return None
    return next((one for one in grid.at(baseline, cell.at) if one.seed == cell.seed), None)


def _chart(grid: Grid, cell: Cell, rival: Cell | None, time: LearningTime | None, name: str) -> Chart:
    looks = dict(styles(grid))
    drawing = Drawing(figsize=(WIDE, HIGH), layout="constrained")
    panels = drawing.subplots(3, 1, sharex=True, height_ratios=(4, 2, 1))
    above, middle, below = panels
    for axes in panels:
        axes.grid(True, color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    shown = [cell] if rival is None else [cell, rival]
    for one in shown:
        _ttft(above, one, looks[one.policy]["color"])
    if rival is not None:
        _lead(above, cell.series.arrived, rival.series.arrived, looks[cell.policy]["color"])
    above.set_xlim(0, cell.series.t_s[-1])
    _make_room(above, shown)
    above.set_ylabel("TTFT (ms)")
    learning = cell.series.learning
    assert learning is not None
    _errors(middle, cell.series.t_s, learning, looks[cell.policy]["color"])
    shares = [100 * (share or 0.0) for share in learning.model_share]
    below.fill_between(cell.series.t_s, shares, step="pre", color=looks[cell.policy]["color"], alpha=0.5, linewidth=0)
    below.set_ylim(0, 100)
    below.set_ylabel("picks by\nmodel (%)")
    below.set_xlabel("time (s)")
    _handovers(panels, middle, learning)
    if time is not None:
        _verdict(above, time, cell.seed)
    for axes in (above, middle):
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)
    against = "" if rival is None else f" against {rival.policy}"
    title = f"{cell.policy}{against} over time at {cell.at}, seed {cell.seed}"
    drawing.suptitle(title, fontsize=11)
    return Chart(
        inline(drawing, name, title),
        "Thick: mean TTFT of the requests that arrived in each minute; pale: of those that ended since the point "
        "before. Below: how far predictions were off, as the guard sees it (0.1 is about 10 %).",
    )


def _ttft(axes: Axes, cell: Cell, colour: str) -> None:
    points = [np.nan if value is None else value for value in cell.series.ttft_ms]
    if points:
        axes.plot(cell.series.t_s, points, color=colour, alpha=0.3, linewidth=0.8)
    edges, levels = _steps(cell.series.arrived)
    axes.plot(edges, levels, color=colour, linewidth=2.2, label=cell.policy)


def _make_room(axes: Axes, shown: Sequence[Cell]) -> None:
    """For the thick lines, and for what is usual of the pale ones."""
    room = [value for cell in shown for value in cell.series.arrived.ttft_ms]
    for cell in shown:
        if points := [value for value in cell.series.ttft_ms if value is not None]:
            room += np.percentile(points, USUAL).tolist()
    room = [value for value in room if 0 < value < float("inf")]
    log_if_wide(axes)
    if room:
        axes.set_ylim(min(room) * 0.7 if axes.get_yscale() == "log" else 0.0, max(room) * 1.4)


def _steps(windows: Windows) -> tuple[list[float], list[float]]:
    """Corners of a line that is level within each window."""
    edges = [edge for begin in windows.t_s for edge in (begin, begin + windows.window_s)]
    return edges, [level for level in windows.ttft_ms for _ in range(2)]


def _lead(axes: Axes, ours: Windows, theirs: Windows, colour: str) -> None:
    """Shade where the policy is the better one."""
    known = dict(zip(theirs.t_s, theirs.ttft_ms, strict=True))
    label: str | None = "sooner than the baseline"
    for begin, level in zip(ours.t_s, ours.ttft_ms, strict=True):
        if level < known.get(begin, 0.0):
            ends = (begin, begin + ours.window_s)
            axes.fill_between(ends, level, known[begin], color=colour, alpha=0.18, linewidth=0, label=label)
            label = None


def _errors(axes: Axes, times: Sequence[float], learning: Learning, colour: str) -> None:
    lines: tuple[tuple[str, Sequence[float | None], dict[str, Any]], ...] = (
        ("model", learning.model_error, {"color": colour, "linewidth": 2.0}),
        ("calibrated estimate", learning.baseline_error, {"color": "#555555", "linestyle": "--", "linewidth": 1.5}),
    )
    for label, errors, style in lines:
        axes.plot(times, [np.nan if error is None else error for error in errors], label=label, **style)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("error of the\nprediction (log)")


def _handovers(panels: Sequence[Axes], named: Axes, learning: Learning) -> None:
    """A line at each, and in one panel whom it leaves in charge."""
    for number, handover in enumerate(learning.handovers):
        for axes in panels:
            axes.axvline(handover.at_s, color="#333333", linewidth=0.9, linestyle=":")
        if number < MOST_LABELS:
            words = "model in charge" if handover.now == IN_CHARGE else f"rule: {handover.now}"
            named.annotate(
                words,
                (handover.at_s, 0.97),
                xycoords=("data", "axes fraction"),
                xytext=(2, 0),
                textcoords="offset points",
                fontsize=7,
                rotation=90,
                va="top",
                bbox={"facecolor": "#ffffff", "edgecolor": "none", "alpha": 0.8, "pad": 1},
            )


def _verdict(axes: Axes, time: LearningTime, seed: int) -> None:
    since = time.by_seed.get(seed)
    words = "does not stay better" if since is None else f"stays better from {since:.0f} s on"
    if since is not None:
        axes.axvline(since, color="#000000", linewidth=2.0)
    axes.annotate(
        words,
        (since or 0.0, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(3, 3),
        textcoords="offset points",
        fontsize=10,
        fontweight="bold",
        va="bottom",
    )
