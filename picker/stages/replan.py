"""When to plan anew and whether to follow: a plan stands until another is clearly better, and staging must earn itself.

A pool is staged only if the plan saves at least `least_gain` by more than chance, as told by four parts of the traffic
dealt in turn, and still saves where the load is a fifth higher. Otherwise there is one stage of everything, which is no
staging, and the plan says why.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from picker.stages.lengths import Lengths, Traffic, drift
from picker.stages.plan import Layout, Proposal, cost_of, kinds_of, propose
from picker.stages.qoe import Valuation
from picker.stages.step_model import StepModel

_HEAVIER = 1.2


@dataclass(frozen=True, slots=True)
class Stage:
    """Lengths from `low` up to `high`, in tokens, and the engines that have them."""

    low: float
    high: float
    engines: tuple[int, ...]
    requests: float
    """Expected per engine; tells in which proportion the stages are meant to be loaded."""
    longest: float = 0.0
    """Context in tokens up to which batches there are expected to be."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What holds now. One stage is no staging."""

    stages: tuple[Stage, ...]
    reason: str
    gain: float = 0.0
    """Expected share of the time in the pool per token of answer that is saved against no staging."""
    ms: float = 0.0
    """Expected time in the pool per token of answer."""
    moved: int = 0
    """Engines that left their lengths for others."""
    layout: Layout | None = None

    @property
    def staged(self) -> bool:
        return len(self.stages) > 1

    @property
    def engines(self) -> frozenset[int]:
        return frozenset(engine for stage in self.stages for engine in stage.engines)


@dataclass(frozen=True, slots=True)
class ReplanSettings:
    """`least_gain`: share of time that staging must save. `switch_gain`: by how much a plan must beat the one that
    holds. `drift`: how far the mix must move for a new look. `moves`: share of the engines that one plan may move, one
    at least. `move_ms`: what moving a running request costs it. `requests`: how many must have been seen."""

    least_gain: float = 0.05
    switch_gain: float = 0.03
    drift: float = 0.15
    moves: float = 0.25
    move_ms: float = 50.0
    requests: float = 200.0
    every_s: float = 10.0
    """Between looks, at least; after `at_most_s` without drift there is one anyway."""
    at_most_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Look:
    """When a plan was last thought about, and of what."""

    at: float = -math.inf
    traffic: Traffic | None = None
    engines: frozenset[int] = frozenset()


def is_due(look: Look, traffic: Traffic, engines: frozenset[int], now: float, settings: ReplanSettings) -> bool:
    """Whether to think again: others engines at once, other lengths after `every_s`."""
    if look.traffic is None or engines != look.engines:
        return True
    waited = now - look.at
    return waited >= settings.at_most_s or (
        waited >= settings.every_s and drift(look.traffic, traffic) > settings.drift
    )


def decide(current: Plan | None, lengths: Lengths, models: Mapping[int, StepModel], settings: ReplanSettings) -> Plan:
    """The plan that shall hold for these engines, by their models; the same traffic always gets the same answer."""
    traffic = lengths.traffic()
    engines = tuple(sorted(models))
    if len(engines) < 2:
        return unstaged(engines, "fewer than two engines")
    if traffic.requests < settings.requests:
        return unstaged(engines, f"{traffic.requests:.0f} requests seen, {settings.requests:.0f} needed")
    kinds, kind_of = kinds_of(models)
    found = propose(traffic, kinds, [kind_of[engine] for engine in engines], move_ms=settings.move_ms)
    value = Valuation(traffic.times(found.load), kinds, move_ms=settings.move_ms)
    whole = Layout((0, value.buckets), (tuple(np.bincount(list(kind_of.values()), minlength=len(kinds)).tolist()),))
    holding = _holding(current, kind_of)
    if holding is not None and holding.layout is not None:
        kept = cost_of(value, holding.layout) / value.per_ms
        if not found.ms < kept * (1.0 - settings.switch_gain) and found.unstaged_ms > 0:
            found = replace(found, layout=holding.layout, ms=kept)
    if found.layout.stages == 1:
        return unstaged(engines, "no division is expected to be better", found.ms)
    gains = gains_of(found.layout, whole, lengths.folds(), kinds, found.load, settings.move_ms)
    mean, chance = float(np.mean(gains)), 2.0 * float(np.std(gains, ddof=1)) / math.sqrt(len(gains))
    said = f"{mean:.1%} saved is expected, give or take {chance:.1%}"
    if not mean - chance >= settings.least_gain:
        return unstaged(engines, f"{said}; {settings.least_gain:.0%} are needed", found.unstaged_ms)
    [heavier] = gains_of(found.layout, whole, [traffic], kinds, found.load * _HEAVIER, settings.move_ms)
    if heavier < 0:
        return unstaged(engines, f"{said}; at a fifth more load {-heavier:.1%} would be lost", found.unstaged_ms)
    if holding is not None and found.layout == holding.layout:
        return replace(holding, reason=f"kept: {said}", gain=mean, ms=found.ms, moved=0)
    plan = _assigned(found, mean, said, value, current, kind_of)
    allowed = max(1, int(settings.moves * len(engines)))
    return plan if plan.moved <= allowed else _partly(plan, current, kind_of, value, allowed)


def unstaged(engines: Sequence[int], reason: str, ms: float = 0.0) -> Plan:
    """One stage of everything."""
    return Plan((Stage(0.0, math.inf, tuple(engines), 0.0),), f"not staged: {reason}", ms=ms)


def gains_of(
    layout: Layout, whole: Layout, parts: Sequence[Traffic], kinds: Sequence[StepModel], load: float, move_ms: float
) -> list[float]:
    """Share of time saved in each of these traffics; 1 where only the layout can carry it, -1 where only the whole can,
    0 where neither."""
    gains = []
    for part in parts:
        value = Valuation(part.times(load), kinds, move_ms=move_ms)
        ours, theirs = cost_of(value, layout), cost_of(value, whole)
        if math.isinf(theirs):
            gains.append(0.0 if math.isinf(ours) else 1.0)
        else:
            gains.append(max(-1.0, 1.0 - ours / theirs) if theirs > 0 else 0.0)
    return gains


def _holding(current: Plan | None, kind_of: Mapping[int, int]) -> Plan | None:
    """The plan that holds, if it is one for these very engines."""
    return current if current is not None and current.staged and current.engines == frozenset(kind_of) else None


def _assigned(
    found: Proposal, gain: float, said: str, value: Valuation, current: Plan | None, kind_of: Mapping[int, int]
) -> Plan:
    """Engines take their places: each where its lengths are now, as far as there is room."""
    stages = _empty_stages(found.layout, value)
    room = [list(row) for row in found.layout.counts]
    homes = {engine: _home(engine, current, stages) for engine in kind_of}
    taken: dict[int, int] = {}
    for engine, (_, home) in sorted(homes.items(), key=lambda item: (-item[1][0], item[0])):
        if room[home][kind_of[engine]]:
            room[home][kind_of[engine]] -= 1
            taken[engine] = home
    for engine in sorted(homes.keys() - taken.keys()):
        fit = min((s for s in range(len(stages)) if room[s][kind_of[engine]]), key=lambda s: abs(s - homes[engine][1]))
        room[fit][kind_of[engine]] -= 1
        taken[engine] = fit
    moved = sum(homes[engine][0] > 0 and stage != homes[engine][1] for engine, stage in taken.items())
    filled = _filled(stages, taken)
    bounds = ", ".join(f"{stage.low:,.0f}" for stage in filled[1:])
    reason = f"{len(filled)} stages, parted at {bounds} tokens: {said}"
    if found.load < 1:
        reason += f"; for {found.load:.0%} of the load, which is beyond the pool"
    return Plan(filled, reason, gain, found.ms, moved, found.layout)


def _partly(plan: Plan, current: Plan | None, kind_of: Mapping[int, int], value: Valuation, allowed: int) -> Plan:
    """So many engines move now; the others keep to their lengths until the next plan. What cannot be carried that way,
    or costs more than what holds, is not begun."""
    assert plan.layout is not None
    stages = _empty_stages(plan.layout, value)
    aimed = {engine: s for s, stage in enumerate(plan.stages) for engine in stage.engines}
    homes = {engine: _home(engine, current, stages) for engine in kind_of}
    movers = [e for e, (overlap, home) in sorted(homes.items()) if overlap > 0 and aimed[e] != home]
    staying = set(movers[allowed:])
    taken = {engine: homes[engine][1] if engine in staying else aimed[engine] for engine in kind_of}
    counts = np.zeros((len(stages), len(value.kinds)), int)
    for engine, stage in taken.items():
        counts[stage, kind_of[engine]] += 1
    layout = Layout(plan.layout.cuts, tuple(tuple(row) for row in counts.tolist()))
    cost = cost_of(value, layout)
    holding = _holding(current, kind_of)
    kept = cost_of(value, holding.layout) if holding is not None and holding.layout is not None else math.inf
    if not cost < kept:
        if holding is None:
            return unstaged(sorted(kind_of), "a division is better, but not within the engines that may move at once")
        return replace(holding, reason=f"kept: {plan.moved} engines would have to move at once", moved=0)
    reason = f"{plan.reason}; {allowed} of {plan.moved} engines move now"
    return Plan(_filled(stages, taken), reason, plan.gain, cost / value.per_ms, allowed, layout)


def _empty_stages(layout: Layout, value: Valuation) -> list[Stage]:
    edges = [*value.edges.tolist(), math.inf]
    cuts = np.asarray(layout.cuts)
    costs = value.stages(cuts[:-1], cuts[1:], np.asarray(layout.counts, np.float64)) / np.sum(layout.counts, axis=1)
    longest = value.tallest(cuts[:-1], cuts[1:])
    return [
        Stage(edges[low], edges[high], (), float(requests), float(tokens))
        for low, high, requests, tokens in zip(cuts[:-1], cuts[1:], costs, longest, strict=True)
    ]


def _filled(stages: Sequence[Stage], taken: Mapping[int, int]) -> tuple[Stage, ...]:
    members: list[list[int]] = [[] for _ in stages]
    for engine in sorted(taken):
        members[taken[engine]].append(engine)
    return tuple(replace(stage, engines=tuple(own)) for stage, own in zip(stages, members, strict=True))


def _home(engine: int, current: Plan | None, stages: Sequence[Stage]) -> tuple[float, int]:
    """In octaves, how much of its present lengths the new stage has that has most of them; 0 where it has none yet."""
    if current is None or not current.staged:
        return 0.0, 0
    for old in current.stages:
        if engine in old.engines:
            overlaps = [_octaves(max(old.low, new.low), min(old.high, new.high)) for new in stages]
            best = int(np.argmax(overlaps))
            return overlaps[best], best
    return 0.0, 0


def _octaves(low: float, high: float) -> float:
    """How many doublings are between two lengths; those below 64 tokens and beyond 2^21 do not count."""
    return max(0.0, math.log2(min(max(high, 64.0), 2.0**21)) - math.log2(min(max(low, 64.0), 2.0**21)))
