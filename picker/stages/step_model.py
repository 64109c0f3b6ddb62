"""What one engine step costs, as far as a plan needs it."""

from dataclasses import dataclass
from typing import Protocol


class StepRow(Protocol):
    """A row of the step-time table: coefficients in ms, and the KV cache in tokens."""

    @property
    def c0(self) -> float: ...
    @property
    def c1(self) -> float: ...
    @property
    def c2(self) -> float: ...
    @property
    def c3(self) -> float: ...
    @property
    def c4(self) -> float: ...
    @property
    def c5(self) -> float: ...
    @property
    def c6(self) -> float: ...
    @property
    def c7(self) -> float: ...
    @property
    def alpha(self) -> float: ...
    @property
    def host_ms(self) -> float: ...
    @property
    def kv_tokens(self) -> int: ...


@dataclass(frozen=True, slots=True)
class StepModel:
    """Milliseconds of one step: fixed, plus so much per sequence that decodes, per token that is prefilled, and so on.

    A step of a table's row, but that each prefilled token costs what it costs in a large chunk.
    """

    fixed_ms: float
    decode_ms: float
    """Per decoding sequence."""
    context_ms: float
    """Per million tokens of decode context."""
    prefill_ms: float
    """Per prefilled token."""
    work_ms: float = 0.0
    """Per million token pairs of prefill attention."""
    mixed_ms: float = 0.0
    """Per million tokens of decode context, in steps that also prefill."""
    history_ms: float = 0.0
    """Per thousand tokens of context already computed of what prefills."""
    alpha: float = 0.0
    """Share of the gap between attention at the longest context and at the mean that kernels pay (arXiv 2512.19179)."""
    kv_tokens: float = 0.0
    """KV cache in tokens; 0 where unknown."""

    def __post_init__(self) -> None:
        """Raises ValueError for a step that takes no time or coefficients below 0."""
        if not self.fixed_ms > 0 or not all(getattr(self, name) >= 0 for name in self.__slots__):
            raise ValueError("a step takes some time, and no amount of work takes less than none")


def of_row(row: StepRow) -> StepModel:
    """The model of a table's row."""
    return StepModel(
        fixed_ms=row.c0 + row.host_ms,
        decode_ms=row.c1 + row.c5,
        context_ms=row.c4,
        prefill_ms=row.c2,
        work_ms=row.c3,
        mixed_ms=row.c6,
        history_ms=row.c7,
        alpha=row.alpha,
        kv_tokens=float(row.kv_tokens),
    )
