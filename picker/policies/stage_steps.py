"""Step times that an operator knows, as parameters of `staged`: numbers, or the name of a row of picker's table."""

from collections.abc import Mapping
from typing import Annotated

import msgspec

from picker.stages.step_model import StepModel

_Ms = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
Hardware = Annotated[str, msgspec.Meta(max_length=253)]
"""A label's value; empty for engines without one."""
Row = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class Steps(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """`StepModel`, as a configuration file has it. `kv_tokens` is scraped where it is not given."""

    fixed_ms: Annotated[float, msgspec.Meta(gt=0, le=1e6)]
    decode_ms: _Ms
    context_ms: _Ms
    prefill_ms: _Ms
    work_ms: _Ms = 0.0
    mixed_ms: _Ms = 0.0
    history_ms: _Ms = 0.0
    alpha: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    kv_tokens: Annotated[float, msgspec.Meta(ge=0, le=1e12)] = 0.0

    def model(self) -> StepModel:
        return StepModel(**msgspec.structs.asdict(self))


def given(steps: Mapping[str, Steps | str]) -> dict[str, StepModel]:
    """Of those that are numbers, by hardware."""
    return {hardware: said.model() for hardware, said in steps.items() if isinstance(said, Steps)}


def rows(steps: Mapping[str, Steps | str]) -> dict[str, str]:
    """The table's rows that the others name, by hardware."""
    return {hardware: said for hardware, said in steps.items() if isinstance(said, str)}
