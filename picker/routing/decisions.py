"""The decision log: a bounded ring of picks, with everything that a person needs to ask why."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from picker.engines.rows import Rows
from picker.policies.policy import Scores
from picker.pool.view import Endpoint
from picker.requests.request import Request
from picker.routing.outcome import Outcome

ROW_COLUMNS = (
    "batch",
    "queued_tokens",
    "hit_tokens",
    "new_tokens",
    "running",
    "waiting",
    "kv_usage",
    "in_flight",
    "decode_tokens",
    "age_s",
)


@dataclass(slots=True)
class Decision:
    """One pick. `order` holds positions into `endpoints`, the chosen one first, then the fallbacks. `left_out`:
    addresses that were no candidates because they fail."""

    flight: int
    at: float
    request: Request
    policy: str
    endpoints: tuple[Endpoint, ...]
    rows: Rows
    scores: Scores
    order: tuple[int, ...]
    propensity: float
    outcome: Outcome = field(default_factory=Outcome)
    ended: bool = False
    left_out: tuple[str, ...] = ()

    @property
    def addresses(self) -> tuple[str, ...]:
        """What Envoy is told: the pick, then the fallbacks."""
        return tuple([self.endpoints[position].address for position in self.order])

    @property
    def chosen(self) -> int:
        """Position of the pick."""
        return self.order[0]

    @property
    def fell_back(self) -> bool:
        """Another endpoint than the pick served, as far as we were told."""
        return self.outcome.served not in (None, self.endpoints[self.chosen].address)

    def passed_over(self) -> tuple[str, ...]:
        """Those of the list that the proxy tried before whoever served."""
        addresses, served = self.addresses, self.outcome.served
        return addresses[: addresses.index(served)] if served in addresses else addresses

    @property
    def predicted_hit_tokens(self) -> float:
        """Prefix hit that the pick counted on, in tokens, with the last token never a hit."""
        return max(0.0, self.request.prompt_tokens - float(self.rows.new_tokens[self.chosen]))


class DecisionLog:
    """The last picks, bounded by count and by the rows that they keep alive."""

    def __init__(self, capacity: int = 1000, row_budget: int = 200_000) -> None:
        self.capacity = capacity
        self.row_budget = row_budget
        self._ring: OrderedDict[int, Decision] = OrderedDict()
        self._rows = 0

    def __len__(self) -> int:
        return len(self._ring)

    def append(self, decision: Decision) -> None:
        """Keep this pick, forgetting the oldest as the bounds ask."""
        self._ring[decision.flight] = decision
        self._rows += len(decision.rows)
        while len(self._ring) > self.capacity or (self._rows > self.row_budget and len(self._ring) > 1):
            _, oldest = self._ring.popitem(last=False)
            self._rows -= len(oldest.rows)

    def last(self, count: int) -> list[Decision]:
        """The newest `count` picks, newest first."""
        newest: list[Decision] = []
        for decision in reversed(self._ring.values()):
            if len(newest) >= count:
                break
            newest.append(decision)
        return newest

    def by_request_id(self, request_id: str) -> list[Decision]:
        """Every kept pick of this request id, newest first (clients may repeat an id)."""
        return [d for d in reversed(self._ring.values()) if d.request.hints.request_id == request_id]


def as_json(decision: Decision) -> dict[str, Any]:
    """One decision for people and scripts: the request, every endpoint's row and score, the choice, the outcome."""
    request = decision.request
    return {
        "flight": decision.flight,
        "at": decision.at,
        "request_id": request.hints.request_id,
        "api": request.api,
        "model": request.model,
        "stream": request.stream,
        "prompt_tokens": request.prompt_tokens,
        "tokens_source": request.tokens_source,
        "matching": "exact" if request.exact else "text",
        "blocks": len(request.chain),
        "policy": decision.policy,
        "by": decision.scores.by,
        "because": decision.scores.because,
        "chosen": decision.addresses[0],
        "fallbacks": list(decision.addresses[1:]),
        "left_out": list(decision.left_out),
        "propensity": decision.propensity,
        "endpoints": [_endpoint_row(decision, position) for position in range(len(decision.endpoints))],
        "outcome": _outcome(decision.outcome) if decision.ended else None,
    }


def _endpoint_row(decision: Decision, position: int) -> Mapping[str, Any]:
    row: dict[str, Any] = {"address": decision.endpoints[position].address}
    for name in ROW_COLUMNS:
        row[name] = _finite(float(getattr(decision.rows, name)[position]))
    row["cost"] = _finite(float(decision.scores.cost[position]))
    row["reasons"] = {name: _finite(float(column[position])) for name, column in decision.scores.reasons.items()}
    return row


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "status": outcome.status,
        "served": outcome.served,
        "streamed": outcome.streamed,
        "ttft_ms": _ms(outcome.ttft_s),
        "tpot_ms": _ms(outcome.tpot_s),
        "e2e_ms": _ms(outcome.duration_s),
        "prompt_tokens": outcome.prompt_tokens,
        "cached_tokens": outcome.cached_tokens,
        "completion_tokens": outcome.completion_tokens,
        "complete": outcome.complete,
        "fault": None if outcome.fault is None else outcome.fault.value,
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000.0
