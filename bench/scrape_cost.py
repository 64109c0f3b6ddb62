"""CPU of one scrape in the process that scrapes: request, page, parsing, table, shared row.

    python -m bench.scrape_cost [--scrapes 2000] [--page FILE]

One engine in a process of its own serves the page; it is scraped again and again over one kept-alive connection.
"""

import argparse
import asyncio
import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np
from aiohttp import web

from picker.engines.ledger import Ledger
from picker.engines.metrics import parse
from picker.engines.scrape import HttpFetch
from picker.engines.table import EngineTable
from picker.pool.view import Endpoint, Pool
from picker.server.up.ports import free_ports
from picker.shared.engines import EngineRows, engines_of, keep_engines

PAGE = Path(__file__).parent.parent / "tests" / "engines" / "golden" / "vllm-0.32-busy.txt"


def engine(port: int, page: str) -> None:
    """Serve `page` until killed."""

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(text=page)

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    web.run_app(app, host="127.0.0.1", port=port, print=None)


async def scrape_us(port: int, scrapes: int, folder: Path) -> float:
    """Mean CPU microseconds of one scrape, as `Scraper` makes it but for its sleep."""
    endpoint = Endpoint(f"127.0.0.1:{port}", metrics_address=f"127.0.0.1:{port}")
    kept = keep_engines(folder, "engines")
    table, ledger, fetch = EngineTable(), Ledger(), HttpFetch()
    rows = EngineRows(engines_of(folder, "engines", writes=True), table)
    rows.follow(Pool().replace([endpoint]).view)

    async def one() -> None:
        started = time.monotonic()
        sample = parse(await fetch(endpoint), endpoint.engine)
        table.observe(0, sample, time.monotonic(), float(ledger.seen(np.array([0]))[0, 0]))
        ledger.observe(0, sample.running or 0.0, sample.waiting or 0.0, started)
        rows.publish(0, started)

    while True:
        try:
            await one()
            break
        except OSError:
            await asyncio.sleep(0.05)
    start = time.process_time()
    for _ in range(scrapes):
        await one()
    spent = time.process_time() - start
    await fetch.close()
    kept.close()
    return 1e6 * spent / scrapes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scrapes", type=int, default=2000)
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    (port,) = free_ports(1)
    process = multiprocessing.get_context("spawn").Process(target=engine, args=(port, options.page.read_text()))
    process.start()
    try:
        with tempfile.TemporaryDirectory(prefix="picker-") as folder:
            cost = asyncio.run(scrape_us(port, options.scrapes, Path(folder)))
    finally:
        process.kill()
        process.join()
    print(f"{cost:.0f} us of CPU per scrape of {options.page.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
