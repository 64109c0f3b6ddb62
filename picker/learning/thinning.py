"""Which picks become rows of experience: all of them up to a rate, above it a fair draw.

A row costs as much as a good part of the pick, and what is learned has an end of what it can use. The trainer keeps
8,000 rows, the latest 4,000 and a sample of older ones: at 100 a second that is its last 40 s, of which a round each
5 s finds a tenth new; at 1,000 a second it would know the last 4 s by heart. The guard's canary forgets past 10,000
rows in ten minutes, 17 a second, and its errors are over 100 rows: a second. Corrections and drift are per endpoint and
speak after some ten rows, so that large pools have one a second for each endpoint.

Picks are drawn whoever decided and wherever they went, so means over rows are means over picks.
"""

import math
import random

ROWS_PER_S = 100.0
ROWS_PER_ENDPOINT_S = 1.0
"""The rate is the larger of the two."""
RATE_S = 5.0
"""Time constant of the rate of picks: bursts of some hundred requests are no rate yet."""


class Thinning:
    """On the caller's clock, in seconds; draws from a generator of its own."""

    def __init__(self, seed: int = 0) -> None:
        self.skipped = 0
        """Picks that became no row."""
        self._random = random.Random(seed).random
        self._rate, self._at = 0.0, -math.inf

    def chance(self, endpoints: int, now: float) -> float:
        """A pick among so many was made: how likely it is to be kept. Call once per pick."""
        self._rate = self._rate * math.exp(min(self._at - now, 0.0) / RATE_S) + 1.0 / RATE_S
        self._at = max(self._at, now)
        return min(1.0, max(ROWS_PER_S, ROWS_PER_ENDPOINT_S * endpoints) / self._rate)

    def keeps(self, chance: float) -> bool:
        """Draw."""
        if chance >= 1.0 or self._random() < chance:
            return True
        self.skipped += 1
        return False
