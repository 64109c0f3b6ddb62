"""Filters by label: which endpoints may serve at all. Labels are looked at when the pool changes, not at each pick."""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
import numpy as np

from picker.policies.composed.look import Look, Mask, Members

ROLE = "llm-d.ai/role"
"""Label of an endpoint's part in serving; absent, it serves whole requests."""
OLD_BOTH = "both"
"""An older word for prefill-decode."""

Label = Annotated[str, msgspec.Meta(min_length=1, max_length=317)]
Value = Annotated[str, msgspec.Meta(max_length=63)]
Values = Annotated[tuple[Value, ...], msgspec.Meta(max_length=256)]


class Requirement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One matchExpression, as Kubernetes has it."""

    key: Label
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: Values = ()

    def __post_init__(self) -> None:
        if bool(self.values) != (self.operator in ("In", "NotIn")):
            raise ValueError("In and NotIn take values, Exists and DoesNotExist take none")

    def met(self, labels: Mapping[str, str]) -> bool:
        """An absent label is not in anything."""
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value in self.values
            case "NotIn":
                return value not in self.values
            case "Exists":
                return value is not None
        return value is None


class LabelSelector(msgspec.Struct, frozen=True, rename="camel"):
    match_labels: Annotated[dict[Label, Value], msgspec.Meta(max_length=64)] = {}
    match_expressions: Annotated[tuple[Requirement, ...], msgspec.Meta(max_length=64)] = ()


class ByLabel(msgspec.Struct, frozen=True, rename="camel"):
    label: Label
    valid_values: Values = ()
    allows_no_label: bool = False


class Selects:
    """Keeps the members of which `selector` is true, as of the last change of the pool."""

    def __init__(self, selector: LabelSelector) -> None:
        self._required = [
            *(Requirement(key, "In", (value,)) for key, value in selector.match_labels.items()),
            *selector.match_expressions,
        ]
        self._matches = np.zeros(0, dtype=np.bool_)

    def meet(self, members: Members) -> None:
        self._matches = np.zeros(max(members.by_slot, default=-1) + 1, dtype=np.bool_)
        for slot, member in members.by_slot.items():
            self._matches[slot] = self._fits(member.labels)

    def _fits(self, labels: Mapping[str, str]) -> bool:
        return all(requirement.met(labels) for requirement in self._required)

    def __call__(self, look: Look) -> Mask:
        return self._matches[look.rows.slots]


class SelectsOne(Selects):
    """Keeps the members whose label has one of some values, or is absent where that is allowed."""

    def __init__(self, params: ByLabel) -> None:
        super().__init__(LabelSelector())
        self._params = params

    def _fits(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self._params.label)
        return self._params.allows_no_label if value is None else value in self._params.valid_values


def serves(part: Literal["encode", "prefill", "decode"]) -> ByLabel:
    """Who may do this part: those whose role names it, and for decoding those without a role.

    >>> serves("encode").valid_values
    ('encode', 'encode-prefill', 'encode-decode', 'encode-prefill-decode')
    """
    roles = (
        "encode",
        "prefill",
        "decode",
        "encode-prefill",
        "encode-decode",
        "prefill-decode",
        "encode-prefill-decode",
    )
    named = tuple(role for role in roles if part in role.split("-"))
    return ByLabel(ROLE, named if part == "encode" else (*named, OLD_BOTH), allows_no_label=part == "decode")
