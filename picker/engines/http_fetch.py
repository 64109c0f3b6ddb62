"""Pages over HTTP: one request at a time on each connection, connections kept between scrapes.

A general client costs three times what its request does (`python -m bench.scrape_cost`). This one knows a single GET,
follows nothing, decodes nothing, and leaves the reading of the answer to `PageAnswer`.
"""

import asyncio
import time
from functools import partial
from typing import cast

from picker.engines.metrics import MAX_TEXT_BYTES
from picker.engines.page_answer import PageAnswer, ScrapeError
from picker.pool.view import Endpoint

IDLE_S = 120.0
"""A connection that nobody used for so long is closed when the next one is opened."""


class HttpFetch:
    """GET http://address/metrics, bounded in time and size.

    There is no bound on connections over the pool: with one, hung engines would hold the places of healthy ones. Each
    endpoint has one request under way at most, so the pool's size is the bound. Raises ValueError on bad limits.
    """

    def __init__(self, timeout_s: float = 1.0, max_bytes: int = MAX_TEXT_BYTES) -> None:
        if not 0 < timeout_s <= 60 or not 0 < max_bytes <= MAX_TEXT_BYTES:
            raise ValueError(f"timeout_s must be in (0, 60] and max_bytes in (0, {MAX_TEXT_BYTES}]")
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._idle: dict[str, _Connection] = {}

    async def __call__(self, endpoint: Endpoint) -> bytes:
        """The page. Raises ScrapeError on anything but an unencoded page of status 200; TimeoutError, OSError."""
        address = endpoint.metrics_address or ""
        async with asyncio.timeout(self._timeout_s):
            kept = self._idle.pop(address, None)
            if kept is not None and not kept.closed:
                try:
                    return await self._ask(kept)
                except _Stale:
                    pass  # the engine closed it while the request was on its way
            return await self._ask(await self._open(address))

    async def close(self) -> None:
        """Close the connections."""
        for connection in self._idle.values():
            connection.abort()
        self._idle.clear()

    async def _ask(self, connection: "_Connection") -> bytes:
        try:
            page = await connection.ask(self._max_bytes)
        except BaseException:
            connection.abort()  # what it would still say belongs to a request that is over
            raise
        if connection.closed or self._idle.setdefault(connection.address, connection) is not connection:
            connection.abort()
        return page

    async def _open(self, address: str) -> "_Connection":
        """Raises ScrapeError, OSError."""
        host, _, port = address.rpartition(":")
        if not (host and port.isdecimal() and address.isascii() and address.isprintable() and " " not in address):
            raise ScrapeError("no address")
        before = time.monotonic() - IDLE_S
        for idle in [c for c in self._idle.values() if c.closed or c.used_at < before]:
            idle.abort()
            del self._idle[idle.address]
        made, loop = partial(_Connection, address), asyncio.get_running_loop()
        _, connection = await loop.create_connection(made, host.strip("[]"), int(port))
        return connection


class _Stale(ScrapeError):
    """The connection ended before the first byte of the answer."""


class _Connection(asyncio.Protocol):
    """One connection to one engine."""

    def __init__(self, address: str) -> None:
        self.address, self.closed, self.used_at = address, False, time.monotonic()
        self._request = (
            f"GET /metrics HTTP/1.1\r\nHost: {address}\r\nUser-Agent: picker\r\n"
            "Accept: text/plain\r\nAccept-Encoding: identity\r\n\r\n"
        ).encode()
        self._answer: PageAnswer | None = None
        self._page: asyncio.Future[bytes] | None = None

    async def ask(self, max_bytes: int) -> bytes:
        """One page. Raises ScrapeError, OSError."""
        self._answer = PageAnswer(max_bytes)
        self._page = asyncio.get_running_loop().create_future()
        self._transport.write(self._request)
        try:
            return await self._page
        finally:
            self._answer = self._page = None
            self.used_at = time.monotonic()

    def abort(self) -> None:
        """Close at once."""
        self.closed = True
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        answer, waiting = self._answer, self._page
        if answer is None or waiting is None or waiting.done():
            self.abort()  # nobody asked
            return
        try:
            page = answer.feed(data)
        except ScrapeError as error:
            self.abort()
            waiting.set_exception(error)
            return
        if page is not None:
            self.closed = not answer.keeps
            waiting.set_result(page)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        answer, waiting = self._answer, self._page
        if answer is None or waiting is None or waiting.done():
            return
        if not answer.begun:
            waiting.set_exception(_Stale("the connection ended before the answer"))
            return
        try:
            waiting.set_result(answer.end())
        except ScrapeError as error:
            waiting.set_exception(exc or error)
