"""Each endpoint in turn.

**Formula.** cost = (slot - last picked slot - 1) mod turn: how many places ahead in the turn. The order is that of
slots, which outlive changes of the pool, so a newcomer takes its place in the turn and nobody else loses theirs; a
subset of the pool is walked in the same order.

**Limits.** Blind to load and to prefixes. One turn is shared by all models and subsets.

**Source.** Folklore; the baseline that the reference endpoint picker falls back to.

    >>> from picker.policies.example import example_request, example_rows
    >>> request, policy = example_request(), RoundRobin()
    >>> rows = example_rows(request, batch=[0, 0, 0])
    >>> policy.picked(request, rows, row=0, now=0.0)
    >>> policy.score(request, rows, now=0.0).cost.tolist()
    [2.0, 0.0, 1.0]
"""

import numpy as np

from picker.engines.rows import Rows
from picker.policies.policy import Scores
from picker.requests.request import Request


class RoundRobin:
    """Remembers one number: the slot that was served last."""

    name = "round-robin"

    def __init__(self) -> None:
        self._last = -1

    def score(self, request: Request, rows: Rows, now: float) -> Scores:
        turn = max(int(rows.slots.max(initial=0)), self._last) + 1
        ahead = ((rows.slots - (self._last + 1)) % turn).astype(np.float64)
        return Scores(ahead, {"ahead": ahead})

    def picked(self, request: Request, rows: Rows, row: int, now: float) -> None:
        self._last = int(rows.slots[row])
