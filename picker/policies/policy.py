"""What a policy is, and what it may do beyond ranking: learn from what came of its picks."""

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import msgspec

from picker.engines.metrics import LoraState
from picker.engines.rows import Column, Rows
from picker.requests.request import Request


class Saturated(Exception):
    """There are endpoints, but none has room for this request now: its client may come back."""


class Scores(msgspec.Struct, frozen=True, eq=False):
    """A policy's answer for N endpoints.

    `cost`: shape (N,), lower is better, +inf excludes an endpoint; equal costs are drawn at random by the caller.
    `reasons`: named columns of shape (N,) behind the cost, for the decision log and `explain`.
    `propensity`: shape (N,), the chance that each endpoint had of coming first, where the policy itself draws; without
    it, ties share theirs. `by` and `because`: who decided within the policy, and why, in a word each. `memo`: what a
    policy that learns wants back when the pick is reserved.
    """

    cost: Column
    reasons: Mapping[str, Column] = {}
    propensity: Column | None = None
    by: str = ""
    because: str = ""
    memo: object = None


class Policy(Protocol):
    """Ranks endpoints. Must give a finite cost to at least one of them whenever there is one that it was not told to
    leave out."""

    name: str

    def score(self, request: Request, rows: Rows, now: float) -> Scores:
        """Score all rows for this request at time `now` (seconds, monotonic). Changes nothing but what it draws."""
        ...

    def picked(self, request: Request, rows: Rows, row: int, now: float) -> None:
        """Row `row` was chosen: windows and counters move here, never in `score`."""
        ...


class Member(Protocol):
    """What may be known of an endpoint besides its load."""

    @property
    def address(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def labels(self) -> Mapping[str, str]: ...


@runtime_checkable
class KnowsMembers(Protocol):
    """A policy that goes by who an endpoint is, too."""

    def meet(self, members: Mapping[int, Member], lora: Callable[[int], LoraState | None]) -> None:
        """The pool by slot, whole, whenever it changes; `lora` tells a slot's adapters as scraped, at any time."""
        ...


class Facts(Protocol):
    """What became of a request; None where nobody told. Seconds from its arrival. An answer that is not `streamed`
    comes at once: `ttft_s` is when."""

    status: int
    streamed: bool
    ttft_s: float | None
    completion_tokens: int | None

    @property
    def tpot_s(self) -> float | None: ...


@runtime_checkable
class Learns(Protocol):
    """A policy that is told what came of its picks. `flight` is the caller's number of a request under way."""

    def ensure(self, capacity: int) -> None:
        """Slots below `capacity` may come."""
        ...

    def reserved(
        self, flight: int, request: Request, rows: Rows, row: int, scores: Scores, propensity: float, now: float
    ) -> None:
        """Row `row` was chosen by these scores; the pick goes by this number until `ended`, which always comes."""
        ...

    def first_byte(self, flight: int, ttft_s: float, now: float) -> None:
        """Its first token came after so many seconds; never said of an answer that comes whole."""
        ...

    def ended(self, flight: int, facts: Facts | None, now: float) -> None:
        """It is over; None where another endpoint served than the one picked. `now` is not before its pick."""
        ...

    def left(self, slot: int) -> None:
        """The endpoint of this slot is gone; another one may take the slot."""
        ...


@runtime_checkable
class Plans(Protocol):
    """A policy that thinks ahead, off the pick's path: call `due` about once a second."""

    @property
    def outlook(self) -> str:
        """The plan that holds and why, in words; there is always one."""
        ...

    def due(self, now: float) -> Callable[[], object] | None:
        """What there is to think about, as a pure call that another thread may make; None for nothing."""
        ...

    def adopt(self, thought: object, now: float) -> None:
        """What that call came to; the next one is due only after it."""
        ...


@runtime_checkable
class Wraps(Protocol):
    """A policy that leaves the ranking to another one."""

    inner: Policy


def innermost(policy: Policy) -> Policy:
    """Who ranks in the end."""
    while isinstance(policy, Wraps):
        policy = policy.inner
    return policy
