"""Boundaries that follow the load: neighbours shift what lies between them, slowly.

The hotter of two stages gives lengths to the other. Load is smoothed first; nothing happens within a band around
balance; steps are in proportion to the imbalance, capped, and halve at each reversal, which ends a hunt around a length
that very many requests have. A boundary stays within an octave of where the plan put it.

The idea is CascadeInfer's (arXiv 2512.19179, boundary refinement); period, band and steps are our own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

BAND = 0.1
"""Imbalance in log load that is left alone."""
_SMOOTH = 0.3
_STEP = 0.1
"""Octaves per unit of log load."""
_MOST = 0.125
"""Octaves at once."""
_LEAST_PACE = 1 / 64
_REACH = 1.0
_APART = 0.25
"""Octaves between neighbouring boundaries."""


@dataclass(frozen=True, slots=True)
class Boundary:
    """Between two stages. Lengths as log2 of tokens; `pressure` is the smoothed log load below over that above."""

    planned: float
    at: float
    pressure: float = 0.0
    moving: int = 0
    """The way it went last: -1, 0, 1."""
    pace: float = 1.0

    @property
    def tokens(self) -> float:
        return math.exp2(self.at)


def planned(tokens: float) -> Boundary:
    """Where the plan puts it."""
    at = math.log2(max(tokens, 1.0))
    return Boundary(at, at)


def refined(boundaries: Sequence[Boundary], loads: Sequence[float]) -> tuple[Boundary, ...]:
    """One round, every few seconds. `loads` are per engine of each stage, one more than boundaries, in any unit.

    Raises ValueError for another number of loads.
    """
    if len(loads) != len(boundaries) + 1:
        raise ValueError(f"{len(boundaries)} boundaries part {len(boundaries) + 1} stages, not {len(loads)}")
    moved: list[Boundary] = []
    for i, boundary in enumerate(boundaries):
        floor = moved[-1].at + _APART if moved else -math.inf
        ceiling = boundaries[i + 1].at - _APART if i + 1 < len(boundaries) else math.inf
        moved.append(_stepped(boundary, _imbalance(loads[i], loads[i + 1]), floor, ceiling))
    return tuple(moved)


def _imbalance(below: float, above: float) -> float:
    """Log ratio; half a percent of both counts as idle, so that an empty stage is no infinity."""
    if not (0 <= below < math.inf and 0 <= above < math.inf):
        return 0.0
    idle = max((below + above) * 0.005, 1e-12)
    return math.log((below + idle) / (above + idle))


def _stepped(boundary: Boundary, imbalance: float, floor: float, ceiling: float) -> Boundary:
    pressure = boundary.pressure + _SMOOTH * (imbalance - boundary.pressure)
    beyond = math.copysign(max(0.0, abs(pressure) - BAND), pressure)
    way = -int(math.copysign(1, beyond)) if beyond else 0
    if not way:
        return replace(boundary, pressure=pressure)
    reversed_ = boundary.moving and way != boundary.moving
    pace = max(_LEAST_PACE, boundary.pace / 2) if reversed_ else min(1.0, boundary.pace * 1.05)
    step = way * min(_MOST, abs(beyond) * _STEP) * pace
    low = max(floor, boundary.planned - _REACH)
    high = min(ceiling, boundary.planned + _REACH)
    at = min(max(boundary.at + step, low), max(low, high))
    return replace(boundary, at=at, pressure=pressure, moving=way, pace=pace)
