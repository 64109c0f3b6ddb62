"""What a plugin sees of one pick, and what it may be told besides."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from picker.engines.metrics import LoraState
from picker.engines.rows import Column, Rows
from picker.policies.policy import Member
from picker.requests.request import Request

Mask = NDArray[np.bool_]


def no_adapters(slot: int) -> LoraState | None:
    """No engine has told of its LoRA adapters."""
    return None


@dataclass(frozen=True, slots=True)
class Members:
    """Who stands behind the slots. `by_name` finds a slot by address and by name."""

    by_slot: Mapping[int, Member] = field(default_factory=dict)
    by_name: Mapping[str, int] = field(default_factory=dict)
    lora: Callable[[int], LoraState | None] = no_adapters


@dataclass(frozen=True, slots=True)
class Look:
    """One request and the N candidates that the filters before have left, at time `now` in seconds."""

    request: Request
    rows: Rows
    now: float
    members: Members


Scorer = Callable[[Look], Column]
"""Scores of shape (N,), better is higher; what is outside 0..1 is cut off."""

Filter = Callable[[Look], Mask]
"""Which of the N candidates stay, shape (N,)."""


@runtime_checkable
class Meets(Protocol):
    """A plugin that prepares for the members of the pool."""

    def meet(self, members: Members) -> None: ...


@runtime_checkable
class Remembers(Protocol):
    """A plugin that is told of picks. `look` shows all candidates, as before any filter."""

    def picked(self, look: Look, row: int) -> None: ...
