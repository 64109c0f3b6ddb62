"""What moving a running request between simulated engines takes, and who of a plan may move what to whom.

A move is what `picker handoff` does with stock vLLM: the KV of the tokens so far is brought to the other engine while
the request runs on, pulled over a link or computed there; then the request stops at a token boundary, and is asked anew
at the other engine, which finds that KV in its prefix cache and computes what was generated since.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from picker.simulator.station import Station
from picker.stages.agent_state import Membership
from picker.stages.replan import Plan
from picker.stages.step_model import StepModel

KV_BYTES = {"llama-3-8b": 131_072, "llama-3.1-8b": 131_072, "llama-3-70b": 327_680}
"""Of one token: 2 x layers x KV heads x head size x 2 bytes (bf16)."""


@dataclass(frozen=True, slots=True)
class Migration:
    """How requests move. Raises ValueError for what cannot be."""

    kv: Literal["pull", "compute"] = "pull"
    """Whether the other engine pulls KV over the link, or computes it."""
    link_gbps: float = 100.0
    """Of each engine, one transfer at a time; 400 is a whole ConnectX-7."""
    transfers: int = 3
    """Open at one engine, either way."""
    message_ms: float = 2.0
    """Between two agents."""
    handover_ms: float = 30.0
    """From the agreement to the request in the other engine: one HTTP request and its tokens."""

    ahead: bool = False
    """Whether who moved is admitted before all that wait, as vLLM's priority scheduling would."""

    def __post_init__(self) -> None:
        if not (0 < self.link_gbps <= 1e5 and self.transfers >= 1):
            raise ValueError("a link has some speed, and an engine at least one transfer")
        if not all(0 <= delay <= 1e5 for delay in (self.message_ms, self.handover_ms)):
            raise ValueError("delays of a move must be in 0..1e5 ms")


@runtime_checkable
class Moving(Protocol):
    """A policy whose plan may have requests moved."""

    plan: Plan
    models: Mapping[int, StepModel]

    @property
    def moves(self) -> bool:
        """Whether it counts on it."""
        ...

    @property
    def bounds(self) -> tuple[float, ...]:
        """Lengths in tokens between the stages, as they are now."""
        ...


@dataclass(slots=True)
class Tally:
    """Of one run. `gaps_ms`: from a request's stop at one engine to its next token at another."""

    offered: int = 0
    given_up: int = 0
    moved: int = 0
    resumed: int = 0
    bytes: float = 0.0
    gaps_ms: list[float] = field(default_factory=list)


class Links:
    """Of all engines, at one speed. A transfer takes both ends whole; others wait."""

    def __init__(self, gbps: float) -> None:
        self._bytes_per_ms = gbps * 1e9 / 8 / 1e3
        self._free_at: dict[Station, float] = {}

    def transfer(self, one: Station, other: Station, size: float, now: float) -> float:
        """When so many bytes, sent as soon as both ends are free, have arrived, in ms."""
        begun = max(now, self._free_at.get(one, 0.0), self._free_at.get(other, 0.0))
        done = self._free_at[one] = self._free_at[other] = begun + size / self._bytes_per_ms
        return done


def kv_bytes(station: Station) -> int:
    """Of a token in this engine; an unknown model's is that of 8B."""
    return KV_BYTES.get(station.row.model.partition(" ")[0], KV_BYTES["llama-3-8b"])


def memberships(plan: Plan, bounds: Sequence[float], names: Mapping[int, str]) -> dict[int, Membership]:
    """Each engine's part in a plan, by slot; `names` has all engines of the pool."""
    pool = frozenset(names.values())
    parts = {slot: Membership(pool - {name}) for slot, name in names.items()}
    stages = [[slot for slot in stage.engines if slot in names] for stage in plan.stages] if plan.staged else []
    around: list[tuple[str, ...]] = [(), *(tuple(names[slot] for slot in stage) for stage in stages), ()]
    for place, stage in enumerate(stages):
        before, here, after = around[place : place + 3]
        high = bounds[place] if place < len(bounds) else float("inf")
        for slot in stage:
            mine = tuple(name for name in here if name != names[slot])
            parts[slot] = Membership(pool - {names[slot]}, high, mine, (*before, *after), after, plan.fixed)
    return parts
