"""Scrape /metrics of every endpoint: one asyncio task each, so that a slow or dead engine delays nobody but itself.

A failed scrape changes no column: the last good one stays and its age grows.
"""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import aiohttp
import numpy as np

from picker.engines import ledger as own
from picker.engines.metrics import MAX_TEXT_BYTES, BadMetrics, parse
from picker.engines.table import Columns, EngineTable
from picker.engines.tick import Outcome, Pace, Tick, TickSettings, after, first, wait_s
from picker.pool.view import Endpoint, PoolView, Slots

Fetch = Callable[[Endpoint], Awaitable[bytes]]
"""Gives the bytes of an endpoint's page; raises ScrapeError, or whatever the client raises."""


class ScrapeError(Exception):
    """The engine answered, but not with a page that can be read."""


class Counted(Protocol):
    """What our own requests are counted by, shape (9, slots) as of the ledger; corrected by scrapes."""

    def ensure(self, capacity: int) -> None: ...
    def seen(self, slots: Slots) -> Columns: ...
    def observe(self, slot: int, running: float, waiting: float, started_at: float) -> None: ...


def nobody(slot: int, started_at: float) -> None:
    """Nobody wants to know of a good scrape."""


@dataclass(slots=True)
class ScrapeCount:
    """How the scrapes of one endpoint went so far. `seconds` is the time spent waiting for pages, failed ones too."""

    ok: int = 0
    failed: int = 0
    seconds: float = 0.0
    last_error: str = ""


class Scraper:
    """Keeps an `EngineTable` fresh and corrects a ledger. Lives on one event loop.

    `told` hears of each good scrape: its slot, and when it began, or -inf where it did not tell of requests.

    Call `follow` with each new view in the same step that clears the removed slots, with no await between, so that no
    task of the old endpoint writes a cleared row; `close` stops everything.
    """

    def __init__(
        self,
        table: EngineTable,
        ledger: Counted,
        fetch: Fetch,
        settings: TickSettings | None = None,
        *,
        told: Callable[[int, float], None] = nobody,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.counts: dict[int, ScrapeCount] = {}
        """By slot, for the endpoints followed now."""
        self._table = table
        self._ledger = ledger
        self._fetch = fetch
        self._settings = settings or TickSettings()
        self._told = told
        self._clock = clock
        self._draw = draw
        self._pace = Pace(self._settings.scrapes_per_s)
        self._watched: dict[int, tuple[Endpoint, asyncio.Task[None]]] = {}

    def follow(self, view: PoolView) -> None:
        """Watch exactly these endpoints, as they are now. A slot that is no longer theirs is never written again."""
        wanted = {int(s): e for s, e in zip(view.slots, view.endpoints, strict=True) if e.metrics_address is not None}
        for slot, (endpoint, task) in list(self._watched.items()):
            if wanted.get(slot) != endpoint:
                task.cancel()
                del self._watched[slot], self.counts[slot]
        for slot, endpoint in wanted.items():
            if slot not in self._watched:
                self._table.ensure(slot + 1)
                self._ledger.ensure(slot + 1)
                self.counts[slot] = ScrapeCount()
                task = asyncio.create_task(self._watch(slot, endpoint), name=f"scrape {endpoint.address}")
                self._watched[slot] = (endpoint, task)

    async def close(self) -> None:
        """Stop all tasks."""
        tasks = [task for _, task in self._watched.values()]
        self.follow(PoolView())
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, slot: int, endpoint: Endpoint) -> None:
        settings = self._settings
        tick: Tick = first(settings)
        await asyncio.sleep(self._draw() * settings.fast_s)  # endpoints that join together do not stay in step
        while True:
            await asyncio.sleep(self._pace.delay(self._clock()))
            outcome = await self._scrape(slot, endpoint)
            tick = after(tick, outcome, settings, endpoints=len(self._watched))
            await asyncio.sleep(wait_s(tick, self._draw(), settings))

    async def _scrape(self, slot: int, endpoint: Endpoint) -> Outcome:
        count = self.counts[slot]
        started_at = self._clock()
        picks, in_flight = self._own(slot)
        try:
            sample = parse(await self._fetch(endpoint), endpoint.engine)
        except Exception as error:
            # Whatever an engine makes the client raise is its own failure: counted, told, never the end of the task.
            count.failed += 1
            count.seconds += self._clock() - started_at
            count.last_error = _said(error)
            return "failed"
        now = self._clock()
        count.ok += 1
        count.seconds += now - started_at
        picked = max(0.0, self._own(slot)[0] - picks)  # a worker that dies takes its picks along
        changed = self._table.observe(slot, sample, now, in_flight + picked)
        running, waiting = sample.running or 0.0, sample.waiting or 0.0
        counted = sample.running is not None and sample.waiting is not None
        if counted:
            self._ledger.observe(slot, running, waiting, started_at)
        self._told(slot, started_at if counted else -math.inf)
        return "busy" if changed or running + waiting > 0 or self._own(slot)[1] > 0 else "quiet"

    def _own(self, slot: int) -> tuple[float, float]:
        """Picks ever and requests in flight, those of all workers, on a slot."""
        seen = self._ledger.seen(np.array([slot]))
        return float(seen[own.PICKS, 0]), float(seen[own.IN_FLIGHT, 0])


class HttpFetch:
    """GET http://address/metrics, bounded in time and size. Connections are kept alive between scrapes.

    There is no bound on connections over the pool: with one, hung engines would hold the places of healthy ones. Each
    endpoint has one request under way at most, so the pool's size is the bound. Raises ValueError on bad limits.
    """

    def __init__(self, timeout_s: float = 1.0, max_bytes: int = MAX_TEXT_BYTES) -> None:
        if not 0 < timeout_s <= 60 or not 0 < max_bytes <= MAX_TEXT_BYTES:
            raise ValueError(f"timeout_s must be in (0, 60] and max_bytes in (0, {MAX_TEXT_BYTES}]")
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, endpoint: Endpoint) -> bytes:
        """The page. Raises ScrapeError on a status other than 200, an encoded or an oversized page; client errors."""
        url = f"http://{endpoint.metrics_address}/metrics"
        async with self._open().get(url, allow_redirects=False) as answer:
            if answer.status != 200:
                raise ScrapeError(f"status {answer.status}")
            if answer.headers.get("Content-Encoding", "identity") != "identity":
                raise ScrapeError("encoded page, though identity was asked for")
            page = bytearray()
            async for chunk in answer.content.iter_any():
                page += chunk
                if len(page) > self._max_bytes:
                    raise ScrapeError(f"page over the limit of {self._max_bytes} bytes")
            return bytes(page)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:  # a session is made inside the loop that uses it
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Accept": "text/plain", "Accept-Encoding": "identity"},
                auto_decompress=False,
            )
        return self._session


def _said(error: Exception) -> str:
    """One short line about a failure."""
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, BadMetrics | ScrapeError):
        return str(error)[:200]
    return f"{type(error).__name__}: {error}"[:200]
