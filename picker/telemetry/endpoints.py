"""Per-endpoint tallies for people who watch: picks, latencies, cache hits."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from picker.routing.decisions import Decision

RECENT = 512
"""Answers per endpoint over which quantiles are taken."""


@dataclass(slots=True)
class EndpointTally:
    """What one endpoint did for us since it was first picked."""

    picks: int = 0
    ended: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    ttft_s: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))


class EndpointTallies:
    """Watches a router. Bounded: an endpoint past the limit is not told apart."""

    def __init__(self, limit: int = 4096) -> None:
        self._limit = limit
        self._tallies: dict[str, EndpointTally] = {}

    def of(self, address: str) -> EndpointTally:
        tally = self._tallies.get(address)
        if tally is None:
            tally = EndpointTally()
            if len(self._tallies) < self._limit:
                self._tallies[address] = tally
        return tally

    def picked(self, decision: Decision) -> None:
        self.of(decision.addresses[0]).picks += 1

    def ended(self, decision: Decision) -> None:
        outcome = decision.outcome
        tally = self.of(outcome.served or decision.addresses[0])
        tally.ended += 1
        if outcome.status == 0 or outcome.status >= 500:
            tally.failed += 1
        if outcome.ttft_s is not None:
            tally.ttft_s.append(outcome.ttft_s)
        if outcome.prompt_tokens is not None and outcome.cached_tokens is not None:
            tally.prompt_tokens += outcome.prompt_tokens
            tally.cached_tokens += outcome.cached_tokens

    def as_json(self, address: str) -> dict[str, Any]:
        tally = self.of(address)
        return {
            "picks": tally.picks,
            "ended": tally.ended,
            "failed": tally.failed,
            "prefix_hit_ratio": tally.cached_tokens / tally.prompt_tokens if tally.prompt_tokens else None,
            "ttft_ms": quantiles(tally.ttft_s),
        }


def quantiles(seconds: Sequence[float] | deque[float]) -> dict[str, float] | None:
    """p50 and p99 in milliseconds; None without a sample."""
    if not seconds:
        return None
    p50, p99 = np.quantile(np.fromiter(seconds, dtype=np.float64) * 1000.0, (0.5, 0.99))
    return {"p50": float(p50), "p99": float(p99)}
