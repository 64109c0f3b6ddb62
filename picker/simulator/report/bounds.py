"""How far each policy has come from picking at random towards knowing the future."""

import math
from dataclasses import dataclass

from picker.simulator.report.cells import Grid, is_bound
from picker.simulator.verdict import METRICS

WORST = "random"
MEASURED = tuple(metric for metric in METRICS if metric.name in ("mean TTFT", "mean end-to-end time"))


@dataclass(frozen=True, slots=True)
class Standing:
    """`shares` by metric name: 0 is `random`, 1 the best policy that knows the future; None where that says nothing."""

    policy: str
    load: str
    shares: dict[str, float | None]


def standings(grid: Grid) -> list[Standing]:
    """Every policy at every load at which `random` and at least one bound ran; shares are of logarithms of the mean."""
    found = []
    for load in grid.loads:
        bounds = [policy for policy in grid.policies if is_bound(policy) and grid.at(policy, load)]
        if not bounds or not grid.at(WORST, load):
            continue
        for policy in grid.policies:
            if grid.at(policy, load):
                shares = {metric.name: _share(grid, policy, load, bounds, metric.name) for metric in MEASURED}
                found.append(Standing(policy, load, shares))
    return found


def _share(grid: Grid, policy: str, load: str, bounds: list[str], name: str) -> float | None:
    metric = next(metric for metric in MEASURED if metric.name == name)
    figures = [grid.figure(who, load, metric) for who in (policy, WORST, *bounds)]
    means = [figure.mean for figure in figures if figure is not None and figure.mean > 0]
    if len(means) < len(figures):
        return None
    ours, worst, best = means[0], means[1], min(means[2:])
    return math.log(worst / ours) / math.log(worst / best) if best < worst else None
