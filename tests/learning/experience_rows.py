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
