"""Milliseconds of CPU to plan: `nice python -m bench.planner [--repeats 5]`.

Requests of lognormal lengths up to the context's; engines of one kind, of two, and of eight: these two,
and like them but slower by up to a third with up to 1.7 times the KV. One thread.
"""

import argparse
import time
from dataclasses import replace

import numpy as np

from bench.figures import load_average
from picker.simulator.steptime import load_row
from picker.stages.lengths import Lengths, Traffic
from picker.stages.plan import propose
from picker.stages.step_model import StepModel, of_row

CASES = ((16, 131_072), (64, 131_072), (256, 1_048_576))


def mixed(longest: int, per_s: float, rng: np.random.Generator) -> Traffic:
    """Chats, and as many tokens again in long documents up to the longest context."""
    lengths = Lengths(longest)
    lengths.fade(0.0)
    lengths.fade(120.0)
    weight_s = 120.0 * (1 - np.exp(-1.0))
    for _ in range(2000):
        prompt = rng.lognormal(6.5, 1.0) if rng.random() < 0.9 else rng.lognormal(np.log(longest / 16), 1.0)
        prompt = min(prompt, longest * 0.9)
        lengths.add(prompt, prompt, rng.lognormal(5.5, 0.8))
    return lengths.traffic().times(per_s * weight_s / 2000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--alpha", type=float, default=0.2)
    given = parser.parse_args()
    rows = [load_row("h100_sxm/llama-3-8b tp1"), load_row("l40s/llama-3-8b tp1")]
    two = [StepModel(**{**_fields(of_row(row)), "alpha": given.alpha, "kv_tokens": 4e6}) for row in rows]
    eight = [
        replace(two[i % 2], kv_tokens=4e6 * (1 + 0.1 * i), prefill_ms=two[i % 2].prefill_ms * (1 + 0.05 * i))
        for i in range(8)
    ]
    print(f"load average {load_average()}")
    print(f"{'engines':>8}{'context':>10}{'kinds':>6}{'stages':>7}{'gain':>7}{'min':>9}{'max':>9}   ms of CPU")
    for engines, longest in CASES:
        for models in (two[:1], two, eight):
            kinds = len(models)
            traffic = mixed(longest, 1.0 * engines, np.random.default_rng(0))
            pool = [i * kinds // engines for i in range(engines)]
            taken = []
            for _ in range(given.repeats):
                start = time.thread_time_ns()
                found = propose(traffic, models, pool)
                taken.append((time.thread_time_ns() - start) / 1e6)
            said = f"{found.layout.stages:>7}{found.gain:>7.1%}{min(taken):>9.1f}{max(taken):>9.1f}"
            print(f"{engines:>8}{longest:>10,}{kinds:>6}{said}   load {found.load:.2f}")


def _fields(model: StepModel) -> dict[str, float]:
    return {name: getattr(model, name) for name in StepModel.__slots__}


if __name__ == "__main__":
    main()
