"""What an agent knows when it bids: its engine, its peers, its rules."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from picker.stages.step_model import StepModel


@dataclass(frozen=True, slots=True)
class Resident:
    """A request that decodes here. `tokens_left` is what is expected still to come."""

    request: str
    length: float
    kv_tokens: int
    tokens_left: float
    movable: bool = True


LEAST_EXPECTED_TOKENS = 256


def expected_tokens(made: int, limit: int | None = None) -> int:
    """How many more an answer of `made` tokens will have, of at most `limit`: as many as it had, at least some.

    Answers that are long get longer yet.
    """
    left = max(made, LEAST_EXPECTED_TOKENS)
    return left if limit is None else min(left, limit - made)


@dataclass(frozen=True, slots=True)
class OwnState:
    """Of one engine, now. `kv_free` does not count reservations of transfers as used. `wait_ms`: how long a newcomer
    would wait for its first step, behind what is to be prefilled."""

    residents: tuple[Resident, ...]
    kv_free: int
    kv_tokens: int
    wait_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Membership:
    """What the router supplies: all other engines of the pool, and this engine's part in the plan. Lengths up to `high`
    belong to its stage; peers are those in it, those in the neighbouring stages, and those in the next one, which has
    the longer requests. Without a plan there are none. `firm`: who outgrows the stage leaves it, even where that saves
    no time."""

    pool: frozenset[str] = frozenset()
    high: float = math.inf
    stage: tuple[str, ...] = ()
    neighbours: tuple[str, ...] = ()
    following: tuple[str, ...] = ()
    firm: bool = False


@dataclass(frozen=True, slots=True)
class BidSettings:
    """`hot`: steps longer than so many times the peers' mean; `kv_full`: share of KV used. `move_ms`: what a move costs
    the request, at least so much must be saved. `transfers`: open at once, either way. Times in seconds."""

    hot: float = 1.2
    kv_full: float = 0.85
    move_ms: float = 50.0
    transfers: int = 3
    line_ms: float = 1000.0
    """An engine with a longer wait takes nobody: what is brought would be evicted before it is used."""
    computes: bool = False
    """KV is not brought but computed anew, where the request goes."""
    window_s: float = 0.05
    accept_s: float = 0.2
    copy_s: float = 10.0
    retry_s: float = 0.2
    again_s: float = 1.0
    rest_s: float = 10.0
    """A request that came by a transfer stays so long."""

    @property
    def lease_s(self) -> float:
        """Longer than all that can come between an offer and its commit, with a second for the clock and the way."""
        return self.accept_s + self.copy_s + 1.0


def step_ms(model: StepModel, lengths: Sequence[float]) -> float:
    """A step that decodes requests of these contexts, in ms.

    >>> step_ms(StepModel(fixed_ms=6.0, decode_ms=0.5, context_ms=100.0, prefill_ms=0.0, alpha=0.5), [1000, 3000])
    7.5
    """
    context = sum(lengths)
    uneven = len(lengths) * max(lengths, default=0.0) - context
    return model.fixed_ms + model.decode_ms * len(lengths) + model.context_ms * (context + model.alpha * uneven) / 1e6


def prefill_ms(model: StepModel, new_tokens: float, length: float) -> float:
    """What computing the last `new_tokens` of a prompt of this length adds to the steps that do it, in ms."""
    return model.prefill_ms * new_tokens + model.work_ms * new_tokens * (length - new_tokens / 2) / 1e6


def reliefs_ms(model: StepModel, residents: Sequence[Resident]) -> list[float]:
    """By which a step is shorter without each of these in turn, in ms."""
    lengths = sorted((resident.length for resident in residents), reverse=True)
    longest, second = [*lengths, 0.0, 0.0][:2]
    count, context = len(lengths), sum(lengths)
    uneven = count * longest - context

    def relief(length: float) -> float:
        most = second if length == longest else longest
        gone = uneven - ((count - 1) * most - (context - length))
        return model.decode_ms + model.context_ms * (length + model.alpha * gone) / 1e6

    return [relief(resident.length) for resident in residents]
