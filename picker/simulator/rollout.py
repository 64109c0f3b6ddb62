"""The true next arrivals, played out once for each engine that a request could go to.

In every such future the later arrivals are picked for by LMetric's product (arXiv 2603.15202) on the engines' true
state, at the moment when they reach them. Futures of one pick share nothing but the pools below their forks.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from picker.simulator.foresight import Moment
from picker.simulator.sequence import EngineRequest, Refused
from picker.simulator.station import Station
from picker.simulator.workload import Arrival, chain


@dataclass(slots=True)
class _Lane:
    """One engine in one future."""

    fork: Station
    owed: dict[str, int]
    """Uncached prompt tokens of each request here whose first token has not come; `queued` is their sum."""
    queued: int
    awaited: dict[str, float] = field(default_factory=dict)
    """When the requests arrived whose TTFT counts and is still open."""
    ttft_ms: float = 0.0
    """Sum of those that are known."""

    def new_tokens(self, request: EngineRequest) -> int:
        size = self.fork.engine.limits.block_size
        return request.prompt_tokens - size * len(
            self.fork.engine.pool.match(request.hashes, (request.prompt_tokens - 1) // size)
        )

    def product(self, request: EngineRequest) -> float:
        """LMetric's cost; inf where the request can never fit."""
        engine = self.fork.engine
        if request.prompt_tokens + request.output_tokens > engine.max_model_len:
            return math.inf
        return (self.queued + self.new_tokens(request)) * (len(engine.running) + len(engine.waiting) + 1)

    def take(self, request: EngineRequest, arrived_ms: float, now_ms: float) -> bool:
        """Hand the request over; False when it is refused."""
        new = self.new_tokens(request)
        try:
            self.fork.submit(request, now_ms)
        except Refused:
            return False
        self.owed[request.id] = new
        self.queued += new
        self.awaited[request.id] = arrived_ms
        return True

    def play(self, until_ms: float) -> None:
        while self.fork.ends_ms <= until_ms:
            self.step()

    def step(self) -> None:
        now = self.fork.ends_ms
        for sequence in self.fork.end():
            if sequence.generated == 1:
                key = sequence.request.id
                self.queued -= self.owed.pop(key, 0)
                arrived_ms = self.awaited.pop(key, None)
                if arrived_ms is not None:
                    self.ttft_ms += now - arrived_ms


class Rollout:
    """Looks `horizon` arrivals ahead in an open loop."""

    def __init__(self, arrivals: Sequence[Arrival], horizon: int) -> None:
        self._arrivals = iter(arrivals)
        self._horizon = horizon
        self._ahead: deque[tuple[float, EngineRequest]] = deque()
        """The request that is picked for, and what follows."""

    def costs(self, moment: Moment) -> list[float]:
        """Mean TTFT in ms over the request and the next arrivals, by row; of futures that were left because another one
        is better, what was sure by then. Inf where the engine is down or would refuse the request."""
        self._look_ahead(moment)
        base = {station: _owed(moment.forked(station)) for station in moment.rows if station.alive}
        likely = sorted(base, key=lambda at: _Lane(at, {}, sum(base[at].values())).product(moment.asked))
        values: dict[Station, float] = {}
        for station in likely:
            values[station] = self._future(moment, station, base, min(values.values(), default=math.inf))
        return [values.get(station, math.inf) for station in moment.rows]

    def _look_ahead(self, moment: Moment) -> None:
        size = moment.rows[0].engine.limits.block_size
        while not self._ahead or self._ahead[0][1].id != moment.asked.id or len(self._ahead) <= self._horizon:
            if self._ahead and self._ahead[0][1].id != moment.asked.id:
                self._ahead.popleft()
                continue
            at, job = next(self._arrivals, (0.0, None))
            if job is None:
                return
            hashes = chain(job, size)
            self._ahead.append((at, EngineRequest(str(job.index), job.prompt_tokens, job.output_tokens, hashes)))

    def _future(self, moment: Moment, chosen: Station, base: dict[Station, dict[str, int]], best: float) -> float:
        lanes = [_Lane(moment.forked(station), dict(owed), sum(owed.values())) for station, owed in base.items()]
        own = lanes[list(base).index(chosen)]
        if not own.take(moment.asked, moment.now_ms, moment.due_ms):
            return math.inf
        taken = 1
        for arrived_ms, request in islice(self._ahead, 1, None):
            now = arrived_ms + moment.signals.decision_ms
            for lane in lanes:
                lane.play(now)
            if (sure := _sure_ms(lanes, now)) > best * (len(self._ahead)):
                return sure / len(self._ahead)
            least = min(lanes, key=lambda lane: lane.product(request))
            taken += least.take(request, arrived_ms, now)
        for lane in lanes:
            while lane.awaited:
                lane.step()
        return sum(lane.ttft_ms for lane in lanes) / taken + moment.signals.response_ms


def _sure_ms(lanes: Iterable[_Lane], now_ms: float) -> float:
    """What the sum of TTFT has come to by now, at least."""
    return sum(lane.ttft_ms + sum(now_ms - arrived for arrived in lane.awaited.values()) for lane in lanes)


def _owed(fork: Station) -> dict[str, int]:
    """Uncached prompt tokens of each request on the engine whose first token has not come."""
    size = fork.engine.limits.block_size
    owed = {s.request.id: s.known - s.computed for s in fork.engine.running if not s.generated}
    for key, waiting in fork.engine.waiting.items():
        if not waiting.generated:
            hits = fork.engine.pool.match(waiting.hashes, (waiting.known - 1) // size)
            owed[key] = waiting.known - size * len(hits)
    return owed
