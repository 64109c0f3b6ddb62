"""Stay with the prefix until its holders are saturated, then go by load alone.

**Formula.** load = queued tokens + new tokens of this request. An endpoint is sticky when it holds at least
`affinityThreshold` of the request's prefix blocks. While min(queued tokens of sticky) - min(queued tokens of others) <=
peakPrefillRate x toleratedTtftSeconds, sticky endpoints come first, ordered by load, then the others, ordered by load.
Past that, and where no endpoint is sticky, cost = load for all.

**Parameters.**

- `affinityThreshold` (0.8): the share of prefix blocks that makes an endpoint sticky.
- `peakPrefillRate` (20480.0): tokens per second that one unloaded endpoint prefills; measure it for your hardware.
- `toleratedTtftSeconds` (14.0): the extra time to first token that a prefix hit may cost.

**Limits.** One rate for all endpoints: a pool of like hardware. Indifferent to decode load. The tolerated wait is long
on purpose: with the defaults a holder is left only when 286,720 tokens queue there beyond the emptiest other endpoint.

**Source.** llm-d, "Sticky until saturated" (2026): prefix-cache-affinity-filter with token-load-scorer; its threshold
is peak prefill rate x tolerated TTFT = 20,480 tokens/s x 14 s.

    >>> from picker.policies.example import example_request, example_rows
    >>> request, policy = example_request(prompt_tokens=1600), StickyUntilSaturated(Params())
    >>> rows = example_rows(request, hit_tokens=[0, 1600], queued_tokens=[0, 280_000])
    >>> policy.score(request, rows, now=0.0).cost
    array([281602., 280001.])
    >>> rows = example_rows(request, hit_tokens=[0, 1600], queued_tokens=[0, 290_000])
    >>> policy.score(request, rows, now=0.0).cost
    array([  1600., 290001.])
"""

from typing import Annotated

import msgspec
import numpy as np

from picker.engines.rows import Column, Rows
from picker.policies.policy import Scores
from picker.policies.prefix import matched_share
from picker.requests.request import Request


class Params(msgspec.Struct, frozen=True, rename="camel"):
    affinity_threshold: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.8
    peak_prefill_rate: Annotated[float, msgspec.Meta(gt=0, le=1e9)] = 20_480.0
    tolerated_ttft_seconds: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 14.0


class StickyUntilSaturated:
    """llm-d's affinity filter and token load, as one cost."""

    name = "sticky-until-saturated"

    def __init__(self, params: Params) -> None:
        self._affinity = params.affinity_threshold
        self._saturation_tokens = params.peak_prefill_rate * params.tolerated_ttft_seconds

    def score(self, request: Request, rows: Rows, now: float) -> Scores:
        load = rows.queued_tokens + rows.new_tokens
        sticky = matched_share(request, rows) >= self._affinity
        reasons = {"queued_tokens": rows.queued_tokens, "new_tokens": rows.new_tokens, "sticky": sticky.astype(float)}
        if not sticky.any() or self._saturated(rows.queued_tokens, sticky):
            return Scores(load, reasons)
        # One more than any load keeps every sticky endpoint ahead and the order among the others.
        return Scores(np.where(sticky, load, load + (load.max() + 1.0)), reasons)

    def picked(self, request: Request, rows: Rows, row: int, now: float) -> None:
        pass

    def _saturated(self, queued: Column, sticky: np.typing.NDArray[np.bool_]) -> bool:
        others = queued[~sticky]
        return bool(len(others) and queued[sticky].min() - others.min() > self._saturation_tokens)
