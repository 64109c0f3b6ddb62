"""CPU time of one `score` of the learned policy, and such a policy for other benches: trained, and in charge.

The model is trained as in service, on made-up latencies of random pools that depend on every load; so its forests are
of full size, and look at what a pick is likely to differ in. Its range is everything, lest the rule decide.
"""

import time
from dataclasses import replace
from functools import cache

import numpy as np

from bench.figures import Figure, quantile
from picker.engines.rows import Rows
from picker.learning import forest, kernel
from picker.learning.experience import EXPERIENCE, Experience
from picker.learning.features import features
from picker.learning.model import Model
from picker.learning.training import Parts, train
from picker.policies.example import example_request, example_rows
from picker.policies.learned import Learned, Params
from picker.policies.registry import REGISTRY
from picker.requests.request import Request

CAPACITY = 1024
RULE = "multiplicative"
LARGE = "learned_large"
USUAL_PARTS, LARGE_PARTS = Parts(), Parts(tree_count=100, leaves=31)


def pool(request: Request, n: int, rng: np.random.Generator) -> Rows:
    """A busy pool of one class: a fifth of the endpoints hold part of the prompt, a third have nothing in prefill."""

    def up_to(most: float, share: float = 1.0) -> list[float]:
        values: list[float] = np.where(rng.random(n) < share, np.floor(rng.random(n) * most), 0.0).tolist()
        return values

    return example_rows(
        request,
        hit_tokens=up_to(request.prompt_tokens, 0.2),
        queued_tokens=up_to(20_000, 0.7),
        queued_work=up_to(1e8, 0.7),
        queued_prompts=up_to(20_000, 0.7),
        prefilling=up_to(4, 0.7),
        head_s=rng.random(n).tolist(),
        batch=up_to(40),
        decode_tokens=up_to(60_000),
        running=up_to(40),
        waiting=up_to(10, 0.3),
        kv_usage=rng.random(n).tolist(),
        kv_tokens=[100_000.0] * n,
        hardware=[1] * n,
    )


def experience(picks: int, rng: np.random.Generator) -> Experience:
    """Rows of `picks` requests on 16 endpoints each."""
    parts = []
    for _ in range(picks):
        request = example_request(float(rng.lognormal(8, 1)))
        known = features(pool(request, 16, rng), request.prompt_tokens, rng.random(16) * 30)
        made = np.zeros(16, EXPERIENCE)
        made["hardware"], made["propensity"] = 1, 1 / 16
        made["ttft_terms"], made["tpot_terms"] = known.ttft_terms.T, known.tpot_terms.T
        made["features"] = known.trees.T
        unlike, noise = np.sin(known.trees.sum(axis=0)), rng.normal(0, 0.1, (2, 16))
        made["ttft_ms"] = (20 + 80 * known.ttft_terms[[1, 3]].sum(axis=0)) * np.exp(0.3 * unlike + noise[0])
        made["tpot_ms"] = (8 + 0.3 * known.tpot_terms[1]) * np.exp(0.2 * unlike + noise[1])
        parts.append(made)
    return np.concatenate(parts)


@cache
def model(parts: Parts = USUAL_PARTS) -> Model:
    """Of 6,400 rows, with forests of the usual size if not said otherwise."""
    trained = train(experience(400, np.random.default_rng(0)), 1, parts)
    assert trained is not None  # there are rows enough
    everything = np.full_like(trained.lowest, 1e30)
    return replace(trained, lowest=-everything, highest=everything)


def learned(rng: np.random.Generator, parts: Parts = USUAL_PARTS) -> Learned:
    """A policy whose model decides from the first pick on."""
    forest.warm()
    kernel.warm()
    policy = Learned(Params(), rng)
    policy.ensure(CAPACITY)
    policy.learner.adopt(model(parts), 0.0, proven=True)
    return policy


def score_us(name: str, n: int, runs: int, calls: int) -> Figure:
    """Microseconds of `score` on eight pools of n endpoints in turn: per run the median of single calls, beside them
    the p99 over all. `name`: "learned", LARGE with 100 trees of 31 leaves for TTFT, or another policy, for what the
    former adds to it."""
    rng = np.random.default_rng(0)
    sizes = {"learned": USUAL_PARTS, LARGE: LARGE_PARTS}
    policy = learned(rng, sizes[name]) if name in sizes else REGISTRY[name]({}, rng)
    request = example_request(3000.0)
    pools = [pool(request, n, rng) for _ in range(8)]
    taken: list[list[float]] = []
    for _ in range(runs):
        taken.append([])
        for i in range(calls):
            start = time.thread_time_ns()
            policy.score(request, pools[i % 8], 0.0)
            taken[-1].append((time.thread_time_ns() - start) / 1000)
    return Figure(
        tuple(quantile(run, 0.5) for run in taken), {"p99": quantile((us for run in taken for us in run), 0.99)}
    )
