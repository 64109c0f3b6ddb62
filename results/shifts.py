"""What the learned policy is judged on beside docs/results.md, as data: loads, sharing and pools that change while they
are served, and the policy with a part left out.

A case is played whole, from cold caches and before anything is learned, and all of it is counted.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate, islice

from picker.policies.registry import DEFAULT_POLICY
from picker.simulator.generator import SCHEME
from picker.simulator.replay_run import Setting
from picker.simulator.workload import Arrival, Workload
from results.record import TRACES_AT, content, key_of


@dataclass(frozen=True, slots=True)
class Pace:
    """So many requests at so many a second, with the trace's own unevenness between them."""

    name: str
    requests: int
    rate: float

    @property
    def seconds(self) -> float:
        return self.requests / self.rate


@dataclass(frozen=True, slots=True)
class Case:
    """A trace on a pool. Of sessions (`turns`) there is one pace, and its `rate` is that of their starts."""

    name: str
    title: str
    trace: str
    pool: str
    paces: tuple[Pace, ...]
    skip: int = 0
    step: int = 0
    """From the stretch of one seed to that of the next, in requests."""
    turns: int | None = None
    share_system: bool = False
    events: str = ""
    bound: bool = True
    """Whether `clairvoyant-ttft` plays it: what it costs grows with the pool."""
    rollout: bool = False

    @property
    def kept(self) -> str:
        return f"learned_{self.name}.json"

    @property
    def requests(self) -> int:
        return sum(pace.requests for pace in self.paces)

    @property
    def borders_s(self) -> list[float]:
        """When each pace but the first begins."""
        return list(accumulate(pace.seconds for pace in self.paces))[:-1]

    def setting(self, seed: int) -> Setting:
        skip = self.skip + self.step * (seed - SEEDS[0])
        return Setting(
            self.trace,
            self.pool,
            events=self.events,
            limit=self.requests,
            skip=skip,
            turns=self.turns,
            share_system=self.share_system,
        )

    def workload(self, seed: int) -> Workload:
        """Raises ValueError, OSError."""
        found = self.setting(seed).workload(seed, self.requests)
        return found.faster(self.paces[0].rate / found.rate) if found.closed_loop else paced(found, self.paces)

    def key(self) -> str:
        """Names what the numbers are of: everything but the titles, and the trace by its content."""
        given = asdict(replace(self, title="", bound=True, rollout=False))
        return key_of(given | {"trace": content(self.trace)})


@dataclass(frozen=True, slots=True)
class Task:
    """One cell to run."""

    case: Case
    policy: str
    seed: int


def paced(workload: Workload, paces: Sequence[Pace]) -> Workload:
    """The workload's requests in order, each pace's share of them spread over exactly its time."""
    coming, arrivals, begin_ms = iter(workload.arrivals), list[Arrival](), 0.0
    for pace in paces:
        part = list(islice(coming, pace.requests))
        took_ms, spread_ms = part[-1][0] - part[0][0], pace.seconds * 1e3 * (len(part) - 1) / len(part)
        arrivals += [(begin_ms + (at - part[0][0]) / took_ms * spread_ms, job) for at, job in part]
        begin_ms += pace.seconds * 1e3
    return Workload(workload.name, arrivals)


def _generated(query: str) -> str:
    return f"{SCHEME}made?groups=25&{query}"


def _slow(at_s: float) -> str:
    return json.dumps([{"at_s": at_s, "kind": "slow", "engine": 0, "factor": 2.0}])


def _joins(at_s: float, kind: str) -> str:
    return json.dumps([{"at_s": at_s, "kind": "join", "type": kind}] * 2)


H100, L40S = "h100_sxm/llama-3-8b tp1", "l40s/llama-3-8b tp1"
A100, RTX = "a100_sxm/llama-3-8b tp1", "rtxpro6000/llama-3.1-8b tp1"
CONVERSATION = str(TRACES_AT / "mooncake_conversation.jsonl.gz")
SESSIONS = str(TRACES_AT / "agentic_coding_sessions.jsonl.gz")
SMALL = f"{H100}:4,{L40S}:2"
UNLIKE = f"{H100}:8,{L40S}:4"

CASES = (
    Case(
        "load", "load 8 → 12 → 22 a second, 4 H100 + 2 L40S", _generated("share=0.3&requests=4000"), SMALL,
        (Pace("8 a second", 720, 8.0), Pace("12 a second", 1080, 12.0), Pace("22 a second", 1980, 22.0)),
        rollout=True,
    ),
    Case(
        "sharing", "sharing 5 % → 50 %, 4 H100 + 2 L40S", _generated("share=0.05&share_after=0.5&requests=2520"), SMALL,
        (Pace("5 % shared", 1260, 14.0), Pace("50 % shared", 1260, 14.0)), rollout=True,
    ),
    Case(
        "slowed", "one of 8 H100 slowed 2x, conversation", CONVERSATION, f"{H100}:8",
        (Pace("whole", 1000, 8.3), Pace("one slowed", 1000, 8.3)), skip=6015, step=1000, events=_slow(1000 / 8.3),
    ),
    Case(
        "joining", "2 A100 join 4 H100 + 2 L40S", _generated("share=0.3&requests=3000"), SMALL,
        (Pace("before", 1440, 18.0), Pace("joined", 1440, 18.0)), events=_joins(80.0, A100),
    ),
    Case(
        "many", "512 H100 + 512 L40S, short prompts", _generated("share=0.5&mix=short&requests=3000"),
        f"{H100}:512,{L40S}:512", (Pace("all", 3000, 30.0),), bound=False,
    ),
    Case(
        "conversation", "conversation, 8 H100 + 4 L40S", CONVERSATION, UNLIKE,
        (Pace("first half", 1000, 8.3), Pace("second half", 1000, 8.3)), skip=6015, step=1000, rollout=True,
    ),
    Case(
        "agentic", "agentic with shared system prompts, 8 H100 + 4 L40S", SESSIONS, UNLIKE, (Pace("all", 1500, 0.3),),
        skip=10716, turns=12, share_system=True,
    ),
    Case(
        "shared-71", "shared 71 %, 8 H100 + 4 L40S", _generated("share=0.71&requests=3000"), UNLIKE,
        (Pace("first half", 1500, 45.0), Pace("second half", 1500, 45.0)),
    ),
    Case(
        "agentic-close", "agentic, 8 A100 + 8 RTX PRO 6000", SESSIONS, f"{A100}:8,{RTX}:8", (Pace("all", 1500, 0.3),),
        skip=10716, turns=12,
    ),
)  # fmt: skip
ABLATED = ("conversation", "shared-71", "agentic-close")

SEEDS = (100, 101, 102, 103, 104)
"""Never used for tuning. Each stretch of the conversation trace shares half with the next."""
ABLATION_SEEDS = SEEDS[:3]
BASELINE = DEFAULT_POLICY
LEARNED = "learned"
POLICIES = (BASELINE, "prefix-and-load", LEARNED)
BOUND = "clairvoyant-ttft"
ROLLOUT = "rollout"
TAIL = 300
"""The last so many requests of a case, which are all that the rollout plays: `BASELINE` leads up to them."""
ABLATIONS = {
    "without=base": "no physical base",
    "without=trees": "no trees",
    "without=correction": "no correction per endpoint",
    "without=marginal-cost": "no marginal cost",
    "without=guard": "no guard",
    "predictor=online-tree": "River's online tree for LightGBM's",
}


def tasks() -> Iterator[Task]:
    """All cells. Broken off anywhere, what is there is whole tables of fewer seeds: the cases, then the parts."""
    first = SEEDS[0]
    for seed in SEEDS:
        yield from (Task(case, policy, seed) for case in CASES for policy in POLICIES)
        if seed == first:
            yield from (Task(case, BOUND, seed) for case in CASES if case.bound)
    for seed in ABLATION_SEEDS:
        yield from (
            Task(case, f"{LEARNED}?{part}", seed) for case in CASES if case.name in ABLATED for part in ABLATIONS
        )
        if seed == first:
            yield from (Task(case, ROLLOUT, seed) for case in CASES if case.rollout)
