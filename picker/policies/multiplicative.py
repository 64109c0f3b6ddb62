"""New prefill work times batch size: LMetric, the default.

**Formula.** cost = (queued tokens + new tokens) x (batch + 1), lowest wins.

The first factor stands for the time to first token there: uncached prompt tokens reserved and not yet prefilled, plus
the tokens of this prompt that the endpoint does not hold. The second stands for the slowdown that one more request
suffers and inflicts; the 1 keeps idle endpoints comparable. A product needs no weight: scaling either factor changes no
order. Both factors move at each pick, so a burst sees itself.

**Hot prefixes.** Endpoints that hold a hot prefix are left out for its requests while they cannot carry it: when its
share of recent picks, x, exceeds theirs of the pool, x / (1 - x) > holders / others, and 2 x holders picks in a row
went to a busier holder. They return as soon as the first condition fails; each request left out makes one more holder.
`picker/policies/hot_prefix.py` has the whole rule.

**Parameters.**

- `hotPrefixWindowSeconds` (60.0): how far the detector of hot prefixes looks back; 0 turns it off.

**Limits.** Like endpoints on one model; no term for hardware, decode length or what a request evicts. Past saturation
load-only rules serve more requests in time. Where one prefix family is spread over several classes the detector sees
each class's share only.

**Source.** LMetric (arXiv 2603.15202, OSDI 2026): score and two-phase detector.

    >>> from picker.policies.example import example_request, example_rows
    >>> request = example_request(prompt_tokens=1600)
    >>> rows = example_rows(request, hit_tokens=[1600, 800, 0], queued_tokens=[0, 0, 200], batch=[900, 2, 0])
    >>> Multiplicative(Params()).score(request, rows, now=0.0).cost
    array([ 901., 2400., 1800.])
"""

from typing import Annotated

import msgspec
import numpy as np

from picker.engines.kernels import bare
from picker.engines.rows import Column, Rows
from picker.policies import hot_prefix
from picker.policies.hot_prefix import HotPrefixes, Mask, Prefix, prefix_of
from picker.policies.policy import Scores
from picker.requests.request import Request


class Params(msgspec.Struct, frozen=True, rename="camel"):
    hot_prefix_window_seconds: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 60.0


class Multiplicative:
    """LMetric's score and detector."""

    name = "multiplicative"

    def __init__(self, params: Params) -> None:
        window_s = params.hot_prefix_window_seconds
        self._hot_prefixes = HotPrefixes(window_s) if window_s > 0 else None

    def score(self, request: Request, rows: Rows, now: float) -> Scores:
        reasons = {"queued_tokens": rows.queued_tokens, "new_tokens": rows.new_tokens, "batch": rows.batch}
        cost, dropped = self._weigh(request, rows, now)
        if dropped is None:
            return Scores(cost, reasons)
        return Scores(np.where(dropped, np.inf, cost), {**reasons, "hot_prefix": dropped.astype(np.float64)})

    def cost(self, request: Request, rows: Rows, now: float) -> Column:
        """The costs of `score`, (N,), without a word about why."""
        cost, dropped = self._weigh(request, rows, now)
        return cost if dropped is None else np.where(dropped, np.inf, cost)

    def picked(self, request: Request, rows: Rows, row: int, now: float) -> None:
        if self._hot_prefixes:
            cost, prefix = _weighed(request, rows)
            self._hot_prefixes.picked(prefix, rows, cost, now)

    def _weigh(self, request: Request, rows: Rows, now: float) -> tuple[Column, Mask | None]:
        """Costs, (N,), and who is to be left out."""
        cost, prefix = _weighed(request, rows)
        return cost, self._hot_prefixes.dropped(prefix, rows, now) if self._hot_prefixes else None


def _weighed(request: Request, rows: Rows) -> tuple[Column, Prefix]:
    """Costs with nobody left out, (N,), and the request's class."""
    cost = np.empty(len(rows))
    best = _multiply(rows.queued_tokens, rows.new_tokens, rows.batch, rows.hit_tokens, cost)
    return cost, prefix_of(request, best)


@bare
def _multiply(queued_tokens: Column, new_tokens: Column, batch: Column, hit_tokens: Column, cost: Column) -> float:
    """Write the costs; the longest hit."""
    best = 0.0
    for i in range(len(cost)):
        cost[i] = (queued_tokens[i] + new_tokens[i]) * (batch[i] + 1.0)
        best = max(best, hit_tokens[i])
    return best


def warm() -> None:
    """Compile, or load what an earlier process compiled."""
    zero = np.zeros(1)
    _multiply(zero, zero, zero, zero, zero)
    hot_prefix.warm()
