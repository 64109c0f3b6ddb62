"""What the report reads from a replay's JSON, grouped for looking up."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from picker.simulator.learning_time import Windows
from picker.simulator.verdict import FEWEST_SEEDS, Metric, Run, bootstrap_interval

BOUNDS = ("clairvoyant", "rollout")
"""Policies that know the future: nobody can run them in service, and they win nothing."""


class Engine(msgspec.Struct, frozen=True):
    type: str = ""
    busy_share: float = 0.0


class Handover(msgspec.Struct, frozen=True):
    """The guard's reasons for the rule to be in charge; "none" while the model is."""

    at_s: float
    was: str
    now: str


class Learning(msgspec.Struct, frozen=True):
    """Running mean |log error| of TTFT, None before the first prediction; share of the picks since the point before
    that the model decided, None without any; who took over when."""

    model_error: list[float | None]
    baseline_error: list[float | None]
    model_share: list[float | None]
    handovers: list[Handover] = msgspec.field(default_factory=list)


class Series(msgspec.Struct, frozen=True):
    """`load[i][k]`: requests on engine i at `t_s[k]`; `ttft_ms[k]`: of those that ended since the point before."""

    t_s: list[float] = msgspec.field(default_factory=list)
    load: list[list[float]] = msgspec.field(default_factory=list)
    ttft_ms: list[float | None] = msgspec.field(default_factory=list)
    arrived: Windows = msgspec.field(default_factory=Windows)
    learning: Learning | None = None

    def __post_init__(self) -> None:
        if any(len(row) != len(self.t_s) for row in self.load):
            raise ValueError("series: an engine's loads are not as many as the times")
        learning = self.learning
        columns = [self.ttft_ms or self.t_s]
        if learning is not None:
            columns += [learning.model_error, learning.baseline_error, learning.model_share]
        if any(len(column) != len(self.t_s) for column in columns):
            raise ValueError("series: a column is not as long as the times")


class Regret(msgspec.Struct, frozen=True):
    """TTFT in ms that the sampled picks gave away, on the mean; None without any."""

    mean: float | None = None


class Cell(Run, frozen=True):
    """One run. What may be missing is left out of the report."""

    throughput: float = 0.0
    prefix_hit_ratio: float = 0.0
    preemptions: int = 0
    regret_ms: Regret | None = None
    engines: list[Engine] = msgspec.field(default_factory=list)
    ttft_grid_ms: list[float] = msgspec.field(default_factory=list)
    """TTFT at evenly spaced quantiles from the smallest to the largest."""
    series: Series = msgspec.field(default_factory=Series)
    trace: str = ""
    pool: str = ""

    @property
    def lost(self) -> float:
        return 1 - self.completed / self.requests if self.requests else 0.0


@dataclass(frozen=True, slots=True)
class Figure:
    """Mean over seeds, and its 95 % interval where there are seeds enough."""

    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Grid:
    """All cells by policy and load, both in the order in which they were given."""

    cells: Mapping[tuple[str, str], Sequence[Cell]]
    policies: tuple[str, ...]
    loads: tuple[str, ...]

    def at(self, policy: str, load: str) -> Sequence[Cell]:
        return self.cells.get((policy, load), ())

    def figure(self, policy: str, load: str, metric: Metric) -> Figure | None:
        return mean(cell.value(metric) for cell in self.at(policy, load))


def read_cells(cells: Sequence[Mapping[str, Any]]) -> Grid:
    """Raises ValueError, with the cell's number, for something that is no cell."""
    grouped: dict[tuple[str, str], list[Cell]] = {}
    loads: dict[str, float] = {}
    for number, raw in enumerate(cells):
        try:
            cell = msgspec.convert(raw, Cell)
        except msgspec.ValidationError as error:
            raise ValueError(f"cell {number}: {error}") from None
        grouped.setdefault((cell.policy, cell.at), []).append(cell)
        loads[cell.at] = position(cell)
    policies = tuple(dict.fromkeys(policy for policy, _ in grouped))
    return Grid(grouped, policies, tuple(sorted(loads, key=loads.__getitem__)))


def position(cell: Cell) -> float:
    """Where it stands on the axis of loads."""
    return cell.time_scale if cell.load is None else cell.load


def is_bound(policy: str) -> bool:
    return policy.startswith(BOUNDS)


def mean(values: Iterable[float | None]) -> Figure | None:
    """None where a value is missing: a mean over the better seeds would flatter."""
    given = list(values)
    known = [value for value in given if value is not None and np.isfinite(value)]
    if not known or len(known) < len(given):
        return None
    if len(known) < FEWEST_SEEDS:
        return Figure(float(np.mean(known)))
    return Figure(float(np.mean(known)), *bootstrap_interval(known))
