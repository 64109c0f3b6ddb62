"""What goes wrong, and what it costs: the learned policy beside the rule while models, engines and loads misbehave.

    python -m bench.damage [--seeds 5] [--first-seed 0] [--policy learned] [NAME ...]

Each line is one misfortune (`MISFORTUNES`): mean TTFT of `learned` over that of `multiplicative` on the same requests,
over all seeds, the worst seed's, and after the misfortune alone; the share of prompt tokens found in caches, beside the
rule's; then who decided, by the guard's reasons.
`tests/bench/test_damage.py` holds the first seed of each to its bound.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from unittest.mock import patch

import numpy as np

from picker.engines.metrics import EngineSample
from picker.learning.features import TTFT_TERMS
from picker.learning.forest import Forest
from picker.learning.guard import Guard, Reason, Transition
from picker.learning.learner import Learner
from picker.learning.model import Model
from picker.policies.learned import Learned
from picker.policies.policy import Policy
from picker.policies.variant import policy_maker
from picker.simulator.cluster import Cluster
from picker.simulator.ended import Ended
from picker.simulator.events import Join, PoolEvent, Slow
from picker.simulator.generator import generate
from picker.simulator.pool_spec import EngineTypes, parse_pool
from picker.simulator.station import Station
from picker.simulator.steptime import load_table

RULE, LEARNED = "multiplicative", "learned"
FAST, SLOW = "h100_sxm/llama-3-8b tp1", "l40s/llama-3-8b tp1"
AT_S = 30.0
"""When it happens: the model has been in charge for a while."""
FIRST, LAST = "10.0.0.0:8000", "10.0.0.3:8000"

Change = Callable[[EngineSample], EngineSample]


class Beset(Learner):
    """From AT_S on, or from the start, it is brought changed models, or none."""

    def __init__(self, change: Callable[[Model], Model | None], since_s: float = AT_S) -> None:
        super().__init__()
        self._change, self._since_s = change, since_s

    def adopt(self, model: Model, now: float, *, proven: bool = False) -> None:
        brought = model if now < self._since_s else self._change(model)
        if brought is not None:
            super().adopt(brought, now, proven=proven)


def upside_down(model: Model) -> Model:
    """Who has most to do looks fastest."""
    base = -model.ttft_base
    base[:, TTFT_TERMS.index("one")] = 2000.0
    return replace(model, ttft_base=base, ttft_trees=_turned(model.ttft_trees))


def shuffled(model: Model) -> Model:
    """Each coefficient belongs to another term."""
    order = np.random.default_rng(0).permutation(model.ttft_base.shape[1])
    return replace(model, ttft_base=model.ttft_base[:, order], ttft_trees=_turned(model.ttft_trees))


def no_numbers(model: Model) -> Model:
    """No coefficient is a number."""
    return replace(model, ttft_base=np.full_like(model.ttft_base, np.nan))


def _turned(trees: Forest) -> Forest:
    return replace(trees, leaves=-trees.leaves)


@dataclass(frozen=True, slots=True)
class Misfortune:
    """Four engines and requests whose prompts begin like those of their group; and what goes wrong."""

    pool: str = f"{FAST}:2,{SLOW}:2"
    requests: str = "groups=12&share=0.5&rate=10&requests=600"
    events: Sequence[PoolEvent] = ()
    learner: Callable[[], Learner] | None = None
    """Another than the policy's own."""
    lie: Change | None = None
    """What the metrics page of the last engine says from AT_S on."""
    kv_tokens: int | None = None
    """Cache of every engine, if not as its row says."""


MISFORTUNES: Mapping[str, Misfortune] = {
    "nothing": Misfortune(),
    "models turned upside down": Misfortune(learner=lambda: Beset(upside_down)),
    "upside down from the first": Misfortune(learner=lambda: Beset(upside_down, 0.0)),
    "models shuffled": Misfortune(learner=lambda: Beset(shuffled)),
    "models of no numbers": Misfortune(learner=lambda: Beset(no_numbers)),
    "no model ever": Misfortune(learner=lambda: Beset(lambda _: None, 0.0)),
    "no new model, an engine twice as slow": Misfortune(
        events=[Slow(AT_S, 0, 2.0)], learner=lambda: Beset(lambda _: None, AT_S - 5)
    ),
    "an engine twice as slow": Misfortune(events=[Slow(AT_S, 0, 2.0)]),
    "all engines twice as slow": Misfortune(events=[Slow(AT_S, engine, 2.0) for engine in range(4)]),
    "two engines of a new class": Misfortune(
        f"{SLOW}:3", "groups=12&share=0.5&rate=8&requests=600", [Join(AT_S, FAST), Join(AT_S, FAST)]
    ),
    "an engine that says it is idle": Misfortune(lie=lambda said: replace(said, running=0, waiting=0, kv_usage=0.0)),
    "an engine that says it is full": Misfortune(lie=lambda said: replace(said, running=1e6, waiting=1e6, kv_usage=1)),
    "an engine that says it has one block": Misfortune(lie=lambda said: replace(said, num_blocks=1)),
    "twice the load": Misfortune(requests="groups=12&share=0.5&rate=12&requests=720&rate_after=25"),
    "more than the pool can take": Misfortune(
        f"{SLOW}:4", "groups=12&share=0.5&rate=8&requests=800&rate_after=24"
    ),
    "hot prefixes, small caches": Misfortune(
        f"{FAST}:4", "groups=40&share=0.75&rate=18&requests=1500", kv_tokens=60_000
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """One policy's run."""

    ended: Sequence[Ended]
    policy: Policy

    def ttft_ms(self, from_s: float = 0.0) -> float:
        """Mean over the requests that arrived from this time on."""
        return float(np.mean([r.ttft_ms for r in self.ended if r.ttft_ms is not None and r.arrived_ms >= from_s * 1e3]))

    @property
    def hit_ratio(self) -> float:
        """Prompt tokens found in the cache, over all."""
        return sum(r.cached_tokens for r in self.ended) / sum(r.prompt_tokens for r in self.ended)

    @property
    def guard(self) -> Guard:
        assert isinstance(self.policy, Learned)
        return self.policy.learner.guard

    def handed_over(self, reason: Reason, after_s: float = 0.0) -> list[Transition]:
        """Hand-overs to the rule for this reason from this time on."""
        return [change for change in self.guard.transitions if change.at_s >= after_s and change.now is reason]

    def share(self, address: str, from_s: float, to_s: float = 1e9) -> float:
        """Of the requests of this time, those that the engine served."""
        there = [r.address == address for r in self.ended if from_s <= r.arrived_ms / 1e3 < to_s]
        return sum(there) / len(there)


def play(misfortune: Misfortune, policy: str, seed: int) -> Run:
    """The misfortune as this policy lives through it."""

    def made(rng: np.random.Generator) -> Policy:
        found = policy_maker(policy)(rng)
        if misfortune.learner is not None and isinstance(found, Learned):
            found.learner = misfortune.learner()
        return found

    types = EngineTypes(load_table())
    engines = parse_pool(misfortune.pool, types)
    if misfortune.kv_tokens is not None:
        engines = tuple(replace(row, kv_tokens=misfortune.kv_tokens) for row in engines)
    cluster = Cluster(engines, made, seed=seed, events=misfortune.events, joining=types.row)
    with nullcontext() if misfortune.lie is None else patch.object(Station, "sample", _lying(misfortune.lie)):
        ended = cluster.run(generate(f"gen:x?{misfortune.requests}", seed=seed)).ended
    return Run(sorted(ended), cluster.router.policy)


def _lying(lie: Change) -> Callable[[Station, float], EngineSample]:
    honest = Station.sample

    def sample(station: Station, now: float) -> EngineSample:
        said = honest(station, now)
        return lie(said) if station.address == LAST and now >= AT_S * 1e3 else said

    return sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *MISFORTUNES], metavar="NAME")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--policy", default=LEARNED, help="or a variant of it, such as learned?without=guard")
    given = parser.parse_args()
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    print(f"{'':<40}{'TTFT':>6}{'worst':>7}{'after':>7}{'hits':>7}{'rule':>7}  who decided")
    for name in given.names or MISFORTUNES:
        ours, theirs = ([play(MISFORTUNES[name], policy, seed) for seed in seeds] for policy in (given.policy, RULE))
        whole = [(a.ttft_ms(), b.ttft_ms()) for a, b in zip(ours, theirs, strict=True)]
        after = [(a.ttft_ms(AT_S), b.ttft_ms(AT_S)) for a, b in zip(ours, theirs, strict=True)]
        counts: Counter[Reason] = Counter()
        for run in ours:
            counts.update(run.guard.counts)
        hits, rule_hits = (sum(run.hit_ratio for run in runs) / len(runs) for runs in (ours, theirs))
        by = ", ".join(f"{reason.value} {n / counts.total():.0%}" for reason, n in counts.most_common() if n)
        print(
            f"{name:<40}{_ratio(whole):>6.2f}{max(a / b for a, b in whole):>7.2f}{_ratio(after):>7.2f}"
            f"{hits:>7.2f}{rule_hits:>7.2f}  {by}",
            flush=True,
        )


def _ratio(pairs: Sequence[tuple[float, float]]) -> float:
    return sum(a for a, _ in pairs) / sum(b for _, b in pairs)


if __name__ == "__main__":
    main()
