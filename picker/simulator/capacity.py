"""How much a pool can take of a workload: what `--load` is a fraction of.

Capacity is the highest arrival rate at which the P99 TTFT under `least-request` stays bounded, and bounded means: at
most FACTOR times the P99 that the same prompts would have alone on idle engines of the pool, without any prefix hit, or
FLOOR_MS where that is more. The rate is changed by scaling time, and found by bisection in its logarithm to within
PRECISION.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from picker.simulator.sequence import Limits
from picker.simulator.steptime import StepTime
from picker.simulator.workload import Job, Workload

FACTOR = 3.0
FLOOR_MS = 1000.0
PRECISION = 0.02
WIDEST = 2.0**14

Measure = Callable[[float], float]
"""P99 TTFT in ms of the workload at a time scale."""


class NoCapacity(ValueError):
    """However slow or fast the arrivals, the bound is always or never met."""


def idle_ttft_ms(row: StepTime, prompt_tokens: int, limits: Limits, cached: int = 0) -> float:
    """TTFT of a prompt alone on an idle engine, chunk by chunk, of which so many tokens are cached."""
    total, done = 0.0, min(cached, prompt_tokens - 1)
    while done < prompt_tokens:
        new = min(limits.max_num_batched_tokens, prompt_tokens - done)
        total += row.ms(new, new * (done + new / 2), 0, 0, done)
        done += new
    return total


def bound_ms(rows: Sequence[StepTime], workload: Workload, limits: Limits, kv_tokens: int) -> float:
    """The P99 TTFT that counts as bounded; every request weighs alike on every engine. Prompts of more than
    `kv_tokens` are refused by engines and left out."""
    alone = [
        idle_ttft_ms(row, job.prompt_tokens, limits)
        for row in dict.fromkeys(rows)
        for _ in range(rows.count(row))
        for job in _all_jobs(workload)
        if job.prompt_tokens <= kv_tokens
    ]
    return max(FLOOR_MS, FACTOR * float(np.percentile(alone, 99))) if alone else FLOOR_MS


def _all_jobs(workload: Workload) -> list[Job]:
    jobs = []
    for _, first in workload.arrivals:
        job: Job | None = first
        while job is not None:
            jobs.append(job)
            job = job.then
    return jobs


def find_capacity(measure: Measure, bound: float, start: float = 1.0) -> float:
    """The largest time scale whose P99 TTFT is within `bound` ms. Raises NoCapacity.

    >>> round(find_capacity(lambda scale: 100 / max(1e-9, 5 - scale), bound=1000.0), 1)
    4.9
    """
    good, bad = start, start
    if measure(start) <= bound:
        while measure(bad := bad * 2) <= bound:
            good = bad
            if bad >= WIDEST:
                raise NoCapacity("however dense the arrivals, the pool is not saturated: give a longer workload")
    else:
        while measure(good := good / 2) > bound:
            bad = good
            if good <= 1 / WIDEST:
                raise NoCapacity("however sparse the arrivals, the TTFT is not bounded")
    while bad / good > 1 + PRECISION:
        middle = math.sqrt(good * bad)
        if measure(middle) <= bound:
            good = middle
        else:
            bad = middle
    return good
