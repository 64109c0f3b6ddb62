"""What is kept of the cells of one trace on one pool: one small JSON, a cell a line, no series."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from picker.simulator.ended import Ended
from picker.simulator.generator import SCHEME

NUMBERS_AT = Path("results") / "numbers"
TRACES_AT = Path("results") / "traces"
"""From the root of the repository, where everything here runs."""
_SPREADS = ("ttft_ms", "tpot_ms", "e2e_ms")
_PLAIN = (
    "policy", "load", "seed", "time_scale", "arrivals_per_s", "requests", "completed", "span_s", "goodput",
    "goodput_share", "prefix_hit_ratio", "preemptions",
)  # fmt: skip

Load = float | None
"""As a share of capacity or in requests a second; None where what is played has one of its own."""
CellKey = tuple[str, Load, int, int | None]
"""Policy, load, seed, and how many requests where it is not the whole stretch."""


@dataclass(slots=True)
class Record:
    """`key` says what the numbers are of (`Place.key`); `capacity` is `measure_capacity`'s."""

    key: str
    capacity: dict[str, float] | None = None
    cells: dict[CellKey, dict[str, Any]] = field(default_factory=dict)


def kept_cell(cell: Mapping[str, Any], ended: Sequence[Ended], warm_up: int, short: int | None) -> dict[str, Any]:
    """A cell of a replay cut down to what the page needs, to five significant digits, with what became of each
    hardware class."""
    kept = {name: cell[name] for name in _PLAIN}
    kept |= {name: cell[name] for name in _SPREADS}
    kept["classes"] = list(_classes(cell["engines"], [one for one in ended if one.job >= warm_up and one.complete]))
    kept["short"] = short
    cell_kept: dict[str, Any] = rounded(kept)
    return cell_kept


def _classes(engines: Sequence[Mapping[str, Any]], ended: Sequence[Ended]) -> Iterable[dict[str, Any]]:
    for name in dict.fromkeys(engine["type"] for engine in engines):
        ours = {engine["address"]: engine["busy_share"] for engine in engines if engine["type"] == name}
        served = [one for one in ended if one.address in ours]
        yield {
            "type": name,
            "engines": len(ours),
            "busy_share": float(np.mean(list(ours.values()))),
            "requests": len(served),
            "prompt_tokens": float(np.mean([one.prompt_tokens for one in served])) if served else None,
            "ttft_ms": float(np.mean([one.ttft_ms for one in served])) if served else None,
        }


@cache
def content(trace: str) -> str:
    """Tells a trace from others: its file's hash, wherever that lies, or its generator's spec. Raises OSError."""
    return trace if trace.startswith(SCHEME) else hashlib.sha256(Path(trace).read_bytes()).hexdigest()


def key_of(given: object) -> str:
    """Names numbers by all that they depend on, which must be JSON."""
    return hashlib.sha256(json.dumps(given).encode()).hexdigest()[:16]


def rounded(value: Any) -> Any:
    """To five significant digits."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list) else value


def read(path: Path, key: str) -> Record:
    """What is kept there of just this; an empty record where nothing is, or of something else."""
    try:
        raw = json.loads(path.read_text())
    except FileNotFoundError:
        return Record(key)
    if raw["key"] != key:
        return Record(key)
    return Record(key, raw["capacity"], {cell_key(cell): cell for cell in raw["cells"]})


def cell_key(cell: Mapping[str, Any]) -> CellKey:
    return cell["policy"], cell["load"], cell["seed"], cell["short"]


def write(path: Path, record: Record) -> None:
    """Whole or not at all; in an order that no run's history shows."""
    keys = sorted(record.cells, key=lambda key: (key[3] or 0, key[2], key[1] or 0.0, key[0]))
    lines = ",\n".join(json.dumps(record.cells[key], separators=(",", ":")) for key in keys)
    head = f'{{"key": "{record.key}", "capacity": {json.dumps(record.capacity)}, "cells": [\n'
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(f"{head}{lines}\n]}}\n")
    part.replace(path)
