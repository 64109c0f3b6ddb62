"""Microseconds of CPU to score N endpoints by one forest: `python -m bench.forest_time [--trees 100] [--calls 1000]`.

*pick*: endpoints as a pick sees them, the prompt alike for all, one class of hardware, some idle. *unlike*: every
column its own random number on every endpoint, the dearest case. One thread; eight batches in turn.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bench.figures import Figure, load_average, quantile
from picker.engines.rows import Rows
from picker.learning.features import features
from picker.learning.forest import Forest, fit_forest, predict, predict_tables, warm
from picker.policies.example import example_request, example_rows

SIZES = (16, 64, 256, 1024)
Batch = NDArray[np.float32]


def rows(n: int, prompt_tokens: float, rng: np.random.Generator) -> Rows:
    """A busy pool: a fifth of the endpoints hold part of the prompt, a third have nothing in prefill."""
    request = example_request(prompt_tokens)
    return example_rows(
        request,
        batch=rng.integers(0, 40, n).tolist(),
        queued_tokens=(rng.integers(0, 20_000, n) * (rng.random(n) < 0.7)).tolist(),
        hit_tokens=np.where(rng.random(n) < 0.2, prompt_tokens * rng.random(n), 0).tolist(),
        waiting=(rng.integers(0, 10, n) * (rng.random(n) < 0.3)).tolist(),
        kv_usage=rng.random(n).tolist(),
    )


def pick(n: int, rng: np.random.Generator) -> Batch:
    """What the trees are told of one request on n endpoints, (F, n)."""
    prompt_tokens = float(rng.lognormal(8, 1))
    return features(rows(n, prompt_tokens, rng), prompt_tokens, rng.random(n) * 5).trees.astype(np.float32)


def unlike(batch: Batch, rng: np.random.Generator) -> Batch:
    """As many rows, all of them random."""
    return rng.normal(size=batch.shape).astype(np.float32)


def grown(seen: Batch, trees: int, rng: np.random.Generator) -> Forest:
    """A forest for a target that depends on all columns that vary. `seen`: (F, rows)."""
    spread = seen - seen.mean(axis=1, keepdims=True)
    spread /= np.maximum(spread.std(axis=1, keepdims=True), 1e-6)
    weights = rng.normal(size=(len(seen), 2))
    return fit_forest(np.ascontiguousarray(seen.T), np.sin(2 * (spread.T @ weights)).sum(axis=1), trees=trees)


def call_us(score: Callable[[Batch], object], batches: list[Batch], calls: int) -> Figure:
    """CPU of single calls."""
    taken = []
    for i in range(calls):
        start = time.thread_time_ns()
        score(batches[i % len(batches)])
        taken.append((time.thread_time_ns() - start) / 1000)
    return Figure(tuple(taken), {"p99": quantile(taken, 0.99)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trees", type=int, default=100)
    parser.add_argument("--calls", type=int, default=1000)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    warm()
    seen = np.concatenate([pick(16, rng) for _ in range(1000)], axis=1)
    forests = {"pick": grown(seen, given.trees, rng), "unlike": grown(unlike(seen, rng), given.trees, rng)}
    print(f"load average {load_average()}")
    print(
        f"{'batch':<8}{'splits':>7}{'N':>6}{'kernel min':>12}{'median':>8}{'p99':>8}{'numpy min':>11}{'median':>8}   us"
    )
    for kind, forest in forests.items():
        for n in SIZES:
            batches = [pick(n, rng) for _ in range(8)]
            batches = batches if kind == "pick" else [unlike(batch, rng) for batch in batches]
            kernel = call_us(partial(predict, forest), batches, given.calls)
            tables = call_us(partial(predict_tables, forest), batches, given.calls // 10)
            figures = (min(kernel.runs), kernel.median, kernel.as_json()["p99"], min(tables.runs), tables.median)
            widths = (12, 8, 8, 11, 8)
            said = "".join(f"{figure:>{width}.1f}" for figure, width in zip(figures, widths, strict=True))
            print(f"{kind:<8}{forest.thresholds.size:>7}{n:>6}{said}")


if __name__ == "__main__":
    main()
