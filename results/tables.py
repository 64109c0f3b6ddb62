"""The tables of docs/results.md, in Markdown. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from results.board import E2E, GOOD, HIT, P99, TPOT, TTFT, Board, Metric, Ratio, geometric_mean
from results.grid import (
    BASELINE,
    BOUNDS,
    LOADS,
    PUBLISHED,
    PUBLISHED_ON,
    ROLLOUT,
    ROLLOUT_LOAD,
    ROLLOUT_POLICIES,
    ROLLOUT_REQUESTS,
    SEEDS,
    TRACES,
    Place,
    Pool,
)

NONE = "–"
LEARNED = "learned"
ALLOWED = 1.02
"""How much worse than the baseline the learned policy may be."""
LOST = 0.001
"""Losing this much more of its requests than another policy, a policy is said to."""


def shipped(board: Board[Place]) -> list[str]:
    """Policies that can be run in service, the baseline first."""
    names = [policy for policy in board.policies if policy not in (*BOUNDS, ROLLOUT)]
    return sorted(names, key=lambda policy: policy != BASELINE)


def rows(board: Board[Place], pool: Pool) -> list[tuple[Place, float]]:
    """Places and loads at which the baseline ran."""
    places = [Place(trace, pool) for trace in TRACES]
    return [(place, load) for place in places for load in LOADS if board.at(place, BASELINE, load)]


def glance(board: Board[Place], pool: Pool) -> str:
    """Every policy over all traces and loads of a pool."""
    head = ("policy", "cells", "mean TTFT", "its worst cell", "P99 TTFT", "TPOT", "end to end", "good requests")
    lines = []
    for policy in shipped(board):
        at = [(place, load) for place, load in rows(board, pool) if board.at(place, policy, load)]
        figures = [
            geometric_mean(board.ratio(metric, place, policy, load) for place, load in at)
            for metric in (TTFT, P99, TPOT, E2E)
        ]
        good = [value for place, load in at if (value := board.mean(GOOD, place, policy, load)) is not None]
        if not good or figures[0] is None:
            continue
        means = [NONE if figure is None else f"{figure[0]:.2f}" for figure in figures]
        means.insert(1, f"{figures[0][1]:.2f}")
        lines.append((policy, str(len(at)), *means, f"{np.mean(good):.1%}"))
    return table(head, lines)


def over(board: Board[Place], pool: Pool, policy: str, metric: Metric) -> str:
    """A policy's figure over the baseline's: geometric mean over the traces and loads of a pool."""
    found = geometric_mean(board.ratio(metric, place, policy, load) for place, load in rows(board, pool))
    return NONE if found is None else f"{found[0]:.2f}"


def ratios(board: Board[Place], pool: Pool, metric: Metric) -> str:
    """A metric of every policy over the baseline's, per trace and load; who wins where lower is better."""
    others = [policy for policy in shipped(board) if policy != BASELINE]
    head = ("trace", "load", "seeds", f"{BASELINE}, ms", *others, "lowest")
    lines = []
    for place, load in rows(board, pool):
        base = board.mean(metric, place, BASELINE, load)
        cells = [_ratio(board.ratio(metric, place, policy, load)) for policy in others]
        winners = " = ".join(board.winners(metric, place, load, shipped(board)))
        lines.append((place.trace.title, f"{load:g}", _seeds(board, place, load), _number(base), *cells, winners))
    return table(head, lines)


def shares(board: Board[Place], pool: Pool, metric: Metric) -> str:
    """A share between 0 and 1 for every policy, per trace and load; the highest in bold."""
    policies = shipped(board)
    lines = []
    for place, load in rows(board, pool):
        values = [board.mean(metric, place, policy, load) for policy in policies]
        best = max(f"{value:.3f}" for value in values if value is not None)
        cells = [_share(value, bold=value is not None and f"{value:.3f}" == best) for value in values]
        lines.append((place.trace.title, f"{load:g}", *cells))
    return table(("trace", "load", *policies), lines)


def lost(board: Board[Place], pool: Pool) -> str:
    """Requests that were not completed, where policies differ in it; empty where none do."""
    policies = shipped(board)
    lines = []
    for place, load in rows(board, pool):
        values = [board.lost(place, policy, load) for policy in policies]
        known = [value for value in values if value is not None]
        if max(known) - min(known) > LOST:
            lines.append((place.trace.title, f"{load:g}", *(_share(value) for value in values)))
    return table(("trace", "load", *policies), lines) if lines else ""


def bounds(board: Board[Place], pool: Pool) -> str:
    """What the best of the shipped policies and those that know the future make of the same seeds; empty where none of
    the latter ran."""
    head = ["trace", "load", "seeds", "lowest of the shipped"]
    head += [f"{bound}: {what}" for bound in BOUNDS for what in ("TTFT", "TPOT", "end to end")]
    lines = []
    for place, load in rows(board, pool):
        if not all(board.at(place, bound, load) for bound in BOUNDS):
            continue
        best = board.winners(TTFT, place, load, shipped(board))[0]
        seeds = board.ratio(TTFT, place, BOUNDS[0], load)
        figures = [_ratio(board.ratio(m, place, bound, load)) for bound in BOUNDS for m in (TTFT, TPOT, E2E)]
        lines.append(
            (
                place.trace.title, f"{load:g}", str(seeds.seeds if seeds else 0),
                f"{_ratio(board.ratio(TTFT, place, best, load))} {best}", *figures,
            )
        )  # fmt: skip
    return table(head, lines) if lines else ""


def losses(board: Board[Place], pools: Sequence[Pool]) -> str:
    """Where the baseline's mean TTFT is not among the lowest of the policies that learn nothing, and what the lowest
    costs elsewhere."""
    figures_of = (TTFT, P99, TPOT, E2E)
    head = (
        "pool",
        "trace",
        "load",
        "seeds",
        "lowest",
        *(metric.name for metric in figures_of),
        "its hits",
        "LMetric's",
    )
    lines = []
    for place, load in (one for pool in pools for one in rows(board, pool)):
        best, *ties = board.winners(TTFT, place, load, [name for name in shipped(board) if name != LEARNED])
        if BASELINE in (best, *ties):
            continue
        figures = [_ratio(board.ratio(metric, place, best, load)) for metric in figures_of]
        hits = [_share(board.mean(HIT, place, policy, load)) for policy in (best, BASELINE)]
        seeds = str(len(board.at(place, best, load)))
        lines.append((place.pool.title, place.trace.title, f"{load:g}", seeds, best, *figures, *hits))
    return table(head, lines)


def learned_worse(board: Board[Place], pools: Sequence[Pool]) -> str:
    """Where the learned policy's mean TTFT or TPOT is more than allowed above the baseline's; empty where nowhere."""
    lines = []
    for place, load in (one for pool in pools for one in rows(board, pool)):
        figures = [board.ratio(metric, place, LEARNED, load) for metric in (TTFT, P99, TPOT, E2E)]
        if any(one is not None and one.value > ALLOWED for one in (figures[0], figures[2])):
            lines.append((place.pool.title, place.trace.title, f"{load:g}", *(_ratio(one) for one in figures)))
    head = ("pool", "trace", "load", *(metric.name for metric in (TTFT, P99, TPOT, E2E)))
    return table(head, lines) if lines else ""


def published(board: Board[Place], pool: Pool) -> str:
    """What the baseline changes against the policies of its paper, over the traces with prefixes to reuse."""
    lines = []
    at = [(place, load) for place, load in rows(board, pool) if place.trace.name in PUBLISHED_ON]
    for policy, said in PUBLISHED:
        cells = [_changes([board.ratio(metric, place, policy, load) for place, load in at]) for metric in (TTFT, TPOT)]
        lines.append((policy, said, *cells))
    return table(("against", "published", "mean TTFT here", "TPOT here"), lines)


def rollouts(board: Board[Place], pools: Sequence[Pool]) -> str:
    """The short stretches, played by all who know the future: TTFT / TPOT. Empty before one of them ran."""
    others = [policy for policy in ROLLOUT_POLICIES if policy != BASELINE]
    lines = []
    for place in (Place(trace, pool) for pool in pools for trace in TRACES):
        found = [
            [board.ratio(m, place, policy, ROLLOUT_LOAD, short=ROLLOUT_REQUESTS) for m in (TTFT, TPOT)]
            for policy in others
        ]
        if any(ttft is not None for ttft, _ in found):
            cells = [NONE if ttft is None else f"{_ratio(ttft)} / {_ratio(tpot)}" for ttft, tpot in found]
            lines.append((place.pool.title, place.trace.title, *cells))
    return table(("pool", "trace", *others), lines) if lines else ""


def classes(board: Board[Place], pool: Pool, load: float, policies: Sequence[str]) -> str:
    """Who got what on a pool of several hardware classes, on the first seed."""
    names = [part.strip().partition("/")[0] for part in pool.spec.split(",")]
    head = ["trace", "policy"]
    head += [f"{name}: {what}" for name in names for what in ("requests", "prompt", "TTFT ms", "busy")]
    lines = []
    for place in (Place(trace, pool) for trace in TRACES):
        for policy in policies:
            cell = board.at(place, policy, load).get(SEEDS[0])
            if cell is not None:
                lines.append((place.trace.title, policy, *_of_classes(cell, busy=not place.trace.closed_loop)))
    return table(head, lines)


def extent(board: Board[Place], places: Sequence[Place], capacities: Mapping[Place, Mapping[str, float]]) -> str:
    """What stands behind the numbers: requests counted, how long they took, what capacity loads are shares of."""
    head = ("trace", "pool", "seeds", "requests each", "seconds at 0.8", "trace denser by", "capacity, 1/s", "hits")
    lines = []
    for place in places:
        cells = board.at(place, BASELINE, 0.8)
        if cells and place in capacities:
            first = next(iter(cells.values()))
            spans, scales = ([cell[name] for cell in cells.values()] for name in ("span_s", "time_scale"))
            lines.append(
                (
                    place.trace.title, place.pool.title, _seeds(board, place, 0.8), str(first["requests"]),
                    f"{np.mean(spans):,.0f}", f"{np.mean(scales):.3g}", f"{capacities[place]['arrivals_per_s']:.3g}",
                    _share(board.mean(HIT, place, BASELINE, 0.8)),
                )
            )  # fmt: skip
    return table(head, lines)


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    first, *rest = ("| " + " | ".join(line) + " |" for line in (head, *lines))
    return "\n".join([first, "|" + "---|" * len(head), *rest])


def _of_classes(cell: Mapping[str, Any], *, busy: bool) -> list[str]:
    """`busy`: whether the busy share means something; sessions think for hours after most of them have ended."""
    total = sum(one["requests"] for one in cell["classes"])
    found = []
    for one in cell["classes"]:
        found += [_share(one["requests"] / total), _number(one["prompt_tokens"]), _number(one["ttft_ms"])]
        found.append(_share(one["busy_share"]) if busy else NONE)
    return found


def _changes(ratios: Sequence[Ratio | None]) -> str:
    """What going from the others to the baseline changes: on the geometric mean, and in which range."""
    values = [1 / ratio.value for ratio in ratios if ratio is not None]
    if not values:
        return NONE
    mean = float(np.exp(np.mean(np.log(values))))
    return f"{mean - 1:+.0%} ({min(values) - 1:+.0%} to {max(values) - 1:+.0%})"


def _ratio(ratio: Ratio | None) -> str:
    if ratio is None:
        return NONE
    ends = "" if ratio.low is None or ratio.high is None else f" ({ratio.low:.2f}–{ratio.high:.2f})"
    return f"{ratio.value:.2f}{ends}"


def _share(value: float | None, *, bold: bool = False) -> str:
    text = NONE if value is None else f"{value:.1%}"
    return f"**{text}**" if bold else text


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:,.0f}"


def _seeds(board: Board[Place], place: Place, load: float) -> str:
    counts = {len(cells) for policy in shipped(board) if (cells := board.at(place, policy, load))}
    return f"{min(counts)}–{max(counts)}" if len(counts) > 1 else str(max(counts))
