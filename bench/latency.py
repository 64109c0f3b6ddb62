"""What a pick adds to a request's way through Envoy: `python -m bench.latency`. Milliseconds, at 200 requests a second.

Open loop: requests begin when it is their turn, whether or not earlier ones have been answered. The same load goes
through an Envoy with picker beside it and through one without, in turns, to the same backends; the difference of two
quantiles is what picker added. The client is on the same cores.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, cast

import uvloop
from rich.console import Console

from bench.bed import DIRECT, IN_TURN, LEAN, bed
from bench.client import LoadError
from bench.figures import Figure, quantile
from bench.http1 import MessageReader
from bench.load import Target
from bench.prompts import chat_requests

PER_S = 200.0
MEASURED = {
    f"{LEAN}none": "by the rule, 4 endpoints",
    f"{LEAN}learned_64": "learned, 64 endpoints",
    IN_TURN: "endpoints in turn",
}
QUANTILES = {"p50": 0.5, "p99": 0.99}
SIZE = 2048


async def added_latency_ms(rounds: int, requests: int) -> dict[str, Any]:
    """Figures by target and quantile, one run per round; the first round of each warms up.

    Raises LoadError for an answer that is not 200; StackError, TimeoutError or OSError when something does not start.
    """
    runs: dict[str, dict[str, list[float]]] = {name: {q: [] for q in QUANTILES} for name in (DIRECT, *MEASURED)}
    async with bed({DIRECT, *MEASURED}) as targets:
        for round_ in range(rounds + 1):
            for name, found in runs.items():
                taken = await open_loop(targets[name], chat_requests(requests, SIZE, seed=len(MEASURED) * round_ + 1))
                for quantile_name, q in QUANTILES.items():
                    if round_:
                        found[quantile_name].append(1e3 * quantile(taken, q))
    return {
        name: {
            q: Figure(tuple(with_ - without for with_, without in zip(runs[name][q], runs[DIRECT][q], strict=True)))
            for q in QUANTILES
        }
        for name in MEASURED
    }


async def open_loop(target: Target, requests: Sequence[bytes]) -> list[float]:
    """Seconds from when each request was due until its answer was there. Raises LoadError, OSError."""
    loop = asyncio.get_running_loop()
    idle, taken = list[_Connection](), list[float]()
    begin = time.perf_counter() + 0.05

    async def one(due: float, request: bytes) -> None:
        if idle:
            connection = idle.pop()
        else:
            _, connection = await loop.create_connection(_Connection, "127.0.0.1", target.port)
        await connection.ask(request)
        taken.append(time.perf_counter() - due)
        idle.append(connection)

    async with asyncio.TaskGroup() as group:
        for i, request in enumerate(requests):
            due = begin + i / PER_S
            await asyncio.sleep(due - time.perf_counter())
            group.create_task(one(due, request))
    for connection in idle:
        connection.close()
    return taken


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self._reader = MessageReader()
        self._transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    async def ask(self, request: bytes) -> None:
        assert self._transport is not None  # connected
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        await self._answered

    def data_received(self, data: bytes) -> None:
        answer, waiting = self._reader.feed(data), self._answered
        if answer is None or waiting is None or waiting.done():
            return
        if answer.start_line.startswith(b"HTTP/1.1 200 "):
            waiting.set_result(None)
        else:
            waiting.set_exception(LoadError(answer.start_line.decode(errors="replace")))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(LoadError(f"connection lost: {exc}"))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def main() -> None:
    """Print the figures."""
    console = Console(highlight=False)
    found = uvloop.run(added_latency_ms(rounds=5, requests=1000))
    for name, said in MEASURED.items():
        for q, figure in found[name].items():
            least, most = min(figure.runs), max(figure.runs)
            console.print(f"added {q}, {said:<28}{figure.median:7.2f} ms   ({least:.2f} to {most:.2f})")


if __name__ == "__main__":
    main()
