"""A pool small enough to follow by hand: a ledger, and prefix caches that never evict."""

from collections.abc import Sequence

import numpy as np

from picker.engines.rows import Rows
from picker.policies.example import example_rows
from picker.policies.policy import Learns, Policy
from picker.policies.registry import REGISTRY
from picker.requests.request import Request


def make(name: str, **params: object) -> Policy:
    policy = REGISTRY[name](params, np.random.default_rng(0))
    if isinstance(policy, Learns):
        policy.ensure(4096)
    return policy


def costs(policy: Policy, request: Request, now: float = 0.0, /, **columns: Sequence[float]) -> list[float]:
    return [float(cost) for cost in policy.score(request, example_rows(request, **columns), now).cost]


def best(policy: Policy, request: Request, now: float = 0.0, /, **columns: Sequence[float]) -> list[int]:
    """Rows of the lowest cost."""
    cost = costs(policy, request, now, **columns)
    return [row for row, value in enumerate(cost) if value == min(cost)]


class SmallPool:
    """N endpoints; a pick adds to batch and queue, `first_byte` and `end` take it back."""

    def __init__(self, n: int, seed: int = 0) -> None:
        self.batch = np.zeros(n)
        self.queued = np.zeros(n)
        self.cached: list[set[int]] = [set() for _ in range(n)]
        self._rng = np.random.default_rng(seed)

    def rows(self, request: Request) -> Rows:
        hits = [self._leading(cache, request) * request.block_tokens for cache in self.cached]
        return example_rows(request, batch=self.batch.tolist(), queued_tokens=self.queued.tolist(), hit_tokens=hits)

    def pick(self, policy: Policy, request: Request, now: float) -> int:
        rows = self.rows(request)
        cost = policy.score(request, rows, now).cost
        row = int(self._rng.choice(np.flatnonzero(cost == cost.min())))
        policy.picked(request, rows, row, now)
        self.batch[row] += 1
        self.queued[row] += rows.new_tokens[row]
        self.cached[row].update(request.chain.tolist())
        return row

    def first_byte(self) -> None:
        """Every prefill is done."""
        self.queued[:] = 0

    def end(self, row: int) -> None:
        self.batch[row] -= 1

    @staticmethod
    def _leading(cache: set[int], request: Request) -> int:
        blocks = 0
        for key in request.chain.tolist():
            if key not in cache:
                break
            blocks += 1
        return blocks
