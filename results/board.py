"""The kept cells, looked up and compared. Pure.

Ratios pair cells by seed: with one seed every policy meets the same requests at the same times.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from picker.simulator.verdict import FEWEST_SEEDS, NAMEABLE, bootstrap_interval
from results.grid import BASELINE
from results.record import Load

Played = TypeVar("Played", bound=Hashable)
"""What was played: a trace on a pool, a case."""
Cells = Mapping[str, Any]


class Figure(Protocol):
    """A number of a cell."""

    def of(self, cell: Cells) -> float | None: ...


@dataclass(frozen=True, slots=True)
class Metric:
    """Where a cell holds a figure."""

    name: str
    field: str
    statistic: str = ""

    def of(self, cell: Cells) -> float | None:
        value: float | None = cell[self.field][self.statistic] if self.statistic else cell[self.field]
        return value


TTFT = Metric("mean TTFT", "ttft_ms", "mean")
P99 = Metric("P99 TTFT", "ttft_ms", "p99")
TPOT = Metric("mean TPOT", "tpot_ms", "mean")
E2E = Metric("mean end-to-end time", "e2e_ms", "mean")
GOOD = Metric("good requests", "goodput_share")
HIT = Metric("prefix hits", "prefix_hit_ratio")


@dataclass(frozen=True, slots=True)
class Ratio:
    """One policy's figure over another's: geometric mean over seeds, with a 95 % interval where there are enough."""

    value: float
    seeds: int
    low: float | None = None
    high: float | None = None

    @property
    def above(self) -> bool:
        """More than luck and more than nothing above 1; without an interval, above 1."""
        least = self.value if self.low is None else self.low
        return least > 1 and self.value > 1 + NAMEABLE


class Board(Generic[Played]):
    """All cells by what was played, policy, load and `short`, then by seed."""

    def __init__(self, cells: Mapping[Played, Iterable[Cells]]) -> None:
        self._at: dict[tuple[Played, str, Load, int | None], dict[int, Cells]] = {}
        for place, those in cells.items():
            for cell in those:
                key = place, cell["policy"], cell["load"], cell["short"]
                self._at.setdefault(key, {})[cell["seed"]] = cell
        self.policies = tuple(dict.fromkeys(policy for _, policy, _, _ in self._at))

    def at(self, place: Played, policy: str, load: Load, short: int | None = None) -> Mapping[int, Cells]:
        """By seed; empty where it did not run."""
        return self._at.get((place, policy, load, short), {})

    def ratio(
        self, metric: Figure, place: Played, policy: str, load: Load, to: str = BASELINE, short: int | None = None
    ) -> Ratio | None:
        """Over the seeds that both have; None without any, or where something was not measured."""
        ours, theirs = self.at(place, policy, load, short), self.at(place, to, load, short)
        pairs = [(metric.of(ours[seed]), metric.of(theirs[seed])) for seed in sorted(ours.keys() & theirs.keys())]
        logs = [math.log(a / b) for a, b in pairs if a and b]
        if not logs or len(logs) < len(pairs):
            return None
        ends = [math.exp(end) for end in bootstrap_interval(logs)] if len(logs) >= FEWEST_SEEDS else []
        return Ratio(math.exp(float(np.mean(logs))), len(logs), *ends)

    def mean(self, metric: Figure, place: Played, policy: str, load: Load) -> float | None:
        """Over seeds; None where one has none."""
        values = [metric.of(cell) for cell in self.at(place, policy, load).values()]
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known and len(known) == len(values) else None

    def lost(self, place: Played, policy: str, load: Load) -> float | None:
        """Share of the requests that were not completed."""
        cells = self.at(place, policy, load).values()
        asked = sum(cell["requests"] for cell in cells)
        return 1 - sum(cell["completed"] for cell in cells) / asked if asked else None

    def winners(self, metric: Figure, place: Played, load: Load, policies: Sequence[str]) -> list[str]:
        """The lowest figure, and whoever cannot be told from it; the lowest first."""
        known = {policy: ratio for policy in policies if (ratio := self.ratio(metric, place, policy, load)) is not None}
        if not known:
            return []
        best = min(known, key=lambda policy: known[policy].value)
        ties = []
        for policy in known:
            behind = self.ratio(metric, place, policy, load, to=best)
            if policy != best and behind is not None and not behind.above:
                ties.append(policy)
        return [best, *sorted(ties, key=lambda policy: known[policy].value)]


def geometric_mean(ratios: Iterable[Ratio | None]) -> tuple[float, float, int] | None:
    """Mean, largest, and how many there are; None without any."""
    values = [ratio.value for ratio in ratios if ratio is not None]
    if not values:
        return None
    return math.exp(float(np.mean(np.log(values)))), max(values), len(values)
