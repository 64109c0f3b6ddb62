"""From when on a policy that learns is better than the baseline, and stays so.

Runs are paired by seed, and within a seed by the time of arrival: windows of a minute that both runs met alike. The
policy stays better from the first window from which it is ahead for good: at the end of this window and of each later
one, the requests that arrived since it began have had their first token sooner, on the mean, than under the baseline.
A bad minute later on costs nothing while the lead is larger, and a lead that is lost never was one.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from picker.simulator.verdict import NAMEABLE, Run


class Windows(msgspec.Struct, frozen=True):
    """Mean TTFT and number of the requests that arrived in each window; `t_s`: where it begins, in order."""

    window_s: float = 60.0
    t_s: list[float] = msgspec.field(default_factory=list)
    ttft_ms: list[float] = msgspec.field(default_factory=list)
    requests: list[int] = msgspec.field(default_factory=list)

    def __post_init__(self) -> None:
        if not len(self.t_s) == len(self.ttft_ms) == len(self.requests):
            raise ValueError("windows: columns of unlike lengths")


class _Series(msgspec.Struct, frozen=True):
    arrived: Windows = msgspec.field(default_factory=Windows)
    learning: dict[str, Any] | None = None


class _Cell(Run, frozen=True):
    series: _Series = msgspec.field(default_factory=_Series)


@dataclass(frozen=True, slots=True)
class LearningTime:
    """How long one policy learned at one load until it stayed better than the baseline."""

    policy: str
    baseline: str
    at: str
    """"load 0.8", or "time scale 2"."""
    by_seed: Mapping[int, float | None]
    """Seconds from the start of the run; None where it does not stay better."""

    @property
    def median_s(self) -> float | None:
        """None where half of the seeds or more never came to it."""
        median = statistics.median_high([math.inf if s is None else s for s in self.by_seed.values()])
        return median if math.isfinite(median) else None

    @property
    def text(self) -> str:
        """In plain words."""
        found = [seconds for seconds in self.by_seed.values() if seconds is not None]
        seeds = len(self.by_seed)
        where = f"than {self.baseline} in TTFT at {self.at}"
        if not found:
            return f"{self.policy} never stays better {where} ({'one seed' if seeds == 1 else f'{seeds} seeds'})"
        if self.median_s is None:
            return f"{self.policy} stays better {where} with {len(found)} of {seeds} seeds only"
        words = f"{self.policy} stays better {where} from {self.median_s:.0f} s on"
        if seeds == 1:
            return f"{words} (one seed)"
        spread = f"{min(found):.0f} to {max(found):.0f} s"
        missed = f", not with {seeds - len(found)}" if len(found) < seeds else ""
        return f"{words} (median of {seeds} seeds; {spread}{missed})"


def learning_times(cells: Sequence[Mapping[str, Any]], baseline: str) -> list[LearningTime]:
    """Of every other policy that learns, at every load with seeds in common, in the order of the cells.

    Raises ValueError, with the cell's number, for something that is no cell.
    """
    runs: dict[tuple[str, str], dict[int, _Cell]] = {}
    for number, raw in enumerate(cells):
        try:
            cell = msgspec.convert(raw, _Cell)
        except msgspec.ValidationError as error:
            raise ValueError(f"cell {number}: {error}") from None
        runs.setdefault((cell.policy, cell.at), {})[cell.seed] = cell
    times = []
    for (policy, at), ours in runs.items():
        theirs = runs.get((baseline, at), {})
        by_seed = {
            seed: stays_better(cell.series.arrived, theirs[seed].series.arrived)
            for seed, cell in ours.items()
            if seed in theirs and cell.series.learning is not None
        }
        if policy != baseline and by_seed:
            times.append(LearningTime(policy, baseline, at, by_seed))
    return times


def stays_better(ours: Windows, theirs: Windows) -> float | None:
    """Where the first window begins from which `ours` is ahead for good, in seconds; None without one.

    A lead below NAMEABLE is none. Windows in which one of both had nobody say nothing; a window weighs as many requests
    as the baseline had in it.

    >>> stays_better(Windows(60, [0, 60, 120], [9, 5, 7], [1, 1, 1]), Windows(60, [0, 60, 120], [9, 7, 6], [1, 1, 1]))
    60.0
    """
    known = dict(zip(ours.t_s, ours.ttft_ms, strict=True))
    shared = [window for window in zip(theirs.t_s, theirs.ttft_ms, theirs.requests, strict=True) if window[0] in known]
    if not shared:
        return None
    begins, baseline, weights = np.array(shared, np.float64).T
    ahead = weights * ((1 - NAMEABLE) * baseline - np.array([known[at] for at, _, _ in shared]))
    led = np.concatenate(([0.0], np.cumsum(ahead)))
    least_after = np.minimum.accumulate(led[:0:-1])[::-1]
    for_good = np.flatnonzero(least_after > led[:-1])
    return float(begins[for_good[0]]) if len(for_good) else None


def with_learning_times(cells: Sequence[Mapping[str, Any]], times: Sequence[LearningTime]) -> list[dict[str, Any]]:
    """The cells, each with its `learning_time`: the baseline and, in `better_from_s`, the seconds; null where none is
    known."""
    known = {(time.policy, time.at): time for time in times}
    told = []
    for cell in cells:
        run = msgspec.convert(cell, Run)
        time = known.get((run.policy, run.at))
        found = None
        if time is not None and run.seed in time.by_seed:
            found = {"baseline": time.baseline, "better_from_s": time.by_seed[run.seed]}
        told.append({**cell, "learning_time": found})
    return told
