"""Policies that know what no router can: how far a replay's policies are from it. Never offered to serve.

- `clairvoyant-ttft`: the least own TTFT, on forks of the engines as they truly are.
- `clairvoyant-total`: the least latency added to everybody on the engine, the request itself included.
- `rollout`, `rollout-K`: the least mean TTFT of the request and the true next K arrivals (40), played out.

None is an optimum. The clairvoyant ones look no further than their own request, and may crowd caches that a policy
which knows less would keep whole.
"""

import math
import re
from collections.abc import Callable, Sequence

import numpy as np

from picker.engines.rows import Rows
from picker.policies.policy import Scores
from picker.requests.request import Request
from picker.simulator.foresight import Moment, added_ms, own_ttft_ms
from picker.simulator.rollout import Rollout
from picker.simulator.station import Station
from picker.simulator.workload import Workload

NAMES = ("clairvoyant-ttft", "clairvoyant-total", "rollout")
ARRIVALS = 40
"""Arrivals that `rollout` looks ahead."""
_ROLLOUT = re.compile(r"rollout(?:-([1-9][0-9]{0,3}))?")

Costs = Callable[[Moment], Sequence[float]]
"""The value of each row, in ms; inf where the engine is down or would refuse the request."""


class Bound:
    """Ranks by what will really happen."""

    def __init__(self, name: str, costs: Costs) -> None:
        self.name = name
        self._costs = costs

    def see(self, moment: Moment) -> None:
        self._moment = moment

    def score(self, request: Request, rows: Rows, now: float) -> Scores:
        cost = np.array(self._costs(self._moment), np.float64)
        return Scores(cost if np.isfinite(cost).any() else np.zeros(len(cost)))

    def picked(self, request: Request, rows: Rows, row: int, now: float) -> None:
        pass


def is_bound(name: str) -> bool:
    """Whether `make_bound` knows the name."""
    return name in NAMES or _ROLLOUT.fullmatch(name) is not None


def make_bound(name: str, workload: Workload) -> Bound:
    """A fresh bound for one run of this workload. Raises ValueError for a name that is none, and for a rollout in a
    closed loop."""
    if name == "clairvoyant-ttft":
        return Bound(name, lambda moment: _each(moment, own_ttft_ms))
    if name == "clairvoyant-total":
        return Bound(name, lambda moment: _each(moment, added_ms))
    named = _ROLLOUT.fullmatch(name)
    if named is None:
        raise ValueError(f"no bound {name!r}; there are: {', '.join(NAMES)}, rollout-K")
    if workload.closed_loop:
        raise ValueError(f"{name} needs an open-loop trace: in a closed loop the next arrivals depend on the pick")
    return Bound(name, Rollout(workload.arrivals, int(named[1] or ARRIVALS)).costs)


def _each(moment: Moment, value: Callable[[Moment, Station], float]) -> list[float]:
    return [value(moment, station) if station.alive else math.inf for station in moment.rows]
