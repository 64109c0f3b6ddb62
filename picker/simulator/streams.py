"""Requests inside simulated engines: steps on the clock, and who is told of their tokens wherever they run.

A request may leave its engine while it runs and go on in another one; whoever listens to it hears of both.
"""

from collections.abc import Callable

from picker.simulator.clock import Clock
from picker.simulator.sequence import EngineRequest, Sequence
from picker.simulator.station import IDLE, Station

Listener = Callable[[Sequence | None], None]
"""Called when a token came or the request left the engine (then it is not `live`), at the end of a step; in runs of
decode steps only at the end. None says that the engine died."""


class Streams:
    """By station and the requests' ids, which must not be in two engines at once. `woken` is told of a station that
    gets something to do."""

    def __init__(self, clock: Clock, woken: Callable[[Station], None]) -> None:
        self._clock, self._woken = clock, woken
        self._inside: dict[Station, dict[str, Listener]] = {}

    def submit(self, station: Station, request: EngineRequest, listener: Listener, *, ahead: bool = False) -> None:
        """`ahead` of all that wait there. Raises Refused."""
        before = station.ends_ms
        station.submit(request, self._clock.now, ahead=ahead)
        self._inside.setdefault(station, {})[request.id] = listener
        self._woken(station)
        self.changed(station, before)

    def withdraw(self, station: Station, request_id: str) -> tuple[Sequence, Listener] | None:
        """The request is the caller's from now on; None when it is not there (any more)."""
        before = station.ends_ms
        sequence = station.withdraw(request_id, self._clock.now) if station.alive else None
        self.changed(station, before)
        if sequence is None:
            return None
        listener = self._inside[station].pop(request_id)
        listener(sequence)
        return sequence, listener

    def bring(self, station: Station, request: EngineRequest, tokens: int) -> bool:
        """KV of its leading tokens is cached here now; False where there is no room."""
        before = station.ends_ms
        brought = station.alive and station.bring(request, tokens, self._clock.now)
        self.changed(station, before)
        return brought

    def crash(self, station: Station) -> None:
        """The engine and all that is in it are gone."""
        station.crash()
        for listener in self._inside.pop(station, {}).values():
            listener(None)

    def changed(self, station: Station, before: float) -> None:
        """The end of its step is not `before` any more: wait for the new one."""
        if station.ends_ms not in (before, IDLE):
            self._clock.at(station.ends_ms, self._step, station)

    def _step(self, station: Station) -> None:
        if station.ends_ms != self._clock.now:
            return  # a run that was cut short meanwhile
        inside = self._inside[station]
        for sequence in station.end():
            listener = inside.pop(sequence.request.id) if sequence.finished else inside[sequence.request.id]
            listener(sequence)
        if station.ends_ms != IDLE:
            self._clock.at(station.ends_ms, self._step, station)
