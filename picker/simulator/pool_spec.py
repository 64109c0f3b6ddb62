"""Which engines a simulated pool has: `h100_sxm/llama-3-8b tp1:8,l40s/llama-3-8b tp1:4`."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from picker.simulator.steptime import StepTime

MAX_ENGINES = 1024
_SCALED = ("c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "host_ms")


@dataclass(frozen=True, slots=True)
class EngineTypes:
    """Step-time rows by name, with the same `alpha` and `host_ms` for all of them."""

    table: Mapping[str, StepTime]
    alpha: float = 0.0
    host_ms: float = 0.0

    def row(self, name: str) -> StepTime:
        """Raises ValueError naming the rows there are."""
        if name not in self.table:
            raise ValueError(f"no engine type {name!r}; there are: {', '.join(sorted(self.table))}")
        return replace(self.table[name], alpha=self.alpha, host_ms=self.host_ms)


def parse_pool(spec: str, types: EngineTypes) -> tuple[StepTime, ...]:
    """One row per engine, in the order given; a missing count is 1. Raises ValueError."""
    rows: list[StepTime] = []
    for part in filter(None, (part.strip() for part in spec.split(","))):
        name, colon, count = part.rpartition(":")
        if not colon:
            name, count = part, "1"
        if not count.isascii() or not count.isdigit() or not 1 <= int(count) <= MAX_ENGINES:
            raise ValueError(f"pool: {part!r} is not NAME:COUNT with a count in 1..{MAX_ENGINES}")
        rows += [types.row(name.strip())] * int(count)
    if not 1 <= len(rows) <= MAX_ENGINES:
        raise ValueError(f"pool: {len(rows)} engines; it takes 1 to {MAX_ENGINES}")
    return tuple(rows)


def slowed(row: StepTime, factor: float) -> StepTime:
    """The row of an engine that takes `factor` times as long for every step."""
    return replace(
        row, **{field.name: getattr(row, field.name) * factor for field in fields(row) if field.name in _SCALED}
    )
