"""What length stages are judged on, as data: pools of one kind of engine, contexts to 128k, prices of unlike lengths.

Cells are of one arrival rate each. The first requests are left out, while step times and plans are not there yet.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from picker.policies.registry import DEFAULT_POLICY
from picker.simulator.generator import SCHEME
from picker.simulator.migration import Migration
from picker.simulator.replay_run import Setting
from results.record import content, key_of
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
    requests: int = 3000
    warm_up: int = 600
    turns: int | None = None
    known_steps: bool = True
    moving: Migration | None = None
    """How requests move, where it is not as by default."""

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
            migration=self.moving or Migration(),
        )

    def key(self) -> str:
        """Names what the numbers are of: everything but the title and at which rates."""
        given = asdict(replace(self, title="", rates=())) | {"trace": content(self.trace)}
        if self.moving is None:
            del given["moving"]
        return key_of(given)


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
SOME = (BASELINE, PLACED, MOVED, LEARNED_INSIDE)
FEW = (BASELINE, MOVED, LEARNED_INSIDE)
SEEDS = (200, 201, 202)

MIXED = f"{SCHEME}mixed?share=0&requests=4000&mix=mixed"
BRIEF = f"{SCHEME}mixed?share=0&requests=2000&mix=mixed"
GROWING = f"{SCHEME}growing?share=0&requests=2000&mix=short&output=3000"
LLAMA_70B = "h100_sxm/llama-3-70b tp4"

CASES = (
    Case("mixed_20", "8k to 128k beside chats, 8 H100", MIXED, f"{H100}:8", 0.2, (8.0, 9.0, 7.0, 6.0)),
    Case("mixed_0", "8k to 128k beside chats, 8 H100", MIXED, f"{H100}:8", 0.0, (8.0, 6.0)),
    Case("growing_20", "chats with long answers, 8 H100", GROWING, f"{H100}:8", 0.2, (5.0, 3.5), 1500, 600),
    Case("fitted_20", "the first, step times fitted", MIXED, f"{H100}:8", 0.2, (8.0,), known_steps=False),
    Case(
        "large_20", "8k to 128k beside chats, 8 x 4 H100 with 70B", BRIEF, f"{LLAMA_70B}:8", 0.2, (3.5, 2.7), 1000, 300
    ),
    Case("mixed_5", "8k to 128k beside chats, 8 H100", BRIEF, f"{H100}:8", 0.055, (8.0, 6.0), 1000, 300),
    Case("rtx_20", "8k to 128k beside chats, 8 RTX PRO 6000", BRIEF, f"{RTX}:8", 0.2, (4.5, 3.5), 1000, 300),
    Case("sixteen_20", "8k to 128k beside chats, 16 H100", MIXED, f"{H100}:16", 0.2, (16.0, 18.0, 12.0), 4000, 800),
    Case("compute_20", "the first, KV computed anew", MIXED, f"{H100}:8", 0.2, (8.0,), moving=Migration(kv="compute")),
    Case("slow_20", "the first, links of 10 Gb/s", MIXED, f"{H100}:8", 0.2, (8.0,), moving=Migration(link_gbps=10.0)),
    Case("ahead_20", "the first, who moved goes first", MIXED, f"{H100}:8", 0.2, (8.0,), moving=Migration(ahead=True)),
    Case("agentic_20", "agentic sessions, 8 H100", SESSIONS, f"{H100}:8", 0.2, (0.3,), 700, 200, turns=12),
)


def policies_of(case: Case, rate: float) -> tuple[str, ...]:
    """The first rate of the first case has all."""
    if case is CASES[0]:
        return POLICIES if rate == case.rates[0] else SOME
    if case.moving is not None:
        return BASELINE, MOVED
    several = case.name.startswith("growing") or (case.name.startswith("sixteen") and rate == case.rates[0])
    return SOME if several else FEW


def tasks() -> Iterator[Task]:
    """Broken off anywhere, what is there is whole rows of fewer cases, or of fewer seeds."""
    for seed in SEEDS:
        for case in CASES:
            for rate in case.rates:
                yield from (Task(case, policy, rate, seed) for policy in policies_of(case, rate))
