"""Endpoints that are not picked are not learned: a head start for newcomers, and now and then a probe of the forgotten.

Both are small. Exploring everywhere at 2 % cost more than it brought, and a pool whose features leave identities out
finds newcomers by itself; what is left is an endpoint that was once judged slow and never asked again.
"""

import math

import numpy as np

from picker.engines.rows import Column
from picker.learning.compiled import vector

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


@vector
def propensities(cost: Column, rule_cost: Column, within: float, model_share: float, explored: float) -> Column:
    """Chance of each of N >= 1 endpoints to come first, (N,).

    The rule decides with 1 - `model_share`, and draws among its cheapest; else the model's cheapest comes first, or,
    with `explored`, one drawn among those whose cost is at most `within`.
    """
    least, best, cheapest, near = rule_cost[0], 0, 0, 0
    for row in range(len(cost)):
        least = min(least, rule_cost[row])
        best = row if cost[row] < cost[best] else best
    for row in range(len(cost)):
        cheapest += rule_cost[row] == least
        near += cost[row] <= within
    by_rule, by_chance = (1.0 - model_share) / max(cheapest, 1), model_share * explored / max(near, 1)
    chance = np.empty(len(cost))
    for row in range(len(cost)):
        chance[row] = (by_rule if rule_cost[row] == least else 0.0) + (by_chance if cost[row] <= within else 0.0)
    chance[best] += model_share * (1.0 - explored)
    return chance
