"""Streams that pass through this proxy, and the orders that an agent gives about them."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterator

from picker.handoff.stream import Stream
from picker.stages.agent_state import Resident, expected_tokens

PAUSE_S = 1.0
_MARGIN = 4
"""Tokens that may be taken back at a change, as the beginning of a character."""


class Flight:
    """One stream. `at` is the engine that writes it; `sent_at` when the client last got something, on the loop's clock.

    `going` is the engine that it was told to leave for; whoever reads the present one is woken through `interrupt`.
    """

    def __init__(self, number: str, stream: Stream, at: str, authorization: str) -> None:
        self.number, self.stream, self.at, self.authorization = number, stream, at, authorization
        self.sent_at: float | None = None
        self.going: str | None = None
        self.interrupt: Callable[[], None] = lambda: None
        self._runs = asyncio.Event()
        self._runs.set()

    def pause(self) -> None:
        self._runs.clear()

    def resume(self) -> None:
        self._runs.set()

    def leave(self, to: str) -> bool:
        """Go on at that engine; False, and it runs on here, where it cannot any more."""
        self._runs.set()
        if self.stream.done or not self.ready:
            return False
        self.going = to
        self.interrupt()
        return True

    async def running(self) -> None:
        """Wait while it stands still, but not for ever: a peer that never answers has not taken it, for it is this
        proxy that asks the other engine."""
        if not self._runs.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._runs.wait(), PAUSE_S)
            self._runs.set()

    @property
    def ready(self) -> bool:
        """It can leave at once: what was said and what was generated end at the same place, or nobody would notice."""
        stream = self.stream
        told = stream.asked.wants_ids or stream.asked.top is not None
        enough = not stream.asked.stops or len(stream.tokens) > stream.asked.least + _MARGIN
        return stream.begun and stream.stays is None and enough and (stream.clean or not told)

    def resident(self) -> Resident:
        """As its agent sees it."""
        made = len(self.stream.tokens)
        length = len(self.stream.prompt) + made
        return Resident(self.number, length, length, expected_tokens(made, self.stream.asked.limit), self.ready)


class Flights:
    """All of them, by number."""

    def __init__(self, own: str) -> None:
        self._own, self._numbers = own, itertools.count()
        self._flights: dict[str, Flight] = {}
        self.on_end: Callable[[str], None] = lambda number: None
        self._none = asyncio.Event()
        self._none.set()

    def add(self, stream: Stream, authorization: str) -> Flight:
        flight = Flight(str(next(self._numbers)), stream, self._own, authorization)
        self._flights[flight.number] = flight
        self._none.clear()
        return flight

    def remove(self, flight: Flight) -> None:
        self._flights.pop(flight.number, None)
        self.on_end(flight.number)
        if not self._flights:
            self._none.set()

    async def until_none(self) -> None:
        """Wait until nothing passes through here."""
        await self._none.wait()

    def here(self) -> Iterator[Flight]:
        """Those that the engine beside this proxy writes."""
        return (flight for flight in self._flights.values() if flight.at == self._own)

    def find(self, number: str) -> Flight | None:
        flight = self._flights.get(number)
        return flight if flight is not None and flight.at == self._own else None
