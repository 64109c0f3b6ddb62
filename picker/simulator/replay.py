"""One engine over one arrival list, on a virtual clock."""

from collections.abc import Iterable
from dataclasses import dataclass

from picker.simulator.engine import Engine
from picker.simulator.sequence import EngineRequest, Refused


@dataclass(frozen=True, slots=True)
class Timing:
    """When one request went through, in ms of virtual time."""

    id: str
    arrived_ms: float
    first_token_ms: float
    ended_ms: float
    output_tokens: int
    cached_tokens: int
    preemptions: int

    @property
    def ttft_ms(self) -> float:
        return self.first_token_ms - self.arrived_ms

    @property
    def e2e_ms(self) -> float:
        return self.ended_ms - self.arrived_ms

    @property
    def tpot_ms(self) -> float:
        """Mean time per output token after the first; 0 for a single token."""
        return (self.ended_ms - self.first_token_ms) / max(1, self.output_tokens - 1)


def replay(engine: Engine, arrivals: Iterable[tuple[float, EngineRequest]]) -> list[Timing]:
    """Run `engine` until all requests are done; (ms, request) pairs in order of time. In order of completion.

    A request is seen by the first step that begins after it arrived. Requests that the engine refuses are left out.
    """
    pending = iter(arrivals)
    upcoming = next(pending, None)
    arrived: dict[str, float] = {}
    first: dict[str, float] = {}
    done: list[Timing] = []
    now = 0.0
    while True:
        while upcoming is not None and upcoming[0] <= now:
            at, request = upcoming
            upcoming = next(pending, None)
            try:
                engine.submit(request)
            except Refused:
                continue
            arrived[request.id] = at
        step = engine.schedule()
        if step is None:
            if upcoming is None:
                return done
            now = max(now, upcoming[0])
            continue
        now += step.duration_ms
        for sequence in engine.complete(step):
            key = sequence.request.id
            first.setdefault(key, now)
            if sequence.finished:
                done.append(
                    Timing(
                        key,
                        arrived.pop(key),
                        first.pop(key),
                        now,
                        sequence.generated,
                        sequence.cached_tokens or 0,
                        sequence.preemptions,
                    )
                )
