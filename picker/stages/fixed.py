"""Stages that an operator lays down: `0-512:1`, `512-:3` are two, one engine for lengths up to 512 to three beyond.

The numbers behind the colons are shares: a pool of eight engines has two and six. Every stage has one engine at least.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from picker.stages.replan import Plan, Stage, unstaged
from picker.stages.step_model import StepModel

UNKNOWN = StepModel(fixed_ms=1.0, decode_ms=0.0, context_ms=0.0, prefill_ms=0.0)
"""Where step times are not known yet: by it no engine is better than another, and so no length leaves its stage."""
MOST_STAGES = 64
_FORM = re.compile(r"(\d{1,9})-(\d{0,9}):(\d{1,4})")


@dataclass(frozen=True, slots=True)
class Range:
    """Lengths in tokens, from `low` up to `high`, and the share of the engines that have them."""

    low: float
    high: float
    share: int


def read(texts: Sequence[str]) -> tuple[Range, ...]:
    """Raises ValueError unless these are ranges from 0 to infinity, each from where the one before ends.

    >>> read(["0-512:1", "512-:3"])
    (Range(low=0.0, high=512.0, share=1), Range(low=512.0, high=inf, share=3))
    """
    ranges: list[Range] = []
    for text in texts[:MOST_STAGES]:
        found = _FORM.fullmatch(text)
        if found is None or not int(found[3]):
            raise ValueError(f"{text[:40]!r} is no stage: LOW-HIGH:ENGINES, as in 0-512:1 or 512-:3")
        ranges.append(Range(float(found[1]), float(found[2] or math.inf), int(found[3])))
    edges = [0.0, *(stage.high for stage in ranges)]
    if [stage.low for stage in ranges] != edges[:-1] or any(stage.high <= stage.low for stage in ranges):
        raise ValueError("stages begin at 0, and each where the one before ends")
    if len(texts) > MOST_STAGES or (ranges and edges[-1] != math.inf):
        raise ValueError(f"at most {MOST_STAGES} stages, the last without an end, as in 512-:1")
    return tuple(ranges)


def lay(ranges: Sequence[Range], engines: Sequence[int], current: Plan | None) -> Plan:
    """The plan for these engines: each stays in its stage of the current one as far as there is room."""
    if len(engines) < len(ranges):
        return unstaged(engines, f"{len(ranges)} stages need as many engines, there are {len(engines)}")
    room = _dealt([stage.share for stage in ranges], len(engines))
    kept: list[list[int]] = [[] for _ in ranges]
    free = sorted(engines)
    if current is not None and current.fixed and len(current.stages) == len(ranges):
        for place, stage in enumerate(current.stages):
            kept[place] = [engine for engine in stage.engines if engine in free][: room[place]]
        free = [engine for engine in free if not any(engine in stage for stage in kept)]
    for place, had in enumerate(kept):
        missing = room[place] - len(had)
        had += free[:missing]
        free = free[missing:]
    # Batches of the last stage are as long as they come; twice its beginning stands for that.
    stages = tuple(
        Stage(one.low, one.high, tuple(sorted(had)), 1.0, one.high if math.isfinite(one.high) else 2 * one.low)
        for one, had in zip(ranges, kept, strict=True)
    )
    bounds = ", ".join(f"{stage.low:,.0f}" for stage in stages[1:])
    return Plan(stages, f"as laid down, parted at {bounds or 'no'} tokens", fixed=True)


def _dealt(shares: Sequence[int], engines: int) -> list[int]:
    """Whole engines in these proportions, by largest remainders; one for each at least.

    >>> _dealt([1, 3], 8), _dealt([1, 99], 4), _dealt([1, 1, 1], 5)
    ([2, 6], [1, 3], [2, 2, 1])
    """
    spare = engines - len(shares)
    exact = [max(0.0, engines * share / sum(shares) - 1.0) for share in shares]
    exact = [part * spare / sum(exact) for part in exact] if sum(exact) else [0.0] * len(shares)
    whole = [int(part) for part in exact]
    by_rest = sorted(range(len(shares)), key=lambda i: (whole[i] - exact[i], i))
    for place in by_rest[: spare - sum(whole)]:
        whole[place] += 1
    return [1 + part for part in whole]
