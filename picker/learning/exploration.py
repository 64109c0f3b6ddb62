"""Endpoints that are not picked are not learned: a head start for newcomers, and now and then a probe of the forgotten.

Both are small. Exploring everywhere at 2 % cost more than it brought, and a pool whose features leave identities out
finds newcomers by itself; what is left is an endpoint that was once judged slow and never asked again.
"""

import math

import numpy as np

from picker.engines.kernels import bare
from picker.engines.rows import Column
from picker.learning.features import Matrix

NEW_ROWS = 10
HEAD_START = -0.2
"""Log of what an endpoint's predicted latency is multiplied by until it has NEW_ROWS rows."""

STARVED_TURNS = 10.0
STARVED_S = 30.0
PROBE_SHARE = 0.008


def bonus(rows_seen: Column) -> Column:
    """Log latency to add for endpoints with so many finished picks each, shape (N,)."""
    return np.where(rows_seen < NEW_ROWS, HEAD_START, 0.0)


def starved(left_out_s: float, endpoints: int, since_last_probe_s: float, picks_per_s: float) -> bool:
    """Whether the next request should go to the endpoint that has been left out longest, for so long; mostly not.

    `left_out_s` is inf for one that was never picked; `since_last_probe_s` is 0 while a probe is under way and inf
    before the first. Starved is an endpoint that had no pick while the pool made 10 per endpoint, and for 30 s. Probes
    stay below 1 % of picks.
    """
    if not 0 < picks_per_s < math.inf or not since_last_probe_s * picks_per_s > 1 / PROBE_SHARE:
        return False
    return left_out_s > STARVED_TURNS * endpoints / picks_per_s and left_out_s >= STARVED_S


@bare
def preferred(
    cost: Column, rule_cost: Column, best: int, near: float, model_share: float, explored: float, told: Matrix
) -> tuple[float, int]:
    """Writes into `told`, (2, N), of N >= 1 endpoints: costs in which the rule's choice is the least if the model finds
    it near the `best`; and the chance of each to come first. Returns what is near, and the rule's choice.

    Near are costs of at most `near` times the least. The rule decides with 1 - `model_share`, and draws among its
    cheapest; else the cheapest comes first, or, with `explored`, one drawn among those that are near. Where the least
    cost is no number the rule decides.
    """
    ruled, cheapest, close, least = 0, 0, 0, cost[best]
    costs, chance = told
    within = least * near if least * near > least else least
    for row in range(len(cost)):
        ruled = row if rule_cost[row] < rule_cost[ruled] else ruled
        costs[row] = cost[row]
    if cost[ruled] <= within:
        best = ruled
        costs[ruled] = least - 1.0
    for row in range(len(cost)):
        cheapest += rule_cost[row] == rule_cost[ruled]
        close += costs[row] <= within
    share = model_share if -np.inf < least < np.inf else 0.0
    by_rule, by_chance = (1.0 - share) / max(cheapest, 1), share * explored / max(close, 1)
    for row in range(len(cost)):
        by_either = by_rule if rule_cost[row] == rule_cost[ruled] else 0.0
        chance[row] = by_either + (by_chance if costs[row] <= within else 0.0)
    chance[best] += share * (1.0 - explored)
    return within, ruled
