"""Do queues grow everywhere? Then each pick lengthens one, and predicted latency is a poor guide: sparing work is all.

The signal is the wait at the endpoints that are least queued: the lower quartile of predicted waits (the least of them
in pools of up to four), so that one idle newcomer does not hide a full pool, and a few full endpoints do not make one.
It trips when, over the whole look-back, that wait has risen in most looks, was a quarter longer in the later half than
in the earlier, and has come to several times a usual request's own prefill; or when it was four times that all along,
however slowly it got there. It ends when the wait has stayed below half of the limit for as long. Nothing here is a
number of milliseconds: waits are measured in prefills of the traffic at hand.
"""

import math
from collections import deque
from itertools import pairwise

import numpy as np

from picker.engines.rows import Column

LOOKS = 10
"""Looks kept within the look-back; closer ones are left out."""
_QUARTILE = 0.25
_MOST = 2 / 3
_RISE = 1.25
_FULL = 4.0
_LONGEST = 1e6


class Saturation:
    """`tripped` while queues grow everywhere."""

    def __init__(self, *, look_back_s: float, prefills: float) -> None:
        self.tripped = False
        self.prefills = 0.0
        """The wait at the least queued endpoints at the last look, in prefills of a usual request."""
        self._look_back_s, self._limit = look_back_s, prefills
        self._looks: deque[tuple[float, float]] = deque(maxlen=LOOKS + 1)

    def look(self, now: float, queued_ms: Column, prefill_ms: float) -> None:
        """Predicted wait of each endpoint, shape (N,), and a recent request's own prefill time on an idle one, in ms.

        Meant to be called about once a second; looks at an empty pool or without a known prefill time are left out.
        """
        known = queued_ms[np.isfinite(queued_ms)]
        if not len(known) or not 0 < prefill_ms < math.inf:
            return
        if self._looks and now - self._looks[-1][0] < self._look_back_s / LOOKS * 0.95:
            return
        if self._looks and now - self._looks[-1][0] > self._look_back_s:
            self._looks.clear()
        low = float(np.quantile(known, _QUARTILE, method="lower"))
        self.prefills = min(max(low / prefill_ms, 0.0), _LONGEST)
        self._looks.append((now, self.prefills))
        if now - self._looks[0][0] >= self._look_back_s * 0.75 and len(self._looks) > LOOKS / 2:
            self.tripped = self._high() if self.tripped else self._growing()

    def _high(self) -> bool:
        return any(wait >= self._limit / 2 for _, wait in self._looks)

    def _growing(self) -> bool:
        waits = [wait for _, wait in self._looks]
        half = len(waits) // 2
        earlier, later = sum(waits[:half]), sum(waits[-half:])
        rises = sum(before < after for before, after in pairwise(waits))
        growing = waits[-1] >= self._limit and later >= _RISE * earlier and rises >= _MOST * (len(waits) - 1)
        return growing or min(waits) >= _FULL * self._limit
