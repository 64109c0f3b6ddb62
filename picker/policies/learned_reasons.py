"""The columns behind a decision of the policy `learned`, made when one is looked at."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from picker.engines.rows import Column
from picker.learning.decision import Judgement


@dataclass(slots=True, eq=False)
class Reasons(Mapping[str, Column]):
    """By name; the decision log looks at few."""

    said: Judgement
    rule_cost: Column
    decode_weight: float
    congestion: float

    def __getitem__(self, name: str) -> Column:
        return _REASONS[name](self)

    def __iter__(self) -> Iterator[str]:
        return iter(_REASONS)

    def __len__(self) -> int:
        return len(_REASONS)


_REASONS: Mapping[str, Callable[[Reasons], Column]] = {
    "predicted_ttft_ms": lambda of: of.said.ttft_ms,
    "predicted_tpot_ms": lambda of: of.said.tpot_ms,
    "correction": lambda of: of.said.correction,
    "own_ms": lambda of: of.said.own_ms,
    "decode_ms": lambda of: of.decode_weight * of.said.decode_ms,
    "eviction_ms": lambda of: of.congestion * of.said.eviction_ms,
    "marginal_ms": lambda of: of.said.cost - of.said.own_ms,
    "rule_cost": lambda of: of.rule_cost,
}
