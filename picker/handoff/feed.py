"""What a picker tells its pool's hand-off proxies: who they are, and the plan. One document; each takes its part.

A document has a number: `epoch` is of the picker's process, later ones are greater, and `version` counts its changes.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import msgspec

from picker.handoff.members import MOST, Members, Name, base_url
from picker.stages.step_model import StepModel

PLAN = "/handoff/plan"
MOST_BYTES = 2 << 20
FORSAKEN_S = 60.0
_MOST_STAGES = 256
_Number = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
_Place = Annotated[int, msgspec.Meta(ge=0, lt=MOST)]


class Seat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One engine: its proxy's base URL, and which stage and which of the step models are its own."""

    url: Annotated[str, msgspec.Meta(max_length=2048)]
    stage: _Place | None = None
    model: _Place | None = None


class Told(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`bounds`: lengths in tokens between the stages. `firm`: who outgrows a stage leaves it, whatever that saves.
    `outlook`: the plan in words."""

    epoch: _Number
    version: _Number
    engines: Annotated[dict[Name, Seat], msgspec.Meta(max_length=MOST)] = {}
    bounds: Annotated[tuple[float, ...], msgspec.Meta(max_length=_MOST_STAGES)] = ()
    models: Annotated[tuple[StepModel, ...], msgspec.Meta(max_length=MOST)] = ()
    firm: bool = False
    outlook: Annotated[str, msgspec.Meta(max_length=1000)] = ""

    @property
    def tag(self) -> str:
        """An HTTP entity tag."""
        return f'"{self.epoch}-{self.version}"'

    def part(self, own: str) -> Members:
        """What the engine `own` needs to know. One that is not in the document knows its peers, and nothing moves."""
        urls = {name: seat.url for name, seat in self.engines.items()}
        seat = self.engines.get(own)
        if seat is None or seat.stage is None:
            return Members(engines=urls)
        stages: dict[int, list[str]] = {}
        for name, other in sorted(self.engines.items()):
            if other.stage is not None and name != own:
                stages.setdefault(other.stage, []).append(name)
        mine, above = tuple(stages.get(seat.stage, ())), tuple(stages.get(seat.stage + 1, ()))
        return Members(
            engines=urls,
            high=self.bounds[seat.stage] if seat.stage < len(self.bounds) else None,
            firm=self.firm,
            stage=mine,
            neighbours=(*stages.get(seat.stage - 1, ()), *above),
            following=above,
            step_model=None if seat.model is None else self.models[seat.model],
        )


def encode(told: Told) -> bytes:
    return msgspec.json.encode(told)


def read(data: bytes) -> Told:
    """Raises ValueError for anything else than such a document with places that exist and plain http(s) base URLs."""
    try:
        told = msgspec.json.decode(data, type=Told)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"no plan: {error}") from None
    for seat in told.engines.values():
        base_url(seat.url)
        if (seat.stage or 0) > len(told.bounds) or (seat.model is not None and seat.model >= len(told.models)):
            raise ValueError("no plan: a stage or a step model that is not there")
    ordered = [0.0, *told.bounds, math.inf]
    if not all(low < high for low, high in pairwise(ordered)):
        raise ValueError("no plan: boundaries do not rise")
    return told


@dataclass(slots=True)
class Follower:
    """Which of what it hears a proxy goes by: of several pickers the one that started last, until it is not heard of
    for a minute, so that two of them do not pull the pool to and fro."""

    told: Told | None = None
    heard_at: float = -math.inf

    def hear(self, told: Told, now: float) -> bool:
        """Whether this is new, and holds from now on."""
        known = self.told
        if known is not None and told.epoch < known.epoch and now - self.heard_at < FORSAKEN_S:
            return False
        news = known is None or (told.epoch, told.version) != (known.epoch, known.version)
        older = known is not None and told.epoch == known.epoch and told.version < known.version
        if older:
            return False
        self.told, self.heard_at = told, now
        return news

    def same(self, now: float) -> None:
        """The picker that is followed said that nothing changed."""
        self.heard_at = now
