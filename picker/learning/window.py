"""What models are trained on: the latest rows, and a uniform sample of all that came before them.

Recent rows follow the traffic; the sample keeps what is rare in it. Uniform by bottom-k sampling: every row that leaves
the recent part draws a random key, and those of the smallest keys stay.
"""

import numpy as np
from numpy.typing import NDArray

from picker.learning.experience import EXPERIENCE, Experience


class Window:
    """At most `recent` + `reservoir` rows, the same ones for the same rows and seed."""

    def __init__(self, recent: int = 4000, reservoir: int = 4000, seed: int = 0) -> None:
        self._room, self._places = recent, reservoir
        self._recent = self._sampled = np.empty(0, EXPERIENCE)
        self._keys = np.empty(0)
        self._rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        return len(self._sampled) + len(self._recent)

    def add(self, rows: Experience) -> None:
        """Rows that just ended, in that order; what they push out of the recent part is sampled."""
        recent = np.concatenate((self._recent, rows))
        out = max(0, len(recent) - self._room)
        self._sample(recent[:out])
        self._recent = recent[out:]

    def rows(self) -> Experience:
        """Everything kept, in order of the rows' ends."""
        return np.concatenate((self._sampled, self._recent))

    def forget(self, endpoint: int, before_s: float) -> None:
        """Drop an endpoint's rows picked before this time: it works otherwise since. Later rows take their places."""
        kept = ~of(self._sampled, endpoint, before_s)
        self._sampled, self._keys = self._sampled[kept], self._keys[kept]
        self._recent = self._recent[~of(self._recent, endpoint, before_s)]

    def _sample(self, rows: Experience) -> None:
        if not len(rows):
            return
        sampled = np.concatenate((self._sampled, rows))
        keys = np.concatenate((self._keys, self._rng.random(len(rows))))
        if len(keys) > self._places:
            kept = np.sort(np.argsort(keys)[: self._places])
            sampled, keys = sampled[kept], keys[kept]
        self._sampled, self._keys = sampled, keys


def of(rows: Experience, endpoint: int, before_s: float) -> NDArray[np.bool_]:
    """Which rows are an endpoint's, picked before this time; shape (rows,)."""
    found: NDArray[np.bool_] = (rows["endpoint"] == endpoint) & (rows["at_s"] < before_s)
    return found
