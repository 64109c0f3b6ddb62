"""What a cluster's run leaves behind."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from picker.learning.guard import Transition
from picker.simulator.migration import Tally
from picker.simulator.station import Station
from picker.simulator.training import Progress, Training

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


class Look(NamedTuple):
    """A look at the whole cluster."""

    load: list[int]
    """Requests running and waiting on each engine."""
    learning: Progress | None


def look_at(stations: Sequence[Station], training: Training) -> Look:
    load = [len(station.engine.running) + len(station.engine.waiting) for station in stations]
    return Look(load, training.progress)


class Series:
    """The cluster over time, in at most SERIES_POINTS looks however long it takes."""

    def __init__(self) -> None:
        self.at_ms: list[float] = []
        self.looks: list[Look] = []
        self._stride = 1
        self._offered = 0

    def look(self, now: float, look: Callable[[], Look]) -> None:
        """Offered at even intervals; when there are too many looks, every second one goes. `look` is called where it is
        kept."""
        if self._offered % self._stride == 0:
            if len(self.at_ms) == SERIES_POINTS:
                del self.at_ms[1::2], self.looks[1::2]
                self._stride *= 2
            if self._offered % self._stride == 0:
                self.at_ms.append(now)
                self.looks.append(look())
        self._offered += 1


@dataclass(frozen=True, slots=True)
class Result:
    """All requests in the order they ended, the engines as they are at the end, and how long it took in ms."""

    ended: Sequence[Ended]
    series: Series
    span_ms: float
    stations: Sequence[Station]
    handovers: Sequence[Transition] = ()
    """Of the guard of a policy that learns."""
    moved: Tally | None = None
    """None where nothing can move."""
