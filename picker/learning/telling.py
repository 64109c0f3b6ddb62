"""Finished picks as replicas tell each other of them.

Endpoint numbers, classes of hardware and clocks are every process's own. So a row travels with its age, and whoever
hears it puts in what its endpoint is there. Bytes of another layout are not read at all, and of those that are, only
rows that can be.
"""

import numpy as np
import xxhash
from numpy.typing import NDArray

from picker.learning.experience import BY_MODEL, EXPERIENCE, Experience, sane
from picker.learning.features import LOADS, TPOT_TERMS, TREE_FEATURES, TTFT_TERMS

LAYOUT: int = xxhash.xxh3_64_intdigest(repr((EXPERIENCE.descr, TTFT_TERMS, TPOT_TERMS, TREE_FEATURES)))
"""Of the rows of this version, and of what their numbers mean."""
MOST_ROWS = 1024
"""In one batch."""
OLDEST_S = 3600.0
LARGEST = 1e9
"""No term and no feature is larger."""
MOST_TOKENS = 1 << 31

Numbers = NDArray[np.int64]


def told(rows: Experience, now: float) -> bytes:
    """Rows of ours, for others."""
    sent = rows.copy()
    sent["at_s"] = now - rows["at_s"]
    sent["endpoint"] = sent["hardware"] = 0
    return sent.tobytes()


def heard(data: bytes, endpoints: Numbers, hardware: Numbers, now: float) -> Experience:
    """Rows of others, as if they were ours; what cannot be is left out.

    `endpoints` and `hardware`, shape (rows,): the number and the class that each one's endpoint has here; a negative
    number for one that is not here. Raises ValueError for bytes that are not so many rows.
    """
    if len(data) != len(endpoints) * EXPERIENCE.itemsize or len(endpoints) > MOST_ROWS:
        raise ValueError(f"{len(data)} bytes are not {len(endpoints)} rows")
    rows = np.frombuffer(data, EXPERIENCE)
    age_s = rows["at_s"]
    numbers = np.concatenate((rows["ttft_terms"], rows["tpot_terms"], rows["features"]), axis=1)
    known = (endpoints >= 0) & (age_s >= 0) & (age_s <= OLDEST_S) & (np.abs(numbers) <= LARGEST).all(axis=1)
    known &= (rows["by"] <= BY_MODEL) & (rows["output_tokens"] >= 0) & (rows["output_tokens"] <= MOST_TOKENS)
    ours = rows[known]
    ours["at_s"] = now - ours["at_s"]
    ours["endpoint"], ours["hardware"] = endpoints[known], hardware[known]
    ours["features"][:, len(LOADS) :] = 0.0
    ours["features"][np.arange(len(ours)), len(LOADS) + hardware[known]] = 1.0
    believed: Experience = ours[sane(ours)]
    return believed
