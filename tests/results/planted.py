"""Cells with numbers that nobody measured."""

from typing import Any

from results.grid import BASELINE, PLACES

PLACE = PLACES[0]
HARD = (100.0, 500.0, 2500.0, 220.0, 900.0)
"""Mean TTFT of the baseline by seed: seeds differ far more than policies do."""


def cell(policy: str, seed: int, ttft: float, **more: Any) -> dict[str, Any]:
    spread = {"mean": ttft, "p50": ttft, "p90": ttft, "p99": 3 * ttft}
    flat = {"mean": 20.0, "p50": 20.0, "p90": 20.0, "p99": 20.0}
    one = {"type": "a", "engines": 8, "busy_share": 0.5, "requests": 100, "prompt_tokens": 900.0, "ttft_ms": ttft}
    return {
        "policy": policy, "load": 0.8, "seed": seed, "time_scale": 2.0, "arrivals_per_s": 9.0, "requests": 100,
        "completed": 100, "span_s": 50.0, "goodput": 9.0, "goodput_share": 0.9, "prefix_hit_ratio": 0.3,
        "preemptions": 0, "ttft_ms": spread, "tpot_ms": flat, "e2e_ms": flat, "classes": [one], "short": None, **more,
    }  # fmt: skip


def cells(factors: dict[str, tuple[float, ...]], **more: Any) -> list[dict[str, Any]]:
    """The baseline, and policies so many times slower, seed by seed."""
    found = [cell(BASELINE, seed, hard) for seed, hard in enumerate(HARD)]
    for policy, by_seed in factors.items():
        found += [cell(policy, seed, HARD[seed] * factor, **more) for seed, factor in enumerate(by_seed)]
    return found
