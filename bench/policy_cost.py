"""Microseconds of one `score` and one `picked`, per policy and pool size.

    python bench/policy_cost.py [--repeats 300]

Prints the least and the median of the repeats; each is one call on rows that change from call to call.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from picker.engines.rows import Rows
from picker.policies.example import example_request, example_rows
from picker.policies.registry import REGISTRY
from picker.requests.request import Request

SIZES = (4, 64, 256, 1024)
PROMPT_TOKENS = 8000.0


def pools(request: Request, n: int, rng: np.random.Generator) -> list[Rows]:
    """Eight snapshots of a busy pool in which a few endpoints hold most of the prompt."""
    return [
        example_rows(
            request,
            batch=rng.integers(0, 6, n).tolist(),
            queued_tokens=rng.integers(0, 20_000, n).tolist(),
            hit_tokens=np.where(rng.random(n) < 0.2, 16 * rng.integers(300, 500, n), 0).tolist(),
            waiting=rng.integers(0, 10, n).tolist(),
            kv_usage=rng.random(n).tolist(),
        )
        for _ in range(8)
    ]


def microseconds(call: Callable[[int], object], repeats: int) -> tuple[float, float]:
    """Least and median of `repeats` calls."""
    times = []
    for i in range(repeats):
        start = time.perf_counter_ns()
        call(i)
        times.append((time.perf_counter_ns() - start) / 1000)
    return min(times), statistics.median(times)


def measure(name: str, n: int, repeats: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """(score, picked) of a policy whose windows are full: the hot-prefix alarm is up before the clock starts."""
    rng = np.random.default_rng(0)
    request = example_request(PROMPT_TOKENS)
    policy, rows = REGISTRY[name]({}, rng), pools(request, n, rng)

    def score(i: int) -> object:
        return policy.score(request, rows[i % 8], i / 1000)

    def picked(i: int) -> None:
        policy.picked(request, rows[i % 8], i % n, i / 1000)

    microseconds(picked, 5 * n + 20)
    return microseconds(score, repeats), microseconds(picked, repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=300)
    repeats = parser.parse_args().repeats
    print(f"{'policy':<24}{'N':>6}{'score min':>11}{'median':>9}{'picked min':>12}{'median':>9}   us")
    for name in REGISTRY:
        for n in SIZES:
            score, picked = measure(name, n, repeats)
            print(f"{name:<24}{n:>6}{score[0]:>11.1f}{score[1]:>9.1f}{picked[0]:>12.1f}{picked[1]:>9.1f}")


if __name__ == "__main__":
    main()
