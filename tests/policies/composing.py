"""Profiles put together in a line, and a pool of named members for them."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from picker.engines.metrics import LoraState
from picker.policies.composed.look import Look, Meets, Members
from picker.policies.composed.plugins import FILTERS, SCORERS
from picker.policies.composed.policy import Composed, Params, Step
from picker.policies.example import example_request, example_rows
from picker.pool.view import Endpoint
from picker.requests.request import Hints, Request

REQUEST = example_request(prompt_tokens=1600)
NOBODY = Members()
Picker = Literal["max-score-picker", "random-picker", "weighted-random-picker"]


def members(*labels: Mapping[str, str], lora: Mapping[int, LoraState] | None = None) -> Members:
    """Endpoints pod-0, pod-1, ... at 10.0.0.0:8000, 10.0.0.1:8000, ... in slots 0, 1, ..."""
    known = {i: Endpoint(f"10.0.0.{i}:8000", name=f"pod-{i}", labels=given) for i, given in enumerate(labels)}
    names = {name: slot for slot, endpoint in known.items() for name in (endpoint.name, endpoint.address)}
    return Members(known, names, (lora or {}).get)


def look(
    request: Request = REQUEST, members: Members = NOBODY, now: float = 0.0, /, **columns: Sequence[float]
) -> Look:
    return Look(request, example_rows(request, **columns), now, members)


def scored(kind: str, seen: Look, **params: object) -> list[float]:
    return [float(score) for score in SCORERS[kind](params, np.random.default_rng(0))(seen).round(6)]


def kept(kind: str, seen: Look, **params: object) -> list[bool]:
    plugin = FILTERS[kind](params, np.random.default_rng(0))
    if isinstance(plugin, Meets):
        plugin.meet(seen.members)
    return [bool(stays) for stays in plugin(seen)]


def composed(*scorers: Step, filters: tuple[Step, ...] = (), picker: Picker = "max-score-picker") -> Composed:
    return Composed(Params(filters=filters, scorers=scorers, picker=picker), np.random.default_rng(0))


def of_session(session: str = "", token: str = "") -> Request:
    return Request(prompt_tokens=1600, hints=Hints(session=session, session_token=token))
