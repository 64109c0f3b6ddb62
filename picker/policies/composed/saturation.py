"""How full the pool is, 1 for full, and which endpoints have room: the detectors of llm-d-router.

A scraped reading fades as it ages, so an engine that is not heard of any more looks empty rather than full: silence
alone sheds nobody's requests.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

import msgspec
import numpy as np

from picker.engines.rows import Column, Rows
from picker.engines.table import FOREIGN_HALF_LIFE_S
from picker.policies.composed.look import Look, Mask
from picker.policies.policy import Saturated
from picker.requests.request import Request

Headroom = Annotated[float, msgspec.Meta(ge=0, le=1000)]


class Utilization(msgspec.Struct, frozen=True, rename="camel"):
    queue_depth_threshold: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 5
    kv_cache_util_threshold: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.8
    headroom: Headroom = 0.0


class Concurrency(msgspec.Struct, frozen=True, rename="camel"):
    concurrency_mode: Literal["requests", "tokens", "hybrid"] = "requests"
    max_concurrency: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 100
    max_token_concurrency: Annotated[int, msgspec.Meta(ge=1, le=1 << 50)] = 1_000_000
    headroom: Headroom = 0.0


class Detector(Protocol):
    """Says how full the pool is, and as a filter who has room."""

    def saturation(self, rows: Rows) -> float: ...
    def __call__(self, look: Look) -> Mask: ...


@dataclass(frozen=True, slots=True)
class ScrapedLoad:
    """utilization-detector: the fuller of queue and KV cache."""

    params: Utilization

    def saturation(self, rows: Rows) -> float:
        """Mean over the endpoints; 0 for none."""
        params = self.params
        load = np.maximum(rows.waiting / params.queue_depth_threshold, rows.kv_usage / params.kv_cache_util_threshold)
        return float(np.mean(load * np.exp2(rows.age_s / -FOREIGN_HALF_LIFE_S))) if len(rows) else 0.0

    def __call__(self, look: Look) -> Mask:
        """Those within both thresholds and the headroom above them; all where nobody is."""
        params, rows = self.params, look.rows
        room: Mask = rows.waiting <= params.queue_depth_threshold * (1.0 + params.headroom)
        room &= rows.kv_usage <= min(1.0, params.kv_cache_util_threshold * (1.0 + params.headroom))
        return room if room.any() else np.ones(len(rows), dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class OwnLoad:
    """concurrency-detector: own requests in flight, their queued tokens, or whichever is fuller, against a cap."""

    params: Concurrency

    def saturation(self, rows: Rows) -> float:
        """Sum over the endpoints against the sum of their caps; 0 for none."""
        return max((float(load.mean()) for load in self._loads(rows)), default=0.0) if len(rows) else 0.0

    def __call__(self, look: Look) -> Mask:
        """Those below the cap and the headroom above it. Raises Saturated where nobody is."""
        room = np.ones(len(look.rows), dtype=np.bool_)
        for load in self._loads(look.rows):
            room &= load < 1.0 + self.params.headroom
        if len(room) and not room.any():
            raise Saturated("every endpoint has as many requests as concurrency-detector lets it have")
        return room

    def _loads(self, rows: Rows) -> list[Column]:
        """Load of each endpoint against its cap, shape (N,), for every dimension that counts."""
        params = self.params
        requests, tokens = rows.in_flight / params.max_concurrency, rows.queued_tokens / params.max_token_concurrency
        return {"requests": [requests], "tokens": [tokens], "hybrid": [requests, tokens]}[params.concurrency_mode]


@dataclass(frozen=True, slots=True)
class Admission:
    """Who is picked for at all: everybody, but requests of negative priority only while the pool is not full."""

    saturation: Callable[[Rows], float]

    def __call__(self, request: Request, rows: Rows) -> bool:
        return request.hints.priority >= 0 or self.saturation(rows) < 1.0
