"""A plan as a pick reads it: whose lengths are whose, and what a request costs in milliseconds on each endpoint.

    ms = queued prefill + own prefill + output x step
       + decoding x (own prefill + output / 2 x growth of a step)
       + what unlike lengths cost more there than at home

The first line is what the request waits, the second what others wait for it. Unlike lengths cost alpha x context_ms x
output x ((longest - length)+ + batch x (length - longest)+), where `longest` is the context up to which batches of the
endpoint's stage are planned: the request waits for longer ones, or the batch for it. So a cached prefix, a long line
and a foreign length are weighed in one unit, and a length at the edge of its stage is no reason by itself to leave it.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from picker.engines.rows import Column, Rows
from picker.engines.table import MAX_HARDWARE
from picker.stages.replan import Plan
from picker.stages.step_model import StepModel

ELSEWHERE = 0.9
"""Another stage is chosen where it costs less than this share of the least at home."""
NOBODY = -1
_COEFFICIENTS = ("fixed_ms", "decode_ms", "context_ms", "prefill_ms", "work_ms", "alpha")

Where = Literal["home", "overflow", "prefix", "anywhere"]


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """`positions`: rows to choose among, in order. `ms` and `stage` have a number for each of all N rows."""

    positions: NDArray[np.intp]
    where: Where
    ms: Column
    stage: Column


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Made when a plan is adopted, and when its boundaries move."""

    bounds: tuple[float, ...]
    """Lengths in tokens between the stages."""
    stage_of: NDArray[np.intp]
    """Shape (capacity,), by slot."""
    longest: Column
    """Shape (stages,)."""
    coefficients: NDArray[np.float64]
    """Shape (6, MAX_HARDWARE)."""

    def choose(self, prompt_tokens: float, place: float, output: float, rows: Rows) -> Choice | None:
        """Where a request of this length may go; None where no endpoint can have it."""
        known = np.minimum(rows.slots, len(self.stage_of) - 1)
        stage = np.where(rows.slots < len(self.stage_of), self.stage_of[known], NOBODY)
        home = bisect_right(self.bounds, place)
        ms = self.ms(prompt_tokens, place, output, rows, np.where(stage == NOBODY, home, stage), home)
        inside = (stage == home) & np.isfinite(ms)
        least = float(ms[inside].min(initial=np.inf))
        outside = ~inside & (ms < ELSEWHERE * least)
        if np.isfinite(least):
            # A far stage is no place to overflow to; it may hold the prefix.
            held = rows.hit_tokens > rows.hit_tokens[inside].max()
            outside &= (np.abs(stage - home) <= 1) | (stage == NOBODY) | held
            where: Where = "home" if not outside.any() else "prefix" if (outside & held).any() else "overflow"
        else:
            where = "anywhere"
        positions = np.flatnonzero(outside if where != "home" else inside)
        return Choice(positions, where, ms, stage.astype(np.float64)) if len(positions) else None

    def ms(
        self, prompt_tokens: float, place: float, output: float, rows: Rows, stage: NDArray[np.intp], home: int
    ) -> Column:
        """Shape (N,); inf where the KV cache cannot hold the prompt. `stage` is that of each row."""
        fixed, decode, context, prefill, work, alpha = self.coefficients[:, rows.hardware]
        own = prefill * rows.new_tokens + work * rows.new_tokens * (prompt_tokens - rows.new_tokens / 2) / 1e6
        queued = prefill * rows.queued_tokens + work * rows.queued_work / 1e6
        contexts = rows.decode_tokens + rows.queued_prompts + prompt_tokens
        step = fixed + decode * (rows.batch + 1.0) + context * contexts / 1e6
        growth = decode + context * (prompt_tokens + output / 2) / 1e6
        decoding = np.maximum(0.0, rows.batch - rows.prefilling)
        there, here = self.longest[stage], self.longest[home]
        gaps = np.maximum(0.0, there - place) + rows.batch * np.maximum(0.0, place - there)
        at_home = np.maximum(0.0, here - place) + rows.batch * np.maximum(0.0, place - here)
        uneven = alpha * context / 1e6 * output * np.maximum(0.0, gaps - at_home)
        ms = queued + own + output * step + decoding * (own + output / 2 * growth) + uneven
        fits = (rows.kv_tokens == 0) | (rows.kv_tokens >= prompt_tokens)
        return np.where(fits, ms, np.inf)


def places_of(
    plan: Plan, bounds: Sequence[float], models: Mapping[int, StepModel], classes: Mapping[int, int], capacity: int
) -> Places:
    """Of a plan with stages. `models` and `classes` of hardware are by slot; a class without a model has that of the
    first engine."""
    stage_of = np.full(max(capacity, max(plan.engines) + 1), NOBODY, np.intp)
    for number, stage in enumerate(plan.stages):
        stage_of[list(stage.engines)] = number
    by_class = {classes[slot]: model for slot, model in sorted(models.items(), reverse=True)}
    first = models[min(models)]
    rows = [by_class.get(kind, first) for kind in range(MAX_HARDWARE)]
    coefficients = np.array([[getattr(model, name) for model in rows] for name in _COEFFICIENTS])
    return Places(tuple(bounds), stage_of, np.array([stage.longest for stage in plan.stages]), coefficients)
