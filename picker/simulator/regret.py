"""How much sooner the first token would have come from the best engine, at a sample of the picks."""

import math
import random
from typing import Any

from picker.routing.decisions import Decision
from picker.simulator.foresight import Moment, own_ttft_ms
from picker.simulator.summary import spread


class Regret:
    """Watches a cluster's picks. One in `stride` is sampled, at a place drawn from the seed in each run of so many.

    The regret of a pick is the true own TTFT (`own_ttft_ms`) on the engine that it reaches, less the least one of all
    endpoints that the router could have taken. Picks that their engine refuses are left out.
    """

    def __init__(self, stride: int, seed: int) -> None:
        """Raises ValueError for a stride below 1."""
        if stride < 1:
            raise ValueError("a stride must be at least 1")
        self._stride = stride
        self._draw = random.Random(seed)
        self._until_end = self._until_sample = 0
        self._sampled = False
        self._found: list[tuple[int, float]] = []

    def see(self, moment: Moment) -> None:
        if not self._until_end:
            self._until_end = self._stride
            self._until_sample = self._draw.randrange(self._stride)
        self._sampled = not self._until_sample
        self._until_sample -= 1
        self._until_end -= 1
        self._moment = moment

    def picked(self, decision: Decision) -> None:
        moment = self._moment
        reached = moment.reached(decision.addresses) if self._sampled else None
        if reached is None:
            return
        chosen = least = own_ttft_ms(moment, reached)
        if math.isinf(chosen):
            return
        for station in moment.rows:
            if station.alive and station is not reached:
                least = min(least, own_ttft_ms(moment, station, least))
        self._found.append((int(moment.asked.id), chosen - least))

    def ended(self, decision: Decision) -> None:
        pass

    def summary(self, warm_up: int = 0) -> dict[str, Any]:
        """Over the sampled picks of requests numbered from `warm_up` on: mean and quantiles in ms, None without any."""
        counted = [regret for job, regret in self._found if job >= warm_up]
        return {**spread(counted), "picks": len(counted), "of": "ttft"}
