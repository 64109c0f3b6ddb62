"""CPU that a pool's engines cost the process that scrapes them, as it stands and without a request.

    python -m bench.scrape_cost [--engines 64] [--seconds 10] [--page FILE]

Engines in a process of their own serve a recorded page whose running totals move; they are scraped by the service's own
rule, into table, ledger and shared rows. Once with requests of ours in flight everywhere, once with none.
"""

import argparse
import asyncio
import itertools
import multiprocessing
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import uvloop
from aiohttp import web

from picker.engines.http_fetch import HttpFetch
from picker.engines.ledger import Ledger
from picker.engines.scrape import Scraper
from picker.engines.table import EngineTable
from picker.engines.tick import TickSettings
from picker.pool.view import Endpoint, Pool
from picker.server.config_schema import Settings
from picker.server.up.ports import free_ports
from picker.shared.engines import EngineRows, engines_of, keep_engines

PAGE = Path(__file__).parent.parent / "tests" / "engines" / "golden" / "vllm-0.32-busy.txt"
_TOTALS = re.compile(r"^(vllm:(?:prompt|generation)_tokens_total\{.*\}) .*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a pool over a while: scrapes a second, CPU in microseconds of each, and what the scraper takes that to be."""

    per_s: float
    us: float
    guess_us: float


async def engines(ports: list[int], page: str) -> None:
    """Serve `page` on all ports until killed."""
    tokens = itertools.count(100_000, 7)

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(text=_TOTALS.sub(lambda line: f"{line[1]} {next(tokens)}.0", page))

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    for port in ports:
        await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


def serve(ports: list[int], page: str) -> None:
    uvloop.run(engines(ports, page))


async def standing(ports: list[int], seconds: float, folder: Path, *, used: bool) -> Cost:
    """The pool's cost once every engine was read."""
    endpoints = [Endpoint(f"127.0.0.1:{port}", metrics_address=f"127.0.0.1:{port}") for port in ports]
    kept = keep_engines(folder, "engines")
    table, ledger, fetch, change = EngineTable(), Ledger(), HttpFetch(), Pool().replace(endpoints)
    rows = EngineRows(engines_of(folder, "engines", writes=True), table)
    rows.follow(change.view)
    scraper = Scraper(table, ledger, fetch, TickSettings(fast_s=Settings().scrape_interval_seconds), told=rows.publish)
    scraper.follow(change.view)
    if used:
        for flight, slot in enumerate(change.view.slots.tolist()):
            ledger.reserve(flight, slot, 100.0, 100.0, time.monotonic() + 1e6)
    while not all(count.ok for count in scraper.counts.values()):
        await asyncio.sleep(0.05)
    await asyncio.sleep(3.0)  # resting engines reach their interval
    before, start, spent = scrapes(scraper), time.monotonic(), time.process_time()
    await asyncio.sleep(seconds)
    made = scrapes(scraper) - before
    spent, took = time.process_time() - spent, time.monotonic() - start
    cost = Cost(made / took, 1e6 * spent / made, 1e6 * scraper.cost_s)
    await scraper.close()
    await fetch.close()
    kept.close()
    return cost


def scrapes(scraper: Scraper) -> int:
    return sum(count.ok for count in scraper.counts.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    ports = free_ports(options.engines)
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(ports, options.page.read_text()))
    process.start()
    try:
        for used in (True, False):
            with tempfile.TemporaryDirectory(prefix="picker-") as folder:
                cost = uvloop.run(standing(ports, options.seconds, Path(folder), used=used))
            print(
                f"{options.engines} engines {'in use' if used else 'at rest'}: {cost.per_s:.0f} scrapes/s of "
                f"{cost.us:.0f} us of CPU (taken for {cost.guess_us:.0f}), {cost.per_s * cost.us / 1e3:.1f} ms/s"
            )
    finally:
        process.kill()
        process.join()


if __name__ == "__main__":
    main()
