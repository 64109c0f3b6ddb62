"""The scraper with engines that answer, fail, hang, lie, come and go."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest

from picker.engines import table as column
from picker.engines.ledger import IN_FLIGHT, Ledger
from picker.engines.scrape import Fetch, Scraper
from picker.engines.table import EngineTable
from picker.engines.tick import OVER, TickSettings
from picker.pool.view import Endpoint, Pool

FAST = TickSettings(fast_s=0.05, idle_s=0.05, failed_s=0.05)
SLOWING = TickSettings(fast_s=0.05, idle_s=5, failed_s=5, growth=10)


def page(running: float = 0, waiting: float = 0) -> bytes:
    return f"vllm:num_requests_running {running}\nvllm:num_requests_waiting {waiting}\n".encode()


def endpoint(n: int) -> Endpoint:
    return Endpoint(f"10.0.0.{n}:80", metrics_address=f"10.0.0.{n}:80")


class Engines:
    """Pages by address, and a way to await that an endpoint was scraped a number of times."""

    def __init__(self, **pages: Callable[[], Awaitable[bytes]]) -> None:
        self.pages = pages
        self.calls: dict[str, int] = {}
        self._changed = asyncio.Condition()

    async def fetch(self, endpoint: Endpoint) -> bytes:
        async with self._changed:
            self.calls[endpoint.address] = self.calls.get(endpoint.address, 0) + 1
            self._changed.notify_all()
        return await self.pages[endpoint.address]()

    async def asked(self, address: str, times: int) -> None:
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(lambda: self.calls.get(address, 0) >= times)


@asynccontextmanager
async def scraping(
    fetch: Fetch, *endpoints: Endpoint, settings: TickSettings = FAST
) -> AsyncIterator[tuple[Scraper, EngineTable, Ledger, Pool]]:
    table, ledger, pool = EngineTable(capacity=1), Ledger(capacity=1), Pool()
    scraper = Scraper(table, ledger, fetch, settings)
    scraper.follow(pool.replace(endpoints).view)
    try:
        yield scraper, table, ledger, pool
    finally:
        await scraper.close()


def says(body: bytes) -> Callable[[], Awaitable[bytes]]:
    async def answer() -> bytes:
        return body

    return answer


async def hangs() -> bytes:
    return await asyncio.Future[bytes]()


async def breaks() -> bytes:
    raise ConnectionResetError("gone")


async def test_a_good_scrape_fills_the_row_and_is_counted() -> None:
    engines = Engines(**{"10.0.0.1:80": says(page(3, 1))})
    async with scraping(engines.fetch, endpoint(1)) as (scraper, table, _, _):
        await engines.asked("10.0.0.1:80", 2)
        assert table.columns[[column.RUNNING, column.WAITING, column.FOREIGN], 0].tolist() == [3.0, 1.0, 4.0]
        assert scraper.counts[0].ok >= 1
        assert scraper.counts[0].failed == 0


async def test_a_hung_and_a_broken_engine_delay_nobody() -> None:
    engines = Engines(**{"10.0.0.1:80": hangs, "10.0.0.2:80": breaks, "10.0.0.3:80": says(page(2))})
    async with scraping(engines.fetch, endpoint(1), endpoint(2), endpoint(3)) as (scraper, table, _, _):
        await engines.asked("10.0.0.3:80", 5)
        assert engines.calls["10.0.0.1:80"] == 1
        assert table.column(column.RUNNING)[:3].tolist() == [0.0, 0.0, 2.0]
        assert scraper.counts[1].last_error == "ConnectionResetError: gone"


async def test_a_failure_keeps_the_last_good_reading_and_its_time() -> None:
    answers = [page(4)]

    async def once() -> bytes:
        return answers.pop() if answers else await breaks()

    engines = Engines(**{"10.0.0.1:80": once})
    async with scraping(engines.fetch, endpoint(1)) as (scraper, table, _, _):
        await engines.asked("10.0.0.1:80", 2)
        first = table.columns[:, 0].copy()
        await engines.asked("10.0.0.1:80", 4)
        assert first[column.RUNNING] == 4
        assert np.array_equal(first, table.columns[:, 0])
        assert scraper.counts[0].failed >= 2


async def test_a_page_that_is_none_is_a_failure_told_in_words() -> None:
    engines = Engines(**{"10.0.0.1:80": says(b"<html>")})
    async with scraping(engines.fetch, endpoint(1)) as (scraper, table, _, _):
        await engines.asked("10.0.0.1:80", 2)
        assert "not a page of vllm" in scraper.counts[0].last_error
        assert table.column(column.SCRAPED_AT)[0] == -np.inf


async def test_a_request_picked_during_the_scrape_is_ours_and_not_anothers() -> None:
    picked = asyncio.Event()

    async def slow() -> bytes:
        await (hangs() if picked.is_set() else picked.wait())
        return page(running=2)

    engines = Engines(**{"10.0.0.1:80": slow})
    async with scraping(engines.fetch, endpoint(1)) as (_, table, ledger, _):
        ledger.reserve(1, 0, 10, 10, 0.0)
        await engines.asked("10.0.0.1:80", 1)
        ledger.reserve(2, 0, 10, 10, 0.0)
        ledger.release(1)
        picked.set()
        await engines.asked("10.0.0.1:80", 2)
        assert table.column(column.FOREIGN)[0] == 0


async def test_the_ledger_is_corrected_by_what_the_engine_does_not_show() -> None:
    engines = Engines(**{"10.0.0.1:80": says(page(0))})
    async with scraping(engines.fetch, endpoint(1)) as (_, _, ledger, _):
        ledger.reserve(1, 0, 10, 10, now=-1e6)
        await engines.asked("10.0.0.1:80", 3)
        assert ledger.columns[IN_FLIGHT, 0] == 0


async def test_endpoints_join_and_leave_while_it_runs() -> None:
    release = asyncio.Event()

    async def late() -> bytes:
        await release.wait()
        return page(9)

    engines = Engines(**{"10.0.0.1:80": late, "10.0.0.2:80": says(page(1)), "10.0.0.3:80": says(page(5))})
    async with scraping(engines.fetch, endpoint(1), endpoint(2)) as (scraper, table, ledger, pool):
        await engines.asked("10.0.0.1:80", 1)
        change = pool.replace([endpoint(2), endpoint(3)])
        scraper.follow(change.view)
        for slot, _ in change.removed:
            table.clear(slot)
            ledger.forget(slot)
        release.set()
        await engines.asked("10.0.0.3:80", 2)
        assert [table.column(column.RUNNING)[slot] for slot in (0, 1, 2)] == [0.0, 1.0, 5.0]
        assert sorted(scraper.counts) == [1, 2]


async def test_an_endpoint_without_metrics_is_left_alone() -> None:
    engines = Engines(**{"10.0.0.2:80": says(page(1))})
    async with scraping(engines.fetch, Endpoint("10.0.0.1:80"), endpoint(2)) as (scraper, _, _, _):
        await engines.asked("10.0.0.2:80", 1)
        assert list(scraper.counts) == [1]


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the scraper wanted to sleep, and did not."""
    waits: list[float] = []
    sleep = asyncio.sleep

    async def at_once(delay: float) -> None:
        waits.append(delay)
        await sleep(0)

    monkeypatch.setattr("picker.engines.scrape.asyncio.sleep", at_once)
    return waits


async def test_an_engine_that_others_keep_busy_is_looked_at_as_seldom_as_a_resting_one_while_nobody_picks(
    slept: list[float],
) -> None:
    engines = Engines(**{"10.0.0.1:80": says(page(running=5))})
    async with scraping(engines.fetch, endpoint(1), settings=SLOWING):
        await engines.asked("10.0.0.1:80", 8)
        assert slept[-1] > 4


async def test_it_is_looked_at_often_as_long_as_something_of_ours_is_in_flight(slept: list[float]) -> None:
    engines = Engines(**{"10.0.0.1:80": says(page(running=5))})
    async with scraping(engines.fetch, endpoint(1), settings=SLOWING) as (_, _, ledger, _):
        ledger.reserve(1, 0, 10, 10, now=1e9)
        await engines.asked("10.0.0.1:80", 8)
        assert max(slept) < 0.2


async def test_what_a_scrape_costs_is_told_once_enough_were_made(slept: list[float]) -> None:
    engines = Engines(**{"10.0.0.1:80": says(page(1))})
    async with scraping(engines.fetch, endpoint(1)) as (scraper, _, _, _):
        assert scraper.cost_s == 0
        await engines.asked("10.0.0.1:80", OVER + 1)
        assert 0 < scraper.cost_s < 1
