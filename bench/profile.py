"""Where the microseconds of one request go, in process: `python -m bench.profile`.

Envoy's bytes go into one connection of the lean transport and our bytes come out, without a socket; then the same
messages go into a conversation alone, and what is missing is the transport's. Reader and router are taken apart by a
stopwatch around their methods. Of each round the lower quartile counts, and of the rounds the quickest: a step is seen
once a request (a chunk 32 times), with the caches as the other steps leave them.
"""

import argparse
import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, cast

import uvloop
from rich.console import Console
from rich.table import Table

from bench.figures import quantile
from bench.pick_time import warm
from bench.prompts import chat_requests
from bench.service_time import ENDPOINTS, answered, record, words
from bench.wire_cost import block, data, greeting
from picker.exchange import access_log
from picker.exchange.machine import ExchangeSettings
from picker.exchange.relay import relayed
from picker.requests.reader import Reader
from picker.routing.router import Router
from picker.server.conversation import Conversation
from picker.server.health import Health
from picker.server.lean import Shell
from picker.server.lean_calls import ECHOED, LOGS, PROCESS, answers
from picker.server.pools import Pools
from picker.server.service import Service
from picker.server.streams import AccessLogs, Streams
from picker.server.transport import Ears
from picker.telemetry.metrics import RequestMetrics
from picker.wire.echo import Echo
from picker.wire.frames import END_HEADERS, END_STREAM, Kind, frame
from picker.wire.limits import WireLimits

CHUNKS = 32
CHUNK = b'data: {"id":"chatcmpl-0","object":"chat.completion.chunk","choices":[{"delta":{"content":" tok"}}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":512,"completion_tokens":32}}\n\ndata: [DONE]\n\n'
PARTS = ("transport", "exchange, service", "reader", "router")
Play = Callable[[], object]
Spent = tuple[float, float, float]
"""Microseconds: in all, in the reader, in the router."""


class Stopwatch:
    """Stands for an object, and adds up the nanoseconds spent in the methods `of`."""

    def __init__(self, stood_for: Any, *of: str) -> None:
        self._stood_for, self.ns = stood_for, 0
        for name in of:
            setattr(self, name, partial(self._timed, getattr(stood_for, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stood_for, name)

    def _timed(self, method: Callable[..., Any], *given: Any, **named: Any) -> Any:
        start = time.perf_counter_ns()
        try:
            return method(*given, **named)
        finally:
            self.ns += time.perf_counter_ns() - start


class Way(Protocol):
    """How Envoy's messages reach us. Everything is prepared here, and done by what is returned."""

    def begin(self, messages: Sequence[bytes]) -> Play: ...
    def hear(self, message: bytes) -> Play: ...
    def end(self) -> Play: ...
    def log(self, message: bytes) -> Play: ...


class Alone:
    """To a conversation."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._conversation = Conversation(service)

    def begin(self, messages: Sequence[bytes]) -> Play:
        def play() -> None:
            self._conversation = Conversation(self._service)
            for message in messages:
                self._conversation.receive(message)

        return play

    def hear(self, message: bytes) -> Play:
        if self._conversation.steady and relayed(message) and ECHOED.word not in message:
            # The connection answers it by itself.
            return lambda: None

        def play() -> None:
            if self._conversation.relay(message) is None:
                self._conversation.receive(message)

        return play

    def end(self) -> Play:
        return self._conversation.close

    def log(self, message: bytes) -> Play:
        def play() -> None:
            for each in access_log.decode(message):
                self._service.logged(each)

        return play


class Nowhere(asyncio.Transport):
    """A socket that takes everything."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def is_closing(self) -> bool:
        return False


class Carried:
    """As the bytes of a connection, in whose server it stands."""

    limits, longest = WireLimits(), 1 << 30
    echo: Echo | None = Echo(ECHOED)

    def __init__(self, service: Service) -> None:
        pools = Pools({"bench": service})
        self.answer = answers(Health(), Ears(Streams(pools), AccessLogs(pools), ""))
        self._shell, self._stream, self._block = Shell(self), 1, block(path=PROCESS)
        self._shell.connection_made(Nowhere())
        self._shell.data_received(greeting() + frame(Kind.HEADERS, END_HEADERS, 1, block(path=LOGS)))

    def came(self, shell: Shell) -> None:
        pass

    def went(self, shell: Shell) -> None:
        pass

    def begin(self, messages: Sequence[bytes]) -> Play:
        self._stream += 2
        opened = frame(Kind.HEADERS, END_HEADERS, self._stream, self._block)
        return partial(self._shell.data_received, opened + b"".join(data(self._stream, each) for each in messages))

    def hear(self, message: bytes) -> Play:
        return partial(self._shell.data_received, data(self._stream, message))

    def end(self) -> Play:
        return partial(self._shell.data_received, frame(Kind.DATA, END_STREAM, self._stream))

    def log(self, message: bytes) -> Play:
        return partial(self._shell.data_received, data(1, message))


class Stand:
    """A service with stopwatches in it, and a way to it."""

    def __init__(self, make: Callable[[Service], Way]) -> None:
        metrics = RequestMetrics()
        router = warm(ENDPOINTS, "text", watchers=(metrics,)).router
        self._log = router.log
        self._reader = Stopwatch(Reader(), "parse", "finish", "observe")
        self._router = Stopwatch(router, "pick", "first_byte", "served", "ended")
        service = Service(cast(Reader, self._reader), cast(Router, self._router), metrics, ExchangeSettings())
        service.access_log_opened()
        self._way = make(service)
        self._taken = defaultdict[str, list[Spent]](list)

    def round(self, bodies: Sequence[bytes], echo: bool) -> dict[str, Spent]:
        """The lower quartile of each step."""
        self._taken.clear()
        for body in bodies:
            self._request(body, echo)
        return {
            step: cast(Spent, tuple(quantile(column, 0.25) for column in zip(*spent, strict=True)))
            for step, spent in self._taken.items()
        }

    def _request(self, body: bytes, echo: bool) -> None:
        way = self._way
        self._took("request", way.begin(words(body, echo)[:3]))
        decision = self._log.last(1)[0]
        served, flight = decision.addresses[0], decision.flight
        if not echo:
            self._took("end of the stream", way.end())
            self._took("record of the log", way.log(record(flight, served)))
            return
        headers, *chunks, usage, end = answered([CHUNK] * CHUNKS + [USAGE], served, flight)
        self._took("answer's headers", way.hear(headers))
        for chunk in chunks:
            self._took("chunk", way.hear(chunk))
        self._took("chunk with usage", way.hear(usage))
        self._took("answer's end", way.hear(end))

    def _took(self, step: str, play: Play) -> None:
        self._reader.ns = self._router.ns = 0
        start = time.perf_counter_ns()
        play()
        spent = time.perf_counter_ns() - start
        self._taken[step].append((spent / 1e3, self._reader.ns / 1e3, self._router.ns / 1e3))


async def measured(size: int, echo: bool, requests: int, rounds: int) -> dict[str, list[float]]:
    """By step: microseconds of each of PARTS."""
    stands = Stand(Alone), Stand(Carried)
    least: tuple[dict[str, Spent], dict[str, Spent]] = {}, {}
    for seed in range(rounds):
        bodies = [request.partition(b"\r\n\r\n")[2] for request in chat_requests(requests, size, seed=seed)]
        # In turns, so that a slow minute of the machine falls on both.
        for stand, best in zip(stands, least, strict=True):
            for step, spent in stand.round(bodies, echo).items():
                best[step] = min(spent, best.get(step, spent))
    parts = {}
    for step, (whole, reader, router) in least[1].items():
        alone = least[0][step]
        inside = alone[0] - alone[1] - alone[2]
        parts[step] = [max(0.0, whole - reader - router - inside), inside, reader, router]
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=int, default=2048, help="of a request's body")
    parser.add_argument("--requests", type=int, default=100, help="in a round")
    parser.add_argument("--rounds", type=int, default=30)
    given = parser.parse_args()
    for path, echo in (("access log", False), ("echo", True)):
        table = Table("µs", *PARTS, "all", title=f"one request of {given.bytes} bytes, {path}")
        steps = uvloop.run(measured(given.bytes, echo, given.requests, given.rounds))
        for step, parts in steps.items():
            table.add_row(step, *(f"{part:.1f}" for part in (*parts, sum(parts))))
        Console(width=100).print(table)


if __name__ == "__main__":
    main()
