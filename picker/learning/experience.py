"""One finished pick as a row of numbers: what was known at the pick, and what came of it."""

import math
from collections.abc import Iterable
from struct import Struct

import numpy as np
from numpy.typing import NDArray

from picker.engines.table import MAX_HARDWARE
from picker.learning.features import TPOT_TERMS, TREE_FEATURES, TTFT_TERMS

EXPERIENCE = np.dtype(
    [
        ("at_s", "f8"),  # when it was picked, seconds of the picker's clock
        ("endpoint", "u4"),  # which endpoint, a number never used twice; for its correction only, never a feature
        ("hardware", "u1"),  # its class, 0 unknown
        ("by", "u1"),  # who decided: BY_RULE or BY_MODEL
        ("whole", "u1"),  # 1 where the answer came at once, its tokens told: then `ttft_ms` is its time
        ("propensity", "f4"),  # probability that this endpoint had of being picked
        ("ttft_ms", "f4"),
        ("tpot_ms", "f4"),  # nan where fewer than two tokens came or the answer was not streamed
        ("output_tokens", "f4"),
        ("head_ms", "f4"),  # how long the prefill first in line had been going on
        ("ttft_terms", "f4", (len(TTFT_TERMS),)),
        ("tpot_terms", "f4", (len(TPOT_TERMS),)),
        ("features", "f4", (len(TREE_FEATURES),)),
    ]
)
"""Fixed-width rows: sent and stored as bytes, never pickled."""

Experience = NDArray[np.void]
"""Shape (rows,), dtype EXPERIENCE, in order of their ends."""

_FIXED = Struct("=dIBBB5f")
"""The fields before the three that are arrays, packed as the row has them."""

BY_RULE, BY_MODEL = 0, 1

LONGEST_MS = 600_000.0
"""A first token later than this, or a token slower than a tenth of it, teaches nothing."""


def row_of(
    at_s: float, endpoint: int, hardware: int, by: int, propensity: float, head_ms: float, *numbers: NDArray[np.float32]
) -> Experience:
    """One pick, shape (1,), nothing of whose outcome is known; `numbers` are its terms of TTFT and TPOT and its
    features. A tenth of what naming the fields one by one takes.

    Raises struct.error for a number beyond its field, ValueError for another count of `numbers`.
    """
    fixed = _FIXED.pack(at_s, endpoint, hardware, by, 0, propensity, 0.0, math.nan, 0.0, head_ms)
    return np.frombuffer(bytearray(fixed + b"".join([part.tobytes() for part in numbers])), EXPERIENCE)


def joined(rows: Iterable[Experience]) -> Experience:
    """Some rows as one array, in this order. numpy would compare the dtypes of each two of them field by field, which
    takes hundreds of times as long as the rows."""
    return np.frombuffer(bytearray().join([each.tobytes() for each in rows]), EXPERIENCE)


def sane(rows: Experience) -> NDArray[np.bool_]:
    """Which rows can be learned from, shape (rows,): every known number finite, latencies positive and not absurd."""
    known = np.isfinite(rows["features"]).all(axis=1)
    for name in ("ttft_terms", "tpot_terms"):
        known &= (np.isfinite(rows[name]) & (rows[name] >= 0)).all(axis=1)
    ttft, tpot = rows["ttft_ms"], rows["tpot_ms"]
    known &= (ttft > 0) & (ttft < LONGEST_MS) & (rows["head_ms"] >= 0) & (rows["head_ms"] < LONGEST_MS)
    known &= np.isnan(tpot) | ((tpot > 0) & (tpot < LONGEST_MS / 10))
    known &= (rows["whole"] == 0) | ((rows["whole"] == 1) & (rows["output_tokens"] >= 1) & np.isnan(tpot))
    known &= (rows["propensity"] > 0) & (rows["propensity"] <= 1) & (rows["hardware"] < MAX_HARDWARE)
    keep: NDArray[np.bool_] = known & np.isfinite(rows["at_s"])
    return keep
