"""What a cluster's run leaves behind."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from picker.simulator.station import Station

SERIES_POINTS = 200


class Ended(NamedTuple):
    """One request after its end. Times in ms, lengths in tokens."""

    job: int
    arrived_ms: float
    ttft_ms: float | None
    """None where no token came."""
    e2e_ms: float
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int
    preemptions: int
    status: int
    """200 complete; 400 and 503 refused; 0 broken off by a crash."""
    address: str
    """Which engine served; empty where none was reached."""

    @property
    def complete(self) -> bool:
        return self.status == 200

    @property
    def tpot_ms(self) -> float | None:
        """Mean time per output token after the first; None below two tokens."""
        if self.ttft_ms is None or self.output_tokens < 2:
            return None
        return (self.e2e_ms - self.ttft_ms) / (self.output_tokens - 1)


class LoadSeries:
    """Requests on each engine over time, in at most SERIES_POINTS points however long it takes."""

    def __init__(self) -> None:
        self.at_ms: list[float] = []
        self.load: list[list[int]] = []
        self._stride = 1
        self._looks = 0

    def look(self, now: float, load: Callable[[], list[int]]) -> None:
        """One look at all engines, made at even intervals; when there are too many, every second one goes. `load` is
        called where the look is kept."""
        if self._looks % self._stride == 0:
            if len(self.at_ms) == SERIES_POINTS:
                del self.at_ms[1::2], self.load[1::2]
                self._stride *= 2
            if self._looks % self._stride == 0:
                self.at_ms.append(now)
                self.load.append(load())
        self._looks += 1


@dataclass(frozen=True, slots=True)
class Result:
    """All requests in the order they ended, the engines as they are at the end, and how long it took in ms."""

    ended: Sequence[Ended]
    series: LoadSeries
    span_ms: float
    stations: Sequence[Station]
