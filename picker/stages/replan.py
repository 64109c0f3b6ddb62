"""When to plan anew and whether to follow: a plan stands until another is clearly better, and staging must earn itself.

A pool is staged only if the plan saves at least `least_gain` by more than chance, as told by four parts of the traffic
dealt in turn, and loses nothing where the load is a fifth higher; one that would gives way to the best for that load.
Otherwise there is one stage of everything, which is no staging, and the plan says why.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from picker.stages.lengths import Lengths, Traffic, drift
from picker.stages.plan import Layout, Proposal, cost_of, improved, kinds_of, propose
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
    unstaged_ms: float = 0.0
    """Expected time in the pool per token of answer with these stages, and without any; 0 where nothing is expected."""
    load: float = 1.0
    """Share of the traffic for which all this is expected."""
    moved: int = 0
    """Engines that left their lengths for others."""
    layout: Layout | None = None
    fixed: bool = False
    """Laid down by somebody who need not be right: nothing shifts its boundaries and nothing ends it."""

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
    at_most_s: float = 30.0


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
    found = _sturdy(found, traffic, kinds, whole, settings)
    judged = partial(_judged, whole=whole, lengths=lengths, kinds=kinds, load=found.load, settings=settings)
    verdict = "no division is expected to be better"
    holding = _holding(current, kind_of)
    kept_ms = math.inf
    if holding is not None and holding.layout is not None and found.unstaged_ms > 0:
        kept_ms = cost_of(value, holding.layout) / value.per_ms
    if found.layout.stages > 1 and found.ms < kept_ms * (1.0 - settings.switch_gain):
        gain, verdict = judged(found.layout, settings.least_gain)
        if gain is not None:
            plan = _assigned(found, gain, verdict, value, current, kind_of)
            allowed = max(1, int(settings.moves * len(engines)))
            if plan.moved <= allowed:
                return plan
            if holding is None or holding.layout is None or not math.isfinite(kept_ms):
                verdict = f"{plan.moved} engines would have to move at once for a division to be better"
                return unstaged(engines, verdict, found.unstaged_ms, found.load)
            cost, nearer = improved(value, holding.layout, allowed)
            gain, verdict = judged(nearer, None)
            if nearer != holding.layout and gain is not None:
                step = replace(found, layout=nearer, ms=cost / value.per_ms)
                return _assigned(step, gain, f"{verdict}; as a step to a better plan", value, current, kind_of)
    if holding is not None and holding.layout is not None and math.isfinite(kept_ms):
        gain, verdict = judged(holding.layout, None)
        if gain is not None:
            same = replace(holding, reason=f"kept: {verdict}", gain=gain, moved=0)
            return replace(same, ms=kept_ms, unstaged_ms=found.unstaged_ms, load=found.load)
    return unstaged(engines, verdict, found.unstaged_ms, found.load)


def _judged(
    layout: Layout,
    least_gain: float | None,
    *,
    whole: Layout,
    lengths: Lengths,
    kinds: Sequence[StepModel],
    load: float,
    settings: ReplanSettings,
) -> tuple[float | None, str]:
    """The expected gain of a layout, None if it does not suffice, and why in words. A new one must have `least_gain` by
    more than chance; one that holds (None) half of what is asked of new ones, so that it does not come and go."""
    gains = gains_of(layout, whole, lengths.folds(), kinds, load, settings.move_ms)
    mean, chance = float(np.mean(gains)), 2.0 * float(np.std(gains, ddof=1)) / math.sqrt(len(gains))
    said = f"{mean:.1%} saved is expected, give or take {chance:.1%}"
    if least_gain is None and mean < settings.least_gain / 2:
        return None, f"{said}; {settings.least_gain / 2:.1%} are needed to keep stages"
    if least_gain is not None and mean - chance < least_gain:
        return None, f"{said}; {least_gain:.0%} are needed"
    if least_gain is not None and _lost_later(layout, whole, lengths.traffic().times(load), kinds, settings.move_ms):
        return None, f"{said}; at a fifth more load time would be lost"
    return mean, said


def _sturdy(
    found: Proposal, traffic: Traffic, kinds: Sequence[StepModel], whole: Layout, settings: ReplanSettings
) -> Proposal:
    """The same where it is still no loss at a fifth more load, else what is best there, if it is no loss here."""
    now = traffic.times(found.load)
    if found.layout.stages == 1 or not _lost_later(found.layout, whole, now, kinds, settings.move_ms):
        return found
    engines = np.repeat(np.arange(len(kinds)), whole.counts[0]).tolist()
    firmer = propose(now.times(_HEAVIER), kinds, engines, move_ms=settings.move_ms).layout
    value = Valuation(now, kinds, move_ms=settings.move_ms)
    ms = cost_of(value, firmer) / value.per_ms
    return replace(found, layout=firmer, ms=ms) if firmer.stages > 1 and ms < found.unstaged_ms else found


def _lost_later(layout: Layout, whole: Layout, traffic: Traffic, kinds: Sequence[StepModel], move_ms: float) -> bool:
    heavier = Valuation(traffic.times(_HEAVIER), kinds, move_ms=move_ms)
    return cost_of(heavier, layout) > cost_of(heavier, whole)


def unstaged(engines: Sequence[int], reason: str, ms: float = 0.0, load: float = 1.0) -> Plan:
    """One stage of everything."""
    stage = Stage(0.0, math.inf, tuple(engines), 0.0)
    return Plan((stage,), f"not staged: {reason}", unstaged_ms=ms, load=load)


def gains_of(
    layout: Layout, whole: Layout, parts: Sequence[Traffic], kinds: Sequence[StepModel], load: float, move_ms: float
) -> list[float]:
    """Share of time saved in each of these traffics, at the highest load up to this one that both can carry: a part of
    few requests may by chance be more than the pool can do. 0 where there is no such load, or no traffic."""
    gains = []
    for part in parts:
        at, gain = load, 0.0
        while at > load / 4 and part.tokens_per_s > 0:
            value = Valuation(part.times(at), kinds, move_ms=move_ms)
            ours, theirs = cost_of(value, layout), cost_of(value, whole)
            if math.isfinite(ours + theirs):
                gain = 1.0 - ours / theirs if theirs > 0 else 0.0
                break
            at *= 0.9
        gains.append(gain)
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
    fits = {(engine, s): _fit(engine, current, stages[s]) for engine in kind_of for s in range(len(stages))}
    taken: dict[int, int] = {}
    for (engine, s), _ in sorted(fits.items(), key=lambda item: (-item[1], item[0])):
        if engine not in taken and room[s][kind_of[engine]]:
            room[s][kind_of[engine]] -= 1
            taken[engine] = s
    moved = sum(fits[place] < 0.5 for place in taken.items())
    filled = tuple(
        replace(stage, engines=tuple(sorted(engine for engine, place in taken.items() if place == s)))
        for s, stage in enumerate(stages)
    )
    bounds = ", ".join(f"{stage.low:,.0f}" for stage in filled[1:])
    reason = f"{len(filled)} stages, parted at {bounds} tokens: {said}"
    if found.load < 1:
        reason += f"; for {found.load:.0%} of the load, which is beyond the pool"
    return Plan(filled, reason, gain, found.ms, found.unstaged_ms, found.load, moved, found.layout)


def _empty_stages(layout: Layout, value: Valuation) -> list[Stage]:
    edges = [*value.edges.tolist(), math.inf]
    cuts = np.asarray(layout.cuts)
    costs = value.stages(cuts[:-1], cuts[1:], np.asarray(layout.counts, np.float64)) / np.sum(layout.counts, axis=1)
    longest = value.tallest(cuts[:-1], cuts[1:])
    return [
        Stage(edges[low], edges[high], (), float(requests), float(tokens))
        for low, high, requests, tokens in zip(cuts[:-1], cuts[1:], costs, longest, strict=True)
    ]


def _fit(engine: int, current: Plan | None, stage: Stage) -> float:
    """How far the lengths of a stage are those that the engine has, 0 to 1: what is common, of the narrower range. An
    engine that had all lengths, or is new, is at home everywhere."""
    if current is None or not current.staged:
        return 1.0
    old = next((one for one in current.stages if engine in one.engines), None)
    if old is None:
        return 1.0
    common = _octaves(max(old.low, stage.low), min(old.high, stage.high))
    return common / max(min(_octaves(old.low, old.high), _octaves(stage.low, stage.high)), 1e-9)


def _octaves(low: float, high: float) -> float:
    """How many doublings are between two lengths; those below 64 tokens and beyond 2^21 do not count."""
    return max(0.0, math.log2(min(max(high, 64.0), 2.0**21)) - math.log2(min(max(low, 64.0), 2.0**21)))
