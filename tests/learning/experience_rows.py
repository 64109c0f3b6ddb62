"""Rows of experience, sane unless said otherwise."""

from typing import Any

import numpy as np

from picker.learning.experience import EXPERIENCE, Experience


def rows(count: int = 1, start: int = 0, **columns: Any) -> Experience:
    """`count` rows, picked a second apart from `start` on."""
    made = np.zeros(count, EXPERIENCE)
    made["at_s"] = np.arange(start, start + count)
    made["propensity"], made["ttft_ms"], made["tpot_ms"] = 1.0, 100.0, 10.0
    for name, values in columns.items():
        made[name] = values
    return made


def learnable(count: int, start: int = 0, endpoints: int = 3) -> Experience:
    """Rows of engines that take 20 ms a request and 100 ms per thousand new tokens, give or take a twentieth."""
    rng = np.random.default_rng(start)
    made = rows(count, start, endpoint=np.arange(count) % endpoints)
    new_k = rng.uniform(0.1, 4.0, count)
    made["ttft_terms"][:, :2] = np.stack((np.ones(count), new_k), axis=1)
    made["tpot_terms"][:, 0] = 1.0
    made["features"][:, 0] = np.log1p(1e3 * new_k)
    made["ttft_ms"] = (20.0 + 100.0 * new_k) * np.exp(rng.normal(0, 0.05, count))
    made["tpot_ms"] = 10.0 * np.exp(rng.normal(0, 0.05, count))
    return made
