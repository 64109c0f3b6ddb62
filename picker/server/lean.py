"""The lean transport: one `picker/wire` connection between a socket and its calls, on the event loop, without a task.

What a turn of the loop read is heard at once, and what is to be said of it is written at once. A stream whose answers
the peer does not take is given no more room; while the socket takes nothing, nothing is read.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, cast

import structlog

from picker.wire.connection import Connection
from picker.wire.echo import Echo
from picker.wire.events import Event, HalfClosed, MessageReceived, StreamOpened
from picker.wire.limits import WireLimits

log = structlog.get_logger(__name__)

RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL = 8, 12, 13
"""Of gRPC's statuses, those that are said in here."""
CROWDED = 1 << 20
"""Bytes of one stream's answer that may wait for the peer before we hear no more of it."""
LATE_S = 0.001
"""The loop's clock may wake us up so much too early."""


class Call(Protocol):
    """What hears one stream. It may raise whatever it likes; `close` comes once, with the name of a gRPC status."""

    def message(self, data: bytes) -> None: ...
    def half_closed(self) -> None: ...
    def close(self, code: str) -> None: ...


class TooLong(Exception):
    """A message is longer than may be sent."""


class Line:
    """One stream of a connection, as its call sees it. What is said after its end is lost without harm."""

    __slots__ = ("_shell", "_wire", "number")

    def __init__(self, shell: "Shell", wire: Connection, number: int) -> None:
        self._shell, self._wire, self.number = shell, wire, number

    def send(self, messages: Iterable[bytes]) -> None:
        """Queue messages. Raises TooLong."""
        for message in messages:
            self.say(message)

    def say(self, message: bytes) -> None:
        """Queue one. Raises TooLong."""
        if len(message) > self._shell.longest:
            raise TooLong
        self._wire.send_message(self.number, message)

    def echo(self) -> None:
        """Messages of the shape need not be heard, until another one comes or more is said."""
        self._wire.echo(self.number)

    def finish(self) -> None:
        """All is said: end with OK once it is out."""
        self._wire.finish(self.number)
        self._shell.over(self.number, "OK")

    def hold(self) -> None:
        """Hear no more of it than what is on its way."""
        self._shell.hold(self.number)

    def release(self) -> None:
        """Hear again."""
        self._wire.release(self.number)

    def later(self, say: Callable[[], None]) -> None:
        """Let the call say something outside of the turn in which it heard something."""
        self._shell.later(self.number, say)


Answer = Callable[[Line, str, Sequence[tuple[str, str]]], Call | None]
"""Who hears a stream, by its path and metadata; None where nobody does."""


class House(Protocol):
    """Where connections live. `longest`: bytes of a message that may be sent. `echo`: what need not be heard."""

    limits: WireLimits
    longest: int
    echo: Echo | None
    answer: Answer

    def came(self, shell: "Shell") -> None: ...
    def went(self, shell: "Shell") -> None: ...


class Shell(asyncio.Protocol):
    """A connection."""

    def __init__(self, house: House) -> None:
        self.longest = house.longest
        self._house, self._loop = house, asyncio.get_running_loop()
        self._wire = Connection(house.limits, self._loop.time(), house.echo)
        self._calls: dict[int, Call] = {}
        self._crowded: set[int] = set()
        self._writable, self._gone, self._flushing = True, False, False
        # Only time itself and new calls, with deadlines of their own, move the moment of the next alarm.
        self._unset, self._alarm_at = True, math.inf
        self._alarm = self._patience = self._loop.call_later(0.0, _nothing)

    # ------------------------------------------------------------------ what the loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._house.came(self)
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._hear(self._wire.receive(data, self._loop.time()))
        self._flush()

    def pause_writing(self) -> None:
        self._writable = False
        self._transport.pause_reading()
        self._lose_patience()

    def resume_writing(self) -> None:
        self._writable = True
        if not self._transport.is_closing():
            self._patience.cancel()
            self._transport.resume_reading()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        self._hear(self._wire.disconnected())
        self._alarm.cancel()
        self._patience.cancel()
        self._house.went(self)

    # ------------------------------------------------------------------ what the house wants

    def drain(self) -> None:
        """No new streams; the connection ends with the last of those that run."""
        self._wire.go_away()
        self._flush()

    def shut(self) -> None:
        """The end of every stream, and of the connection."""
        self._hear(self._wire.shut())
        self._flush()

    def abort(self) -> None:
        """The end, without a word."""
        self._transport.abort()

    # ------------------------------------------------------------------ what calls say

    def later(self, number: int, say: Callable[[], None]) -> None:
        """Run what speaks for this stream; its failure is the stream's own."""
        if number not in self._calls:
            return
        try:
            say()
        except Exception as error:
            log.error("stream failed", exc_info=error)
            self._fail(number, error)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def over(self, number: int, code: str) -> None:
        """A stream ended: nothing is heard or said of it any more."""
        if (call := self._calls.pop(number, None)) is not None:
            self._crowded.discard(number)
            call.close(code)

    def hold(self, number: int) -> None:
        """Hear no more of a stream than what is on its way, until `release`."""
        self._crowded.discard(number)
        self._wire.hold(number)

    # ------------------------------------------------------------------ in between

    def _hear(self, events: list[Event]) -> None:
        calls = self._calls
        for event in events:
            try:
                if type(event) is not MessageReceived:
                    self._take(event)
                elif (call := calls.get(event.stream)) is not None:
                    call.message(event.data)
            except Exception as error:
                # One failing stream never touches another.
                log.error("stream failed", exc_info=error)
                self._fail(event.stream, error)
        if self._wire.waiting:
            self._hold_crowded({event.stream for event in events})

    def _take(self, event: Event) -> None:
        number = event.stream
        call = self._calls.get(number)
        if isinstance(event, StreamOpened):
            self._unset = True
            call = self._house.answer(Line(self, self._wire, number), event.path, event.metadata)
            if call is None:
                self._wire.finish(number, UNIMPLEMENTED, "no such method")
            else:
                self._calls[number] = call
        elif call is not None:
            if isinstance(event, HalfClosed):
                call.half_closed()
            else:
                self.over(number, "CANCELLED")

    def _fail(self, number: int, error: Exception) -> None:
        self._wire.finish(number, RESOURCE_EXHAUSTED if isinstance(error, TooLong) else INTERNAL, "the stream failed")
        try:
            self.over(number, "INTERNAL")
        except Exception as again:
            log.error("stream failed at its end", exc_info=again)

    def _flush(self) -> None:
        self._flushing = False
        if self._gone:
            return
        wire = self._wire
        if self._crowded:
            self._let_go()
        if self._writable and (data := wire.data_to_send()):
            self._transport.write(data)
        if wire.closing:
            if not self._transport.is_closing() and self._writable:
                self._transport.close()
                self._lose_patience()
            return
        if self._unset:
            self._unset = False
            self._set_alarm(wire.deadline)

    def _set_alarm(self, deadline: float) -> None:
        if deadline < self._alarm_at:
            self._alarm.cancel()
            at = max(deadline, self._loop.time()) + LATE_S
            self._alarm_at, self._alarm = deadline, self._loop.call_at(at, self._tick)

    def _tick(self) -> None:
        self._unset, self._alarm_at = True, math.inf
        self._hear(self._wire.tick(self._loop.time()))
        self._flush()

    def _hold_crowded(self, heard: set[int]) -> None:
        for number in heard:
            if number in self._calls and self._wire.queued_bytes(number) > CROWDED:
                self._crowded.add(number)
                self._wire.hold(number)

    def _let_go(self) -> None:
        for number in [*self._crowded]:
            if self._wire.queued_bytes(number) <= CROWDED // 2:
                self._crowded.discard(number)
                self._wire.release(number)

    def _lose_patience(self) -> None:
        """Unless the peer reads on before long, the connection is gone."""
        self._patience.cancel()
        self._patience = self._loop.call_later(self._house.limits.stall_s, self._transport.abort)


def _nothing() -> None:
    """What a timer does that is not set."""
