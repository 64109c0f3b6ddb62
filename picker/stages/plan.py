"""Which lengths and how many engines each stage has: a dynamic programme on coarse steps, then a finer local search.

    best[k][g] = min over j < k, f < g of  best[j][f] + cost(buckets j..k on engines f..g) + boundary(j)

over boundaries at powers of two and groups of engines. Engines stand in a line, by KV capacity and speed; a stage has a
run of it, and both directions are tried. The second phase shifts boundaries by fine buckets and single engines between
neighbours while that helps.

The problem and the two phases are CascadeInfer's (arXiv 2512.19179, section on the planner); the recurrence is our own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from picker.stages.lengths import PER_OCTAVE, Floats, Traffic
from picker.stages.qoe import Stage, Valuation
from picker.stages.step_model import StepModel

GRANULES, UNLIKE_GRANULES = 64, 32
"""The first phase tells so many groups of engines apart: of one kind, of several."""
_SHIFTS = (-4, -2, -1, 1, 2, 4)
_ROUNDS = 64
_LIGHTER = 0.9
_LIGHTEST = 0.2

Tables = dict[bytes, Floats]


@dataclass(frozen=True, slots=True)
class Layout:
    """S stages on a grid: stage s has buckets `cuts[s]` to `cuts[s + 1]` and `counts[s][t]` engines of kind t."""

    cuts: tuple[int, ...]
    counts: tuple[tuple[int, ...], ...]

    @property
    def stages(self) -> int:
        return len(self.counts)

    def each(self) -> list[Stage]:
        """As `Valuation.costs` takes them."""
        return list(zip(self.cuts[:-1], self.cuts[1:], self.counts, strict=True))


@dataclass(frozen=True, slots=True)
class Proposal:
    """The best layout found, and what is expected of it: ms in the pool per token of answer."""

    layout: Layout
    ms: float
    unstaged_ms: float
    load: float
    """Share of the traffic that it was found for: below 1 where the pool cannot carry all of it unstaged."""

    @property
    def gain(self) -> float:
        """Share of the time saved against no staging."""
        return 1.0 - self.ms / self.unstaged_ms if self.unstaged_ms > 0 else 0.0


def propose(traffic: Traffic, kinds: Sequence[StepModel], engines: Sequence[int], *, move_ms: float = 0.0) -> Proposal:
    """The best layout for engines given as positions in `kinds`, in any order.

    Raises ValueError without an engine. Without traffic, and where not even a fifth of it can be carried, all engines
    are in one stage.
    """
    if not len(engines):
        raise ValueError("no engines to plan for")
    totals = tuple(np.bincount(np.asarray(engines), minlength=len(kinds)).tolist())
    everything = Layout((0, len(traffic.edges)), (totals,))
    load = 1.0
    while load > _LIGHTEST and traffic.tokens_per_s > 0:
        value = Valuation(traffic.times(load), kinds, move_ms=move_ms)
        unstaged = cost_of(value, everything)
        if np.isfinite(unstaged):
            tables: Tables = {}
            found = [_refined(value, _coarse(value, line, len(kinds), tables)) for line in _lines(kinds, totals)]
            cost, layout = min(found, key=lambda one: one[0])
            if not cost < unstaged:
                cost, layout = unstaged, everything
            return Proposal(layout, cost / value.per_ms, unstaged / value.per_ms, load)
        load *= _LIGHTER
    return Proposal(everything, 0.0, 0.0, load)


def cost_of(value: Valuation, layout: Layout) -> float:
    """Requests in the pool under this layout; inf where a stage is overloaded."""
    return sum(value.costs(layout.each())) + _parted(value, layout)


def _parted(value: Valuation, layout: Layout) -> float:
    """What its boundaries cost."""
    return float(value.boundaries()[list(layout.cuts[1:-1])].sum())


def _lines(kinds: Sequence[StepModel], totals: Sequence[int]) -> list[list[int]]:
    """Engines by kind, from the smallest KV cache to the largest, the slower first; and the other way round."""
    order = sorted(range(len(kinds)), key=lambda t: (kinds[t].kv_tokens, -kinds[t].prefill_ms, -kinds[t].fixed_ms))
    line = [t for t in order for _ in range(totals[t])]
    return [line] if len(set(line)) == 1 else [line, line[::-1]]


def _coarse(value: Valuation, line: Sequence[int], kinds: int, tables: Tables) -> tuple[float, Layout]:
    """The dynamic programme. `tables` keeps what runs cost: they are the same either way along the line."""
    edges = np.array([0, *range(1, value.buckets, PER_OCTAVE), value.buckets])
    most = GRANULES if len(set(line)) == 1 else UNLIKE_GRANULES
    groups = np.unique(np.linspace(0, len(line), min(len(line), most) + 1).round().astype(int))
    held = np.zeros((len(line) + 1, kinds))
    np.add.at(held, (np.arange(1, len(line) + 1), np.asarray(line)), 1.0)
    held = held.cumsum(axis=0)[groups]
    froms, tos = np.triu_indices(len(groups), 1)
    runs, which = np.unique(held[tos] - held[froms], axis=0, return_inverse=True)
    lows, highs = np.triu_indices(len(edges), 1)
    key = runs.tobytes()
    if key not in tables:
        froms_to = np.repeat(edges[lows], len(runs)), np.repeat(edges[highs], len(runs))
        tables[key] = value.stages(*froms_to, np.tile(runs, (len(lows), 1))).reshape(len(lows), len(runs))
    costs = tables[key]
    best = np.full((len(edges), len(groups)), np.inf)
    came = np.zeros((len(edges), len(groups), 2), np.intp)
    best[0, 0] = 0.0
    bounds = value.boundaries()
    step = np.full((len(groups), len(groups)), np.inf)
    for pair in np.lexsort((lows, highs)).tolist():
        j, k = int(lows[pair]), int(highs[pair])
        before = best[j] + (bounds[edges[j]] if j else 0.0)
        step[froms, tos] = costs[pair][which.reshape(-1)]
        total = before[:, None] + step
        first = total.argmin(axis=0)
        least = total[first, np.arange(len(groups))]
        better = least < best[k]
        best[k][better] = least[better]
        came[k, better, 0], came[k, better, 1] = j, first[better]
    if not np.isfinite(best[-1, -1]):
        return np.inf, Layout((0, value.buckets), (tuple(int(number) for number in held[-1]),))
    cuts, counts, k, g = [value.buckets], [], len(edges) - 1, len(groups) - 1
    while k:
        j, f = came[k, g].tolist()
        counts.append(tuple(int(number) for number in held[g] - held[f]))
        cuts.append(int(edges[j]))
        k, g = j, f
    return float(best[-1, -1]), Layout(tuple(cuts[::-1]), tuple(counts[::-1]))


def _refined(value: Valuation, found: tuple[float, Layout]) -> tuple[float, Layout]:
    """The second phase. Never worse than what it is given."""
    cost, layout = found
    return improved(value, layout, _ROUNDS) if np.isfinite(cost) else found


def improved(value: Valuation, layout: Layout, moves: int) -> tuple[float, Layout]:
    """The best of all single changes, again and again, and what it costs; at most so many of them move an engine."""
    cost = cost_of(value, layout)
    for _ in range(_ROUNDS):
        changes = _changes(layout, engines=moves > 0)
        if not changes:
            break
        costs = iter(value.costs([stage for change in changes for stage in change.each()]))
        totals = [sum(islice(costs, change.stages)) + _parted(value, change) for change in changes]
        best = int(np.argmin(totals))
        if not totals[best] < cost * (1.0 - 1e-6):
            break
        moves -= changes[best].counts != layout.counts
        cost, layout = totals[best], changes[best]
    return cost, layout


def _changes(layout: Layout, *, engines: bool) -> list[Layout]:
    changed = []
    cuts, counts = layout.cuts, layout.counts
    for s in range(1, layout.stages):
        shifted = (cuts[s] + shift for shift in _SHIFTS if cuts[s - 1] < cuts[s] + shift < cuts[s + 1])
        changed += [Layout((*cuts[:s], cut, *cuts[s + 1 :]), counts) for cut in shifted]
        for giver, taker in ((s - 1, s), (s, s - 1)) if engines else ():
            for kind, number in enumerate(counts[giver]):
                if number and sum(counts[giver]) > 1:
                    moved = [list(row) for row in counts]
                    moved[giver][kind] -= 1
                    moved[taker][kind] += 1
                    changed.append(Layout(cuts, tuple(tuple(row) for row in moved)))
    return changed


def bounds_of(layout: Layout, edges: Floats) -> tuple[float, ...]:
    """The lengths in tokens between its stages."""
    return tuple(float(edges[cut]) for cut in layout.cuts[1:-1])


def kinds_of(models: Mapping[int, StepModel]) -> tuple[tuple[StepModel, ...], dict[int, int]]:
    """The different models there are, and which of them each engine has."""
    kinds = tuple(dict.fromkeys(models.values()))
    return kinds, {engine: kinds.index(model) for engine, model in models.items()}
