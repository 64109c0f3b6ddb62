"""Who is better than the baseline, by how much, and whether that is more than luck.

Runs are paired by seed: with the same seed every policy meets the same arrivals, so what a seed makes hard for all
cancels in the difference. Differences are of logarithms, since times and rates compare as ratios. The 95 % interval of
their mean is an expanded percentile bootstrap: the plain one is too narrow for a handful of seeds, the expanded one
takes quantiles further out, as Student's t with that many seeds asks (Hesterberg, "What Teachers Should Know about the
Bootstrap", arXiv 1411.5279). It never leaves the range of the differences seen, so few seeds still promise too much: on
normal differences it holds the truth 93 % of the time with five of them, and 75 % with three, where it is that range.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

FEWEST_SEEDS = 3
RESAMPLES = 10_000
NAMEABLE = 0.005
"""A ratio nearer to 1 than that is called even."""
LOST_GAP = 0.001
"""A verdict mentions lost requests when their shares differ by more."""

Outcome = Literal["better", "worse", "even", "undecided", "no ratio", "not enough seeds"]


@dataclass(frozen=True, slots=True)
class Metric:
    """Where a cell holds a figure, what it is called, its unit, and whether more of it is better."""

    field: str
    statistic: str
    name: str
    unit: str
    more_is_better: bool = False


METRICS = (
    Metric("ttft_ms", "mean", "mean TTFT", "ms"),
    Metric("ttft_ms", "p99", "P99 TTFT", "ms"),
    Metric("tpot_ms", "mean", "mean TPOT", "ms"),
    Metric("e2e_ms", "mean", "mean end-to-end time", "ms"),
    Metric("goodput", "", "goodput", "requests/s", more_is_better=True),
)

Spread = dict[str, float | None]


class Run(msgspec.Struct, frozen=True):
    """What a verdict needs of one cell of a replay's JSON."""

    policy: str
    load: float | None
    seed: int
    ttft_ms: Spread
    tpot_ms: Spread
    e2e_ms: Spread
    goodput: float
    time_scale: float = 1.0
    requests: int = 0
    completed: int = 0

    @property
    def at(self) -> str:
        return f"time scale {self.time_scale:g}" if self.load is None else f"load {self.load:g}"

    def value(self, metric: Metric) -> float | None:
        """None where nothing was measured."""
        if not metric.statistic:
            return self.goodput
        spread: Spread = getattr(self, metric.field)
        return spread.get(metric.statistic)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One policy against the baseline in one metric at one load. `ratio` above 1 is in the policy's favour."""

    policy: str
    baseline: str
    at: str
    """"load 0.8", or "time scale 2"."""
    metric: str
    outcome: Outcome
    seeds: int
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    lost: tuple[float, float] = (0.0, 0.0)
    """Shares of requests that the policy and the baseline did not complete."""

    @property
    def text(self) -> str:
        """The verdict in plain words."""
        where = f"in {self.metric} at {self.at}"
        pair = f"{self.policy} and {self.baseline}"
        match self.outcome:
            case "not enough seeds":
                words = f"not enough seeds to judge {pair} {where}: {self.seeds} in common, {FEWEST_SEEDS} needed"
            case "no ratio":
                words = f"{pair} cannot be compared as a ratio {where}: zero or missing for some seed"
            case "better" | "worse":
                words = f"{self.policy} is {self.factor} {self.outcome} than {self.baseline} {where}"
            case "even":
                words = f"{pair} are even {where}: {self.factor}"
            case "undecided":
                words = f"{pair} cannot be told apart {where}: {self.factor}"
        if abs(self.lost[0] - self.lost[1]) > LOST_GAP:
            words += (
                f" (mind: {self.policy} lost {self.lost[0]:.1%} of its requests, {self.baseline} {self.lost[1]:.1%})"
            )
        return words

    @property
    def factor(self) -> str:
        """The ratio and its interval, as a number above 1 for "better" and for "worse"; empty where there is none."""
        if self.ratio is None or self.low is None or self.high is None:
            return ""
        if self.outcome == "worse":
            return f"{1 / self.ratio:.2f}x ({1 / self.high:.2f}-{1 / self.low:.2f})"
        return f"{self.ratio:.2f}x ({self.low:.2f}-{self.high:.2f})"


def compare(cells: Sequence[Mapping[str, Any]], baseline: str) -> list[Verdict]:
    """Every other policy against `baseline`, at every load, in every metric; in the order of the cells.

    Raises ValueError for something that is no cell, a cell given twice, or a baseline that did not run.
    """
    runs = read_runs(cells)
    groups: dict[str, dict[str, dict[int, Run]]] = {}
    for run in runs:
        seeds = groups.setdefault(run.at, {}).setdefault(run.policy, {})
        if seeds.setdefault(run.seed, run) is not run:
            raise ValueError(f"{run.policy} at {run.at} with seed {run.seed} is given twice")
    if runs and baseline not in (policies := {run.policy for run in runs}):
        raise ValueError(f"the baseline {baseline!r} did not run; there are: {', '.join(sorted(policies))}")
    return [
        _judge(metric, ours, theirs)
        for policies_at in groups.values()
        if (theirs := policies_at.get(baseline)) is not None
        for policy, ours in policies_at.items()
        if policy != baseline
        for metric in METRICS
    ]


def read_runs(cells: Sequence[Mapping[str, Any]]) -> list[Run]:
    """Raises ValueError, with the cell's number."""
    runs = []
    for number, cell in enumerate(cells):
        try:
            runs.append(msgspec.convert(cell, Run))
        except msgspec.ValidationError as error:
            raise ValueError(f"cell {number}: {error}") from None
    return runs


def _judge(metric: Metric, ours: dict[int, Run], theirs: dict[int, Run]) -> Verdict:
    seeds = sorted(ours.keys() & theirs.keys())
    some, other = next(iter(ours.values())), next(iter(theirs.values()))
    lost = _lost([ours[seed] for seed in seeds]), _lost([theirs[seed] for seed in seeds])

    def verdict(outcome: Outcome, ratio: float | None = None, *ends: float) -> Verdict:
        low, high = ends or (None, None)
        return Verdict(some.policy, other.policy, some.at, metric.name, outcome, len(seeds), ratio, low, high, lost)

    if len(seeds) < FEWEST_SEEDS:
        return verdict("not enough seeds")
    pairs = [(ours[seed].value(metric), theirs[seed].value(metric)) for seed in seeds]
    gains = [math.log(b / a) for a, b in pairs if a and b and 0 < a < math.inf and 0 < b < math.inf]
    if len(gains) < len(seeds):
        return verdict("no ratio")
    differences = -np.array(gains) if metric.more_is_better else np.array(gains)
    ratio = math.exp(float(differences.mean()))
    low, high = (math.exp(end) for end in bootstrap_interval(differences))
    if abs(ratio - 1) < NAMEABLE:
        return verdict("even", ratio, low, high)
    return verdict("better" if low > 1 else "worse" if high < 1 else "undecided", ratio, low, high)


def _lost(runs: Sequence[Run]) -> float:
    asked = sum(run.requests for run in runs)
    return 1 - sum(run.completed for run in runs) / asked if asked else 0.0


def bootstrap_interval(values: Sequence[float] | NDArray[np.float64], confidence: float = 0.95) -> tuple[float, float]:
    """Expanded percentile interval of the mean of at least two values. Equal input gives equal output.

    Up to five values all resamples are enumerated, for more RESAMPLES are drawn.
    """
    column = np.asarray(values, np.float64)
    count = len(column)
    if count < 2:
        raise ValueError("an interval needs at least two values")
    if count**count <= RESAMPLES:
        picks = np.indices((count,) * count).reshape(count, -1).T
    else:
        picks = np.random.default_rng(0).integers(0, count, (RESAMPLES, count))
    tail = NormalDist().cdf(-math.sqrt(count / (count - 1)) * _student(1 - (1 - confidence) / 2, count - 1))
    low, high = np.quantile(column[picks].mean(axis=1), (tail, 1 - tail))
    # Rounding in the mean must not carry the interval past what was seen.
    return max(float(low), float(column.min())), min(float(high), float(column.max()))


def _student(level: float, freedom: int) -> float:
    """Quantile of Student's t, by its expansion around the normal one (Abramowitz and Stegun 26.7.5).

    >>> [round(_student(0.975, freedom), 2) for freedom in (4, 9, 30)]
    [2.77, 2.26, 2.04]
    """
    z = NormalDist().inv_cdf(level)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3
