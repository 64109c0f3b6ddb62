"""Scrape /metrics of every endpoint: one asyncio task each, so that a slow or dead engine delays nobody but itself.

A failed scrape changes no column: the last good one stays and its age grows. While nobody picks and nothing of ours is
in flight, engines that others keep busy are looked at as seldom as resting ones.
"""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from picker.engines import ledger as own
from picker.engines.metrics import BadMetrics, PageReader
from picker.engines.page_answer import ScrapeError
from picker.engines.table import Columns, EngineTable
from picker.engines.tick import Cost, Outcome, Pace, Tick, TickSettings, Use, after, first, on_beat, rate_per_s, wait_s
from picker.pool.view import Endpoint, PoolView, Slots

Fetch = Callable[[Endpoint], Awaitable[bytes]]
"""Gives the bytes of an endpoint's page; raises ScrapeError, or whatever the client raises."""


UNSEEN = 3.0
"""Times the CPU of reading a page a scrape costs: only that can be timed apart, the rest is the loop's and the kernel's
(`python -m bench.scrape_cost`)."""


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
        cpu: Callable[[], float] = time.thread_time,
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
        self._cpu = cpu
        self._draw = draw
        self._pace, self._cost = Pace(), Cost()
        self._slots: Slots = PoolView().slots
        self._use, self._counted_at = Use(), -math.inf
        self._watched: dict[int, tuple[Endpoint, asyncio.Task[None]]] = {}

    @property
    def cost_s(self) -> float:
        """What a scrape costs, in seconds of CPU, as far as we see; 0 before the first."""
        return self._cost.each_s * UNSEEN

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
        self._slots = np.array(list(self._watched), dtype=np.intp)

    async def close(self) -> None:
        """Stop all tasks."""
        tasks = [task for _, task in self._watched.values()]
        self.follow(PoolView())
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, slot: int, endpoint: Endpoint) -> None:
        settings, reader = self._settings, PageReader(endpoint.engine)
        tick: Tick = first(settings)
        await asyncio.sleep(self._draw() * settings.fast_s)  # endpoints that join together do not stay in step
        while True:
            if (delay := self._pace.delay(self._clock(), self._per_s)) > 0:
                await asyncio.sleep(on_beat(self._clock(), delay))
            outcome = await self._scrape(slot, endpoint, reader)
            tick = after(tick, outcome, settings, len(self._watched), self._per_s)
            await asyncio.sleep(on_beat(self._clock(), wait_s(tick, self._draw(), settings)))

    @property
    def _per_s(self) -> float:
        return rate_per_s(self.cost_s, len(self._watched), self._settings)

    async def _scrape(self, slot: int, endpoint: Endpoint, reader: PageReader) -> Outcome:
        count = self.counts[slot]
        started_at = self._clock()
        picks, in_flight = self._own(slot)
        try:
            page = await self._fetch(endpoint)
            began = self._cpu()
            sample = reader.read(page)
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
        self._cost.add(self._cpu() - began)
        busy = changed or running + waiting > 0 or self._own(slot)[1] > 0
        return "busy" if busy and self._used(now) else "quiet"

    def _used(self, now: float) -> bool:
        if now - self._counted_at >= self._settings.fast_s:  # not for each scrape: it looks at the whole pool
            picks, in_flight = self._ledger.seen(self._slots)[[own.PICKS, own.IN_FLIGHT]].sum(axis=1).tolist()
            self._use.seen(picks, in_flight, now)
            self._counted_at = now
        return self._use.lately(now)

    def _own(self, slot: int) -> tuple[float, float]:
        """Picks ever and requests in flight, those of all workers, on a slot."""
        seen = self._ledger.seen(np.array([slot]))
        return float(seen[own.PICKS, 0]), float(seen[own.IN_FLIGHT, 0])


def _said(error: Exception) -> str:
    """One short line about a failure."""
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, BadMetrics | ScrapeError):
        return str(error)[:200]
    return f"{type(error).__name__}: {error}"[:200]
