"""One cell of a replay: a trace on a pool under one policy, at one load, with one seed. Pure but for reading the trace.

Everything that a cell needs is plain data (`Setting`, `Cell`), so that it can be sent to another process.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from picker.policies.policy import Policy
from picker.policies.variant import file_stem, policy_maker
from picker.simulator.bounds import is_bound, make_bound
from picker.simulator.capacity import bound_ms, find_capacity
from picker.simulator.cluster import Cluster
from picker.simulator.ended import Ended
from picker.simulator.events import PoolEvent, parse_events
from picker.simulator.generator import SCHEME, generate
from picker.simulator.migration import Migration
from picker.simulator.pool_spec import EngineTypes, parse_pool
from picker.simulator.regret import Regret
from picker.simulator.sequence import Limits
from picker.simulator.signals import Signals
from picker.simulator.steptime import load_table, parse_table
from picker.simulator.summary import Slo, summarize
from picker.simulator.workload import Workload
from picker.simulator.workload_files import parse_workload
from picker.stages.step_model import StepModel, of_row

CAPACITY_POLICY = "least-request"
CAPACITY_REQUESTS = 3000
"""A capacity is measured on the first so many requests."""
FORMAT = 3
"""Of a cell's JSON and of what it means: cells of another one are not resumed."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What all cells of one replay share. `trace` is a path or a generator's spec."""

    trace: str
    pool: str
    engine_models: str | None = None
    """CSV text of step-time rows; None for the shipped ones."""
    events: str = ""
    """YAML or JSON text."""
    alpha: float = 0.0
    host_ms: float = 0.0
    limit: int | None = None
    skip: int = 0
    turns: int | None = None
    """Of each session only the first so many requests."""
    share_system: bool = False
    """Sessions of like tools and system prompts share them."""
    warm_up: int = 0
    signals: Signals = field(default_factory=Signals)
    slo: Slo = field(default_factory=Slo)
    regret_stride: int = 16
    """Regret is measured at one pick in so many; 0 measures none."""
    migration: Migration = field(default_factory=Migration)
    known_steps: bool = False
    """Whether policies that plan are told the engines' step times; they fit them otherwise."""

    def types(self) -> EngineTypes:
        """Raises ValueError."""
        table = load_table() if self.engine_models is None else parse_table(self.engine_models)
        return EngineTypes(table, self.alpha, self.host_ms)

    def pool_events(self) -> tuple[PoolEvent, ...]:
        """Raises ValueError."""
        types = self.types()
        return parse_events(self.events, len(parse_pool(self.pool, types)), types.row)

    def workload(self, seed: int, limit: int | None) -> Workload:
        """Raises ValueError, OSError."""
        if self.trace.startswith(SCHEME):
            return generate(self.trace, seed=seed, limit=limit, skip=self.skip)
        data = Path(self.trace).read_bytes()
        return parse_workload(
            data,
            self.trace,
            seed=seed,
            limit=limit,
            skip=self.skip,
            turns=self.turns,
            share_system=self.share_system,
        )

    def key(self) -> str:
        """Names the setting: equal for equal results. The trace counts by its content."""
        given = asdict(self) | {"format": FORMAT}
        if not self.trace.startswith(SCHEME):
            given["trace"] = hashlib.sha256(Path(self.trace).read_bytes()).hexdigest()
        return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:16]

    def capacity_key(self) -> str:
        """Names what a capacity depends on: a pool that stays whole, and neither SLO nor warm-up."""
        limit = CAPACITY_REQUESTS if self.limit is None else min(self.limit, CAPACITY_REQUESTS)
        return replace(self, events="", limit=limit, warm_up=0, slo=Slo(), regret_stride=0).key()


@runtime_checkable
class KnowsSteps(Protocol):
    """A policy that can be told step times, by the name of the hardware."""

    def know(self, models: Mapping[str, StepModel]) -> None: ...


@dataclass(frozen=True, slots=True)
class Cell:
    """`time_scale`: arrivals come so many times as dense as the trace has them; it is what `load` comes to."""

    policy: str
    load: float | None
    seed: int
    time_scale: float

    @property
    def file_name(self) -> str:
        scale = f"x{self.time_scale:.6g}" if self.load is None else f"l{self.load:.6g}"
        return f"{file_stem(self.policy)}_{scale}_s{self.seed}.json"


def maker(setting: Setting, policy: str) -> Callable[[np.random.Generator], Policy]:
    """Makes the policy, told what the setting has it know. Raises ValueError."""
    make, models = policy_maker(policy), {row.name: of_row(row) for row in parse_pool(setting.pool, setting.types())}

    def made(rng: np.random.Generator) -> Policy:
        one = make(rng)
        if setting.known_steps and isinstance(one, KnowsSteps):
            one.know(models)
        return one

    return made


def run_cell(setting: Setting, cell: Cell, on_end: Callable[[Ended], None] = lambda _: None) -> dict[str, Any]:
    """Run one cell; equal arguments give equal results. Raises ValueError, OSError."""
    types = setting.types()
    workload = setting.workload(cell.seed, setting.limit).faster(cell.time_scale)
    bound = make_bound(cell.policy, workload) if is_bound(cell.policy) else None
    regret = Regret(setting.regret_stride, cell.seed) if setting.regret_stride else None
    cluster = Cluster(
        parse_pool(setting.pool, types),
        maker(setting, cell.policy) if bound is None else lambda rng: bound,
        seed=cell.seed,
        signals=setting.signals,
        events=setting.pool_events(),
        joining=types.row,
        seers=[seer for seer in (bound, regret) if seer is not None],
        watchers=[] if regret is None else [regret],
        migration=setting.migration,
    )
    result = cluster.run(workload, on_end=on_end)
    return {
        "policy": cell.policy,
        "load": cell.load,
        "seed": cell.seed,
        "time_scale": cell.time_scale,
        "arrivals_per_s": workload.rate,
        "closed_loop": workload.closed_loop,
        "trace": Path(setting.trace).name if not setting.trace.startswith(SCHEME) else setting.trace,
        "pool": setting.pool,
        "alpha": setting.alpha,
        "host_ms": setting.host_ms,
        "matching": setting.signals.matching,
        **summarize(result, setting.slo, setting.warm_up),
        "regret_ms": None if regret is None else regret.summary(setting.warm_up),
    }


def measure_capacity(setting: Setting, on_run: Callable[[float, float], None] = lambda *_: None) -> dict[str, float]:
    """Capacity of the setting's pool for its trace: `time_scale` and `arrivals_per_s` at saturation, and the `bound_ms`
    that defines it. `on_run` sees each time scale tried and its P99 TTFT. Raises ValueError, OSError."""
    limit = CAPACITY_REQUESTS if setting.limit is None else min(setting.limit, CAPACITY_REQUESTS)
    rows = parse_pool(setting.pool, setting.types())
    workload = setting.workload(0, limit)
    bound = bound_ms(rows, workload, Limits(), max(row.kv_tokens for row in rows))

    def p99(scale: float) -> float:
        cluster = Cluster(rows, policy_maker(CAPACITY_POLICY), signals=setting.signals)
        result = cluster.run(workload.faster(scale))
        ttft = [request.ttft_ms for request in result.ended if request.ttft_ms is not None]
        found = float(np.percentile(ttft, 99)) if ttft else float("inf")
        on_run(scale, found)
        return found

    scale = find_capacity(p99, bound)
    return {"time_scale": scale, "arrivals_per_s": workload.rate * scale, "bound_ms": bound}
