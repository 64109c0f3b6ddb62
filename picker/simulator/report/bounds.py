"""How far each policy has come from picking at random towards each policy that knows the future."""

import math
from dataclasses import dataclass

from picker.simulator.report.cells import Grid, is_bound
from picker.simulator.verdict import METRICS, Metric

WORST = "random"
MEASURED = tuple(metric for metric in METRICS if metric.name in ("mean TTFT", "mean end-to-end time"))

Measure = tuple[str, str]
"""A metric's name, and the bound that the way leads to."""


@dataclass(frozen=True, slots=True)
class Standing:
    """`shares`: 0 is `random`, 1 the bound; beyond 1 lies what is better than it. None where that says nothing."""

    policy: str
    load: str
    shares: dict[Measure, float | None]


def standings(grid: Grid) -> list[Standing]:
    """Every policy at every load at which `random` and at least one bound ran; shares are of logarithms of the mean."""
    bounds = [policy for policy in grid.policies if is_bound(policy)]
    found = []
    for load in grid.loads:
        if not grid.at(WORST, load) or not any(grid.at(bound, load) for bound in bounds):
            continue
        for policy in grid.policies:
            if grid.at(policy, load):
                shares = {
                    (metric.name, bound): _share(grid, policy, load, bound, metric)
                    for metric in MEASURED
                    for bound in bounds
                }
                found.append(Standing(policy, load, shares))
    return found


def _share(grid: Grid, policy: str, load: str, bound: str, metric: Metric) -> float | None:
    figures = [grid.figure(who, load, metric) for who in (policy, WORST, bound)]
    means = [figure.mean for figure in figures if figure is not None and figure.mean > 0]
    if len(means) < len(figures):
        return None
    ours, worst, best = means
    return math.log(worst / ours) / math.log(worst / best) if best < worst else None
