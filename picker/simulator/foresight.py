"""What will really come of a pick: the engine's true state, forked and played forward without later arrivals.

A router sees an engine late and only from outside; what is here sees all of it, output lengths included. It does not
see what happens to the pool later, nor who arrives next.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from picker.simulator.sequence import EngineRequest, Refused
from picker.simulator.signals import Signals
from picker.simulator.station import IDLE, Station


class OnTheWay(NamedTuple):
    """A request that was picked for and has not reached its engine; it goes to the first address that is up."""

    at_ms: float
    addresses: tuple[str, ...]
    request: EngineRequest


@dataclass(frozen=True, slots=True)
class Moment:
    """All that is true when a request is picked for. Valid until the cluster moves on."""

    now_ms: float
    asked: EngineRequest
    rows: tuple[Station, ...]
    """The endpoints among which the router picks, in the order of its rows."""
    stations: Mapping[str, Station]
    """By address, also those that the router does not know (any more, or yet)."""
    coming: tuple[OnTheWay, ...]
    """In order of arrival at the engines, all of them before `asked`."""
    signals: Signals

    @property
    def due_ms(self) -> float:
        """When the request reaches its engine."""
        return self.now_ms + self.signals.decision_ms

    def reached(self, addresses: Iterable[str]) -> Station | None:
        """Where a request with this list of addresses ends up, as things stand."""
        return next((station for address in addresses if (station := self.stations[address]).alive), None)

    def forked(self, station: Station) -> Station:
        """A fork of this station when the request is due, with all that was on its way there."""
        fork = station.fork()
        for at, addresses, request in self.coming:
            if self.reached(addresses) is station:
                play(fork, at)
                try:
                    fork.submit(request, at)
                except Refused:
                    continue
        play(fork, self.due_ms)
        return fork


class Seer(Protocol):
    """Whoever is shown the truth before each pick."""

    def see(self, moment: Moment) -> None: ...


def play(station: Station, until_ms: float) -> dict[str, float]:
    """Play all that ends by `until_ms`; when each request ended that did, in ms by id."""
    ends: dict[str, float] = {}
    while station.ends_ms <= until_ms and station.ends_ms != IDLE:
        now = station.ends_ms
        ends.update((sequence.request.id, now) for sequence in station.end() if sequence.finished)
    return ends


def own_ttft_ms(moment: Moment, station: Station, within_ms: float = math.inf) -> float:
    """TTFT of the request on this engine, as its client sees it; inf where the engine would refuse it, and where it is
    more than `within_ms`."""
    fork = moment.forked(station)
    try:
        own = fork.submit(moment.asked, moment.due_ms)
    except Refused:
        return math.inf
    back_ms = moment.now_ms
    while not own.generated:
        back_ms = fork.ends_ms + moment.signals.response_ms
        if back_ms - moment.now_ms > within_ms:
            return math.inf
        fork.end()
    return back_ms - moment.now_ms


def added_ms(moment: Moment, station: Station) -> float:
    """Latency in ms that the request adds on this engine: its own end-to-end time plus the delay of every other end;
    inf where the engine would refuse it."""
    with_it, without_it = moment.forked(station), moment.forked(station)
    try:
        with_it.submit(moment.asked, moment.due_ms)
    except Refused:
        return math.inf
    later, before = play(with_it, IDLE), play(without_it, IDLE)
    own = later.pop(moment.asked.id) + moment.signals.response_ms - moment.now_ms
    return own + sum(end - before[request] for request, end in later.items())
