"""What a policy is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from picker.engines.rows import Column, Rows
from picker.requests.request import Request


@dataclass(frozen=True, slots=True)
class Scores:
    """A policy's answer for N endpoints.

    `cost`: shape (N,), lower is better, +inf excludes an endpoint; equal costs are drawn at random by the caller.
    `reasons`: named columns of shape (N,) behind the cost, for the decision log and `explain`.
    """

    cost: Column
    reasons: Mapping[str, Column] = field(default_factory=dict)


class Policy(Protocol):
    """Ranks endpoints. Must give a finite cost to at least one of them whenever there is one."""

    name: str

    def score(self, request: Request, rows: Rows, now: float) -> Scores:
        """Score all rows for this request at time `now` (seconds, monotonic). Changes nothing."""
        ...

    def picked(self, request: Request, rows: Rows, row: int, now: float) -> None:
        """Row `row` was chosen: windows and counters move here, never in `score`."""
        ...
