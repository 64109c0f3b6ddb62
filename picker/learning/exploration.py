"""Endpoints that are not picked are not learned: a head start for newcomers, and now and then a probe of the forgotten.

Both are small. Exploring everywhere at 2 % cost more than it brought, and a pool whose features leave identities out
finds newcomers by itself; what is left is an endpoint that was once judged slow and never asked again.
"""

import math

import numpy as np

from picker.engines.rows import Column

NEW_ROWS = 10
HEAD_START = -0.2
"""Log of what an endpoint's predicted latency is multiplied by until it has NEW_ROWS rows."""

STARVED_TURNS = 10.0
STARVED_S = 30.0
PROBE_SHARE = 0.008


def bonus(rows_seen: Column) -> Column:
    """Log latency to add for endpoints with so many finished picks each, shape (N,)."""
    return np.where(rows_seen < NEW_ROWS, HEAD_START, 0.0)


def probe(since_last_pick_s: Column, since_last_probe_s: float, picks_per_s: float) -> int | None:
    """Which of N endpoints the next request should go to because it has been left out for long; mostly None.

    `since_last_pick_s`, shape (N,), counts from when an endpoint joined if it was never picked; `since_last_probe_s` is
    0 while a probe is under way and inf before the first. Starved is an endpoint that had no pick while the pool made
    10 per endpoint, and for 30 s. Probes stay below 1 % of picks.
    """
    n = len(since_last_pick_s)
    if not n or not 0 < picks_per_s < math.inf or not since_last_probe_s * picks_per_s > 1 / PROBE_SHARE:
        return None
    longest = int(np.argmax(since_last_pick_s))
    since = float(since_last_pick_s[longest])
    return longest if since > STARVED_TURNS * n / picks_per_s and since >= STARVED_S else None
