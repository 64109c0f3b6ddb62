"""The true next arrivals, played out once for each engine that a request could go to.

In every such future the later arrivals go where the least work is in ms, by the engines' true state at the moment when
they get there. A rule that is blind to the engines' speed would make futures as bad as itself. A future is left as soon
as it is sure to be worse than another one.
"""

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from picker.simulator.blocks import Hashes
from picker.simulator.capacity import idle_ttft_ms
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
    awaited: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Requests whose TTFT counts and is still open: when they arrived, and what it is at least."""
    ttft_ms: float = 0.0
    """Sum of those that are known."""

    def new_tokens(self, request: EngineRequest) -> int:
        return _uncached(self.fork, request.hashes, request.prompt_tokens)

    def work_ms(self, request: EngineRequest) -> float:
        """One step of all that is owed and what this request adds, beside the running sequences; inf where it can never
        fit."""
        engine = self.fork.engine
        if request.prompt_tokens + request.output_tokens > engine.max_model_len:
            return math.inf
        new = self.new_tokens(request)
        hit = request.prompt_tokens - new
        context = sum(sequence.computed for sequence in engine.running)
        return engine.step_time.ms(self.queued + new, new * (hit + new / 2), context, len(engine.running), hit)

    def take(self, request: EngineRequest, arrived_ms: float, now_ms: float, least_ms: float) -> bool:
        """Hand the request over; False when it is refused."""
        new = self.new_tokens(request)
        try:
            self.fork.submit(request, now_ms)
        except Refused:
            return False
        self.owed[request.id] = new
        self.queued += new
        self.awaited[request.id] = arrived_ms, least_ms
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
                if key in self.awaited:
                    self.ttft_ms += now - self.awaited.pop(key)[0]

    def sure_ms(self, now_ms: float) -> float:
        """What the sum of TTFT comes to at least."""
        return self.ttft_ms + sum(max(now_ms - arrived, least) for arrived, least in self.awaited.values())


class _Ahead(NamedTuple):
    """One arrival of the trace."""

    at_ms: float
    request: EngineRequest
    cached: int
    """Prompt tokens that some engine may hold, had nothing ever been evicted."""


class Rollout:
    """Looks `horizon` arrivals ahead in an open loop."""

    def __init__(self, arrivals: Sequence[Arrival], horizon: int) -> None:
        self._arrivals = iter(arrivals)
        self._horizon = horizon
        self._ahead: deque[_Ahead] = deque()
        """The request that is picked for, and what follows."""
        self._seen: set[int] = set()
        """Block ids of all that arrived."""

    def costs(self, moment: Moment) -> list[float]:
        """Mean TTFT in ms over the request and the next arrivals, by row; of futures that were left because another one
        is better, what was sure by then. Inf where the engine is down or would refuse the request."""
        self._look_ahead(moment)
        base = {station: _owed(moment.forked(station)) for station in moment.rows if station.alive}
        likely = sorted(base, key=lambda at: _Lane(at, {}, sum(base[at].values())).work_ms(moment.asked))
        least = [_least_ms(ahead, base) + moment.signals.decision_ms for ahead in self._ahead]
        values: dict[Station, float] = {}
        for station in likely:
            values[station] = self._future(moment, station, base, least, min(values.values(), default=math.inf))
        return [values.get(station, math.inf) for station in moment.rows]

    def _look_ahead(self, moment: Moment) -> None:
        while not self._ahead or self._ahead[0].request.id != moment.asked.id or len(self._ahead) <= self._horizon:
            if self._ahead and self._ahead[0].request.id != moment.asked.id:
                self._ahead.popleft()
                continue
            at, job = next(self._arrivals, (0.0, None))
            if job is None:
                return
            ids = [i for first, count in job.runs.tolist() for i in range(first, first + count)]
            known = next((place for place, i in enumerate(ids) if i not in self._seen), len(ids))
            self._seen.update(ids)
            hashes = chain(job, moment.rows[0].engine.limits.block_size)
            request = EngineRequest(str(job.index), job.prompt_tokens, job.output_tokens, hashes)
            self._ahead.append(_Ahead(at, request, known * job.id_tokens))

    def _future(
        self, moment: Moment, chosen: Station, base: Mapping[Station, dict[str, int]], least: list[float], best: float
    ) -> float:
        lanes = {station: _Lane(moment.forked(station), dict(o), sum(o.values())) for station, o in base.items()}
        if not lanes[chosen].take(moment.asked, moment.now_ms, moment.due_ms, least[0]):
            return math.inf
        taken, count = 1, len(least)
        to_come = sum(least[1:])
        for (arrived_ms, request, _), least_ms in zip(islice(self._ahead, 1, None), least[1:], strict=True):
            now = arrived_ms + moment.signals.decision_ms
            for lane in lanes.values():
                lane.play(now)
            sure = to_come + sum(lane.sure_ms(now) for lane in lanes.values())
            if sure > best * count:
                return sure / count
            to_come -= least_ms
            taken += min(lanes.values(), key=lambda lane: lane.work_ms(request)).take(
                request, arrived_ms, now, least_ms
            )
        for lane in lanes.values():
            while lane.awaited:
                lane.step()
        return sum(lane.ttft_ms for lane in lanes.values()) / taken + moment.signals.response_ms


def _least_ms(ahead: _Ahead, stations: Iterable[Station]) -> float:
    """TTFT on the fastest engine, were it idle and held all that it could."""
    engines = {station.engine.step_time: station.engine for station in stations}.values()
    prompt = ahead.request.prompt_tokens
    return min(idle_ttft_ms(engine.step_time, prompt, engine.limits, ahead.cached) for engine in engines)


def _uncached(station: Station, hashes: Sequence[int] | Hashes, tokens: int) -> int:
    """How many of the leading tokens the engine would compute."""
    size = station.engine.limits.block_size
    return tokens - size * len(station.engine.pool.match(hashes, (tokens - 1) // size))


def _owed(fork: Station) -> dict[str, int]:
    """Uncached prompt tokens of each request on the engine whose first token has not come."""
    owed = {s.request.id: s.known - s.computed for s in fork.engine.running if not s.generated}
    waiting = {
        s.request.id: _uncached(fork, s.hashes, s.known) for s in fork.engine.waiting.values() if not s.generated
    }
    return owed | waiting
