"""Per-endpoint tallies for people who watch: picks, latencies, cache hits."""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from picker.routing.decisions import Decision

RECENT = 512
"""Answers per endpoint over which quantiles are taken."""
RECENT_PICKS = 200
"""Picks over which endpoints' shares are told."""


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
        self._recent: deque[str] = deque()
        self._recent_picks: Counter[str] = Counter()

    def of(self, address: str) -> EndpointTally:
        tally = self._tallies.get(address)
        if tally is None:
            tally = EndpointTally()
            if len(self._tallies) < self._limit:
                self._tallies[address] = tally
        return tally

    def picked(self, decision: Decision) -> None:
        address = decision.addresses[0]
        self.of(address).picks += 1
        self._recent.append(address)
        self._recent_picks[address] += 1
        if len(self._recent) > RECENT_PICKS:
            oldest = self._recent.popleft()
            self._recent_picks[oldest] -= 1
            if not self._recent_picks[oldest]:
                del self._recent_picks[oldest]

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
            "recent_picks": self._recent_picks[address],
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
