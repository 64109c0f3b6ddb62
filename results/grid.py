"""What is replayed: traces, pools, loads, seeds and policies, as data, and the order in which cells run.

The second half of each trace is reported, so that the first one is free for tuning. A seed is a stretch of its own of
that half where the trace tells its times (they do not overlap), another order and other starts of the sessions, other
draws of the generator. Nothing else would tell seeds apart: a trace's times are fixed but for a few seconds.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from picker.policies.registry import DEFAULT_POLICY, REGISTRY
from picker.simulator.generator import SCHEME
from picker.simulator.replay_run import Setting
from results.record import TRACES_AT, content, key_of


@dataclass(frozen=True, slots=True)
class Trace:
    """A workload, and how much of it one cell plays: `limit` requests, of which `warm_up` are not counted."""

    name: str
    title: str
    source: str
    limit: int
    warm_up: int
    skip: int = 0
    """Requests of the half that is not reported."""
    step: int = 0
    """From the stretch of one seed to that of the next, in requests."""
    turns: int | None = None
    full_load_per_s: float | None = None
    """Arrivals that count as a load of 1 where capacity says nothing. Of sessions half a trace starts at once within
    its bound, which follows the longest prompts: minutes on slow engines."""
    capacity_limit: int = 1500

    @property
    def closed_loop(self) -> bool:
        return self.turns is not None


@dataclass(frozen=True, slots=True)
class Pool:
    name: str
    title: str
    spec: str


@dataclass(frozen=True, slots=True)
class Place:
    """A trace on a pool. `kept` names the file that keeps its numbers."""

    trace: Trace
    pool: Pool

    @property
    def kept(self) -> str:
        return f"{self.trace.name}_{self.pool.name}.json"

    def setting(self, seed: int, requests: int | None = None) -> Setting:
        """What one seed plays: all of the stretch, or its first `requests`, of which a third is warm-up."""
        trace = self.trace
        return Setting(
            trace.source,
            self.pool.spec,
            limit=requests or trace.limit,
            warm_up=requests // 3 if requests else trace.warm_up,
            skip=trace.skip + trace.step * (seed - SEEDS[0]),
            turns=trace.turns,
            regret_stride=0,
        )

    def capacity_setting(self) -> Setting:
        return replace(self.setting(SEEDS[0]), limit=self.trace.capacity_limit, warm_up=0)

    def key(self) -> str:
        """Names what the numbers are of: the trace by its content, how it is cut, the pool."""
        return key_of([asdict(self.trace), self.pool.spec, content(self.trace.source)])


@dataclass(frozen=True, slots=True)
class Task:
    """One cell to run. `requests`: only so many, for policies that cost too much on all of them."""

    place: Place
    policy: str
    load: float
    seed: int
    requests: int | None = None


def _file(name: str) -> str:
    return str(TRACES_AT / name)


def _generated(share: float) -> str:
    return f"{SCHEME}shared?groups=25&share={share}&rate=8&requests=4000"


TRACES = (
    Trace("conversation", "conversation", _file("mooncake_conversation.jsonl.gz"), 1000, 200, skip=6015, step=1200),
    Trace(
        "agentic", "agentic", _file("agentic_coding_sessions.jsonl.gz"), 800, 150, 10716, turns=12, full_load_per_s=0.4
    ),
    Trace("azure-conv", "Azure conv", _file("azure2023_conv.csv.gz"), 1500, 200, 9683, 1900, capacity_limit=3000),
    Trace("azure-code", "Azure code", _file("azure2023_code_first_half.csv.gz"), 535, 85, 2676, 535),
    Trace("shared-28", "shared 28 %", _generated(0.28), 1200, 200),
    Trace("shared-71", "shared 71 %", _generated(0.71), 1200, 200),
)
POOLS = (
    Pool("h100", "8 H100", "h100_sxm/llama-3-8b tp1:8"),
    Pool("h100-l40s", "8 H100 + 4 L40S", "h100_sxm/llama-3-8b tp1:8,l40s/llama-3-8b tp1:4"),
    Pool(
        "a100-rtxpro6000",
        "8 A100 + 8 RTX PRO 6000",
        "a100_sxm/llama-3-8b tp1:8,rtxpro6000/llama-3.1-8b tp1:8",
    ),
)
PLACES = tuple(Place(trace, pool) for trace in TRACES for pool in POOLS)
LOADS = (0.5, 0.8, 0.95)
SEEDS = (100, 101, 102, 103, 104)
"""Never used for tuning."""
BASELINE = DEFAULT_POLICY
ELSEWHERE = ("composed", "staged")
"""Not judged here: the first is what a configuration makes of it, the second is in docs/stages.md."""
POLICIES = (BASELINE, *(name for name in REGISTRY if name not in (BASELINE, *ELSEWHERE)))
BOUNDS = ("clairvoyant-ttft", "clairvoyant-total")
BOUND_SEEDS = SEEDS[:1]
BOUND_LOADS = (0.8, 0.95, 0.5)
"""In the order in which they are wanted: bounds are slow."""
ROLLOUT = "rollout"
ROLLOUT_LOAD = 0.8
ROLLOUT_REQUESTS = 450
ROLLOUT_POLICIES = (BASELINE, *BOUNDS, ROLLOUT)
"""What plays the short stretch, so that the rollout has company."""

PUBLISHED = (
    ("jsq", "vLLM's own balancer, ChatBot: TTFT -92 %, TPOT -24 %"),
    ("preble", "TTFT -56 %, TPOT -8 %"),
    ("weighted", "a weighted sum in production (Bailian): TTFT -39 %, TPOT -51 %"),
    ("least-request", "load alone, ChatBot: TTFT -84 %, TPOT -17 %"),
)
"""What the LMetric paper (arXiv 2603.15202) says that LMetric changes against policies of the kind shipped here."""
PUBLISHED_ON = ("conversation", "agentic", "shared-28", "shared-71")
"""Traces with prefixes to reuse, as all of the paper's have."""


def tasks() -> Iterator[Task]:
    """All cells. Broken off anywhere, what is there is a smaller table that is whole: one seed after the other, the
    bounds after the first."""
    for seed in SEEDS:
        yield from (Task(place, policy, load, seed) for place in PLACES for load in LOADS for policy in POLICIES)
        if seed in BOUND_SEEDS:
            yield from (
                Task(place, policy, load, seed) for load in BOUND_LOADS for place in PLACES for policy in BOUNDS
            )
        if seed == SEEDS[0]:
            yield from _short()


def _short() -> Iterator[Task]:
    for place in PLACES:
        if not place.trace.closed_loop:
            for policy in ROLLOUT_POLICIES:
                yield Task(place, policy, ROLLOUT_LOAD, SEEDS[0], ROLLOUT_REQUESTS)
