"""A closed-loop load client: so many keep-alive connections, each asking again as soon as it is answered."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import cast

from bench.http1 import Message, MessageReader

AT_ONCE = 32


class LoadError(Exception):
    """A request was not answered with 200 in full: figures of such a round mean nothing."""


async def send_all(port: int, requests: Sequence[bytes], connections: int = AT_ONCE) -> list[Message]:
    """Send all requests to loopback; the answers, in the order in which they came. Raises LoadError, OSError."""
    loop = asyncio.get_running_loop()
    queue, answers = iter(requests), list[Message]()
    clients = [_Client(queue, answers) for _ in range(min(connections, len(requests)))]
    try:
        for client in clients:
            await loop.create_connection(client.itself, "127.0.0.1", port)
        await asyncio.gather(*(client.done for client in clients))
    finally:
        for client in clients:
            client.close()
    return answers


class _Client(asyncio.Protocol):
    """One connection; the queue is shared by all."""

    def __init__(self, queue: Iterator[bytes], answers: list[Message]) -> None:
        self._queue = queue
        self._answers = answers
        self._reader = MessageReader()
        self._transport: asyncio.Transport | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        try:
            answer = self._reader.feed(data)
        except ValueError as error:
            self._fail(f"no HTTP/1.1: {error}")
            return
        if answer is None:
            return
        if not answer.start_line.startswith(b"HTTP/1.1 200 "):
            self._fail(f"{answer.start_line.decode(errors='replace')}: {answer.body[:200].decode(errors='replace')}")
            return
        self._answers.append(answer)
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"connection lost: {exc}")

    def itself(self) -> "_Client":
        """The protocol factory that asyncio asks for."""
        return self

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _ask(self) -> None:
        request = next(self._queue, None)
        if request is not None and self._transport is not None:
            self._transport.write(request)
        elif not self.done.done():
            self.done.set_result(None)

    def _fail(self, reason: str) -> None:
        if not self.done.done():
            self.done.set_exception(LoadError(reason))
