"""What a collector learns reaches the workers, and outlives it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from aiohttp import web

from picker.engines import ledger as own
from picker.engines import table as scraped
from picker.pool.directory import Directory
from picker.pool.view import Endpoint
from picker.requests.request import Request
from picker.server.collected import Collected
from picker.server.collector import CollectedPool
from picker.server.config import load_config
from picker.server.keepers import Named
from picker.server.options import ServeOptions
from picker.server.served_pool import Lane, ServedPool
from picker.server.sharing import CollectorsShare, KeptRows

PAGE = """vllm:num_requests_running{engine="0"} %d
vllm:num_requests_waiting{engine="0"} 2
vllm:kv_cache_usage_perc{engine="0"} 0.5
vllm:cache_config_info{block_size="16",num_gpu_blocks="40"} 1.0
vllm:lora_requests_info{max_lora="4",running_lora_adapters="cat",waiting_lora_adapters=""} 1.0
"""
CONFIG = load_config(None)
ROOM = 10
"""Blocks of text, 64 tokens each, in a cache of 40 blocks of 16."""


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.005)


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[Endpoint]:
    """An engine that runs seven requests."""

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(text=PAGE % 7)

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    address = f"127.0.0.1:{runner.addresses[0][1]}"
    yield Endpoint(address, name="pod-a", metrics_address=address)
    await runner.cleanup()


@pytest.fixture
def options(tmp_path: Path) -> ServeOptions:
    return ServeOptions(endpoints="10.0.0.9:1", workers=2, run_dir=tmp_path)


@contextlib.asynccontextmanager
async def collecting(options: ServeOptions) -> AsyncIterator[CollectedPool]:
    pool = CollectedPool("default", CollectorsShare(options, 0), options, CONFIG)
    tasks = [asyncio.create_task(task) for task in (pool.stand(Named()), pool.gather(Named()))]
    try:
        yield pool
    finally:
        for task in tasks:
            task.cancel()
        await pool.close()


@contextlib.asynccontextmanager
async def working(options: ServeOptions, worker: int) -> AsyncIterator[tuple[ServedPool, Collected]]:
    pool = ServedPool("default", replace(options, worker=worker), CONFIG, Lane(worker, options.workers))
    assert pool.share is not None
    keeper = Collected(pool, pool.share)
    watch = asyncio.create_task(keeper.watch())
    try:
        yield pool, keeper
    finally:
        watch.cancel()
        await pool.close()


def running(pool: ServedPool) -> float:
    return float(pool.router.table.columns[scraped.RUNNING].sum())


async def test_a_worker_knows_pool_metrics_and_adapters_and_scrapes_nothing_itself(
    options: ServeOptions, engine: Endpoint
) -> None:
    assert options.run_dir is not None
    with contextlib.closing(KeptRows(options.run_dir, 2, 1)):
        async with collecting(options) as collector, working(options, 0) as (pool, keeper):
            assert not keeper.synced
            collector.follow(Directory((engine,), objectives={"urgent": 5}))
            await until(lambda: keeper.synced and running(pool) == 7)
            assert pool.router.pool.view.endpoints == (engine,)
            await until(lambda: pool.router.table.lora(0) is not None)
            collector.follow(Directory())
            await until(lambda: not pool.router.pool.view.endpoints)
            assert running(pool) == 0


async def test_requests_of_any_worker_are_not_taken_for_those_of_strangers(
    options: ServeOptions, engine: Endpoint
) -> None:
    assert options.run_dir is not None
    with contextlib.closing(KeptRows(options.run_dir, 2, 1)):
        async with collecting(options) as collector, working(options, 0) as (one, _), working(options, 1) as (two, _):
            collector.follow(Directory((engine,)))
            await until(lambda: len(one.router.pool.view.endpoints) == len(two.router.pool.view.endpoints) == 1)
            foreign = one.router.table.column(scraped.FOREIGN)
            await until(lambda: foreign[0] == 9)
            for pool in (one, two):
                for _ in range(3):
                    pool.router.pick(Request(model="m", prompt_tokens=10), None, pool.service.clock())
            await until(lambda: one.router.table.column(scraped.FOREIGN)[0] == 3)
            slots = one.router.pool.view.slots
            assert one.router.ledger.seen(slots)[own.IN_FLIGHT].tolist() == [6]


async def test_while_the_collector_is_dead_what_it_said_holds_and_the_next_one_goes_on(
    options: ServeOptions, engine: Endpoint
) -> None:
    assert options.run_dir is not None
    with contextlib.closing(KeptRows(options.run_dir, 2, 1)):
        async with working(options, 0) as (pool, keeper):
            async with collecting(options) as collector:
                collector.follow(Directory((Endpoint("10.0.0.8:1"), engine)))
                await until(lambda: keeper.synced and running(pool) == 7)
            decision = pool.router.pick(Request(model="m", prompt_tokens=10), [engine.address], pool.service.clock())
            assert decision.rows.running.tolist() == [7]
            pool.router.table.columns[scraped.RUNNING] = 0
            async with collecting(options) as again:
                assert keeper.synced
                again.follow(Directory((engine,)))
                await until(lambda: running(pool) == 7)
                await until(lambda: pool.router.pool.view.endpoints == (engine,))


async def test_what_one_worker_placed_the_other_knows_also_after_the_collector_has_changed(
    options: ServeOptions, engine: Endpoint
) -> None:
    assert options.run_dir is not None
    prompts = [
        Request(model="m", prompt_tokens=128, chain=np.arange(start, start + 8, dtype=np.uint64)) for start in (1, 100)
    ]

    def known(pool: ServedPool, request: Request) -> float:
        return float(pool.router.hits.tokens(request, pool.router.pool.view.slots, pool.service.clock())[0])

    async def heard(pool: ServedPool, request: Request) -> None:
        await until(lambda: known(pool, request) == 128)

    with contextlib.closing(KeptRows(options.run_dir, 2, 1)):
        async with working(options, 0) as (one, _), working(options, 1) as (two, _):
            for request in prompts:
                async with collecting(options) as collector:
                    collector.follow(Directory((engine,)))
                    await until(lambda: len(one.router.pool.view.endpoints) == len(two.router.pool.view.endpoints) == 1)
                    one.router.pick(request, None, one.service.clock())
                    one.router.settle()
                    await heard(two, request)
            assert [known(two, request) for request in prompts] == [128, 128]


async def test_the_index_of_all_picks_is_sized_by_the_engines_caches(options: ServeOptions, engine: Endpoint) -> None:
    assert options.run_dir is not None
    with contextlib.closing(KeptRows(options.run_dir, 2, 1)):
        async with collecting(options) as collector, working(options, 0) as (one, _), working(options, 1) as (two, _):
            collector.follow(Directory((engine,)))
            await until(lambda: running(one) == running(two) == 7)
            request = Request(model="m", prompt_tokens=1e6, chain=np.arange(1, 101, dtype=np.uint64))
            one.router.pick(request, None, one.service.clock())
            one.router.settle()
            slots = two.router.pool.view.slots
            await until(lambda: two.picks.matched(request.chain, slots, two.service.clock())[0] == ROOM)
