"""What length stages are judged on, as data: pools of one kind of engine, contexts to 128k, prices of unlike lengths.

Cells are of one arrival rate each. The first requests are left out, while step times and plans are not there yet.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from picker.policies.registry import DEFAULT_POLICY
from picker.simulator.generator import SCHEME
from picker.simulator.replay_run import Setting
from results.shifts import H100, RTX, SESSIONS


@dataclass(frozen=True, slots=True)
class Case:
    """A workload on a pool at arrival rates, in requests (of sessions: session starts) a second."""

    name: str
    title: str
    trace: str
    pool: str
    alpha: float
    rates: tuple[float, ...]
    requests: int = 1000
    warm_up: int = 300
    turns: int | None = None
    known_steps: bool = True

    @property
    def kept(self) -> str:
        return f"stages_{self.name}.json"

    def setting(self) -> Setting:
        return Setting(
            self.trace,
            self.pool,
            alpha=self.alpha,
            limit=self.requests,
            turns=self.turns,
            warm_up=self.warm_up,
            regret_stride=0,
            known_steps=self.known_steps,
        )

    def key(self) -> str:
        """Names what the numbers are of: everything but the title and at which rates."""
        given = asdict(replace(self, title="", rates=()))
        if not self.trace.startswith(SCHEME):
            given["trace"] = hashlib.sha256(Path(self.trace).read_bytes()).hexdigest()
        return hashlib.sha256(json.dumps(given).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Task:
    """One cell to run."""

    case: Case
    policy: str
    rate: float
    seed: int


BASELINE = DEFAULT_POLICY
PLACED = "staged"
MOVED = "staged?migration=true"
LEARNED_INSIDE = "staged?migration=true&within=learned"
POLICIES = (BASELINE, "least-request", "learned", PLACED, MOVED, LEARNED_INSIDE)
"""Of the first case; the others have `FEW`, or `SOME`."""
SOME = (BASELINE, PLACED, MOVED)
FEW = (BASELINE, MOVED)
SEEDS = (200, 201, 202)

MIXED = f"{SCHEME}mixed?share=0&requests=2000&mix=mixed"
GROWING = f"{SCHEME}growing?share=0&requests=2000&mix=short&output=3000"
LLAMA_70B = "h100_sxm/llama-3-70b tp4"

CASES = (
    Case("mixed_20", "8k to 128k beside chats, 8 H100", MIXED, f"{H100}:8", 0.2, (8.0, 9.0, 6.0)),
    Case("mixed_0", "8k to 128k beside chats, 8 H100", MIXED, f"{H100}:8", 0.0, (8.0, 6.0)),
    Case("growing_20", "chats with long answers, 8 H100", GROWING, f"{H100}:8", 0.2, (5.0, 3.5), 1500, 600),
    Case("fitted_20", "the first, step times fitted", MIXED, f"{H100}:8", 0.2, (8.0,), known_steps=False),
    Case("large_20", "8k to 128k beside chats, 8 x 4 H100 with 70B", MIXED, f"{LLAMA_70B}:8", 0.2, (3.5, 2.7)),
    Case("mixed_5", "8k to 128k beside chats, 8 H100", MIXED, f"{H100}:8", 0.055, (8.0, 6.0)),
    Case("rtx_20", "8k to 128k beside chats, 8 RTX PRO 6000", MIXED, f"{RTX}:8", 0.2, (4.5, 3.5)),
    Case("agentic_20", "agentic sessions, 8 H100", SESSIONS, f"{H100}:8", 0.2, (0.3,), 700, 200, turns=12),
)


def policies_of(case: Case, rate: float) -> tuple[str, ...]:
    """The first rate of the first case has all."""
    if case is CASES[0]:
        return POLICIES if rate == case.rates[0] else SOME
    return SOME if case.name.startswith("growing") else FEW


def tasks() -> Iterator[Task]:
    """Broken off anywhere, what is there is whole rows of fewer cases, or of fewer seeds."""
    for seed in SEEDS:
        for case in CASES:
            for rate in case.rates:
                yield from (Task(case, policy, rate, seed) for policy in policies_of(case, rate))
