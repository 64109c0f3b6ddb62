"""The collector: one process that watches pools and engines for all workers of a picker.

It owns what must not be done once per worker: the watch of the API server or the file, the scrapes, the engines' KV
events, the index of where all workers placed prompts. What it learns goes into shared memory and letters (`sharing`,
`picker/shared`); it answers nobody, so that its death leaves picks going on from what was last known, and the next one
takes over its rows.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import structlog
from aiohttp import web

from picker.engines.index import PrefixIndex
from picker.engines.metrics import LoraState
from picker.engines.table import Columns, EngineTable
from picker.pool.default_engine import with_engine
from picker.pool.directory import Directory
from picker.pool.view import Endpoint, Pool, PoolView, Slots
from picker.requests.reader import ReaderSettings
from picker.server.admin import Source, Together, metrics_app
from picker.server.background import background, stop_signal
from picker.server.cache_config import cache_config
from picker.server.config import PickerConfig
from picker.server.engine_watch import EngineWatch
from picker.server.keepers import Keeper
from picker.server.options import ServeOptions
from picker.server.sharing import CollectorsShare, Standing
from picker.server.tls import metrics_context
from picker.server.watching import watch_pools
from picker.shared.mirror import Mirror
from picker.telemetry.older_names import OlderNames
from picker.telemetry.sources import IndexMetrics, PlacementMetrics

log = structlog.get_logger(__name__)

STANDING_S = 0.25
"""Between two letters on how the watch stands."""
TAKE_S = 0.02
"""Between two looks at where workers placed prompts."""
REBUILD_S = 30.0
"""A new collector's index stays untold for so long at most while engines replay their past."""


class Totals:
    """All workers' requests in flight, by the collector's slots. Each worker corrects its own ledger by the scrape."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror

    def follow(self, view: PoolView, capacity: int) -> None:
        """These are the slots from now on."""
        self._mirror.follow(view, capacity)

    def ensure(self, capacity: int) -> None:
        """`follow` made room."""

    def seen(self, slots: Slots) -> Columns:
        """The columns of these slots, shape (9, N)."""
        self._mirror.refresh()
        return self._mirror.columns.take(slots, axis=1)

    def observe(self, slot: int, running: float, waiting: float, started_at: float) -> None:
        """The rows tell the workers."""


class CollectedPool:
    """The collector's side of one pool."""

    def __init__(self, name: str, share: CollectorsShare, options: ServeOptions, config: PickerConfig) -> None:
        self.name, self.pool = name, Pool()
        self._config, self._share = config, share
        self._table, self._totals = EngineTable(), Totals(share.flights)
        self._rows = share.engines(self._table)
        self._shelf = share.shelf()
        index = PrefixIndex(shelf=self._shelf, salt=secrets.randbits(64))
        self._watch = EngineWatch(self._table, self._totals, index, options, config, self._rows.publish)
        self._picks_shelves = share.picks_shelves()
        self._picks = share.picks(self._picks_shelves)
        self._block_tokens = ReaderSettings().block_tokens
        self._adapters: dict[str, LoraState] = {}
        self._index_told = False

    def serve_endpoints(self, endpoints: Sequence[Endpoint]) -> None:
        """The pool is these endpoints from now on."""
        self._tell(Directory(tuple(endpoints)))

    def follow(self, directory: Directory) -> None:
        """The pool is what its keeper says from now on."""
        endpoints = with_engine(directory.endpoints, self._config.engine)
        self._tell(replace(directory, endpoints=endpoints))

    def _tell(self, directory: Directory) -> None:
        change = self.pool.replace(directory.endpoints)
        for slot, _ in change.removed:
            self._table.clear(slot)
        self._table.ensure(self.pool.capacity)
        self._totals.follow(change.view, self.pool.capacity)
        self._rows.follow(change.view)
        self._shelf.follow(change.view)
        self._picks.follow(change)
        self._watch.follow(change)
        self._share.directory.write(msgspec.json.encode(directory))
        log.info("pool changed", pool=self.name, endpoints=len(directory.endpoints))

    def warm(self) -> None:
        """Compile what the first event would wait for."""
        self._watch.warm()
        self._picks.warm()

    def sources(self) -> list[Source]:
        """Metrics of what it watches."""
        return [*self._watch.sources(self), IndexMetrics({"picks": self._picks.picks}), PlacementMetrics(self._picks)]

    async def stand(self, keeper: Keeper) -> None:
        """Tell the workers again and again how the watch stands, and which adapters are where, until cancelled."""
        patience = REBUILD_S
        while True:
            if keeper.synced and not self._index_told:
                self._tell_index(hurry=patience <= 0)
                patience -= STANDING_S
            standing = Standing(keeper.synced, keeper.pool_exists, keeper.silent_s, time.monotonic())
            self._share.standing.write(msgspec.json.encode(standing))
            if (adapters := self._lora()) != self._adapters:
                self._adapters = adapters
                self._share.adapters.write(msgspec.json.encode(adapters))
            await asyncio.sleep(STANDING_S)

    async def gather(self, keeper: Keeper) -> None:
        """Take in where workers placed prompts, until cancelled. What was told before the pool is known can wait."""
        while not keeper.synced:
            await asyncio.sleep(TAKE_S)
        self._picks.take(time.monotonic())
        self._share.picks_told.write(self._share.picks_name.encode())
        while True:
            for _ in range(round(STANDING_S / TAKE_S)):
                self._picks.take(time.monotonic())
                await asyncio.sleep(TAKE_S)
            self._picks.expire(time.monotonic())
            self._follow_cache_config()

    def _follow_cache_config(self) -> None:
        self._block_tokens, rooms = cache_config(self._table, self.pool.view.slots, self._block_tokens)
        for slot, blocks in rooms:
            self._picks.picks.set_capacity(slot, blocks)

    def _tell_index(self, *, hurry: bool) -> None:
        """Our index takes the place of an older one once the engines have told it their past, or do not."""
        if hurry or self._watch.in_step or not self._share.index.written:
            self._share.index.write(self._share.index_name.encode())
            self._index_told = True

    def _lora(self) -> dict[str, LoraState]:
        view = self.pool.view
        states = zip(view.endpoints, map(self._table.lora, view.slots.tolist()), strict=True)
        return {endpoint.address: state for endpoint, state in states if state is not None}

    async def close(self) -> None:
        """Stop listening."""
        await self._watch.close()
        for shelf in (self._shelf, *self._picks_shelves):
            shelf.close()


async def collect(options: ServeOptions, config: PickerConfig) -> None:
    """Watch until SIGTERM or SIGINT. Raises BadSource, OSError, ValueError for what cannot start."""
    stop = stop_signal()
    async with contextlib.AsyncExitStack() as cleanup:
        pools = []
        for number, pool in enumerate(options.pools):
            collected = CollectedPool(pool.name, CollectorsShare(options, number), options, config)
            collected.warm()
            cleanup.push_async_callback(collected.close)
            pools.append(collected)
        keepers, _ = await watch_pools(pools, options, cleanup)
        told: dict[str, list[Source]] = {}
        for collected, keeper in zip(pools, keepers, strict=True):
            background(cleanup, collected.stand(keeper))
            background(cleanup, collected.gather(keeper))
            sources = [*collected.sources(), *keeper.sources()]
            told[collected.name] = [OlderNames(s) for s in sources] if config.settings.older_metric_names else sources
        folder = options.metrics_cert_dir
        tls = None if folder is None else metrics_context(folder, options.metrics_client_ca_file)
        runner = web.AppRunner(
            metrics_app([Together(told)] if len(pools) > 1 else told[pools[0].name]), access_log=None
        )
        await runner.setup()
        cleanup.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, options.host, options.collector_port, ssl_context=tls).start()
        log.info("collecting", workers=options.workers)
        await stop.wait()
