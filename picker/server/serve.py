"""One picker process: everything wired together, listening, until it is told to stop."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path

import grpc
import numpy as np
import structlog
from aiohttp import web

from picker.engines import table as scraped
from picker.engines.approximate import ApproximateIndex
from picker.engines.index import PrefixIndex
from picker.engines.kv_feed import KvFeed
from picker.engines.scrape import HttpFetch, Scraper
from picker.engines.table import EngineTable
from picker.engines.tick import TickSettings
from picker.policies.learned import Learned
from picker.policies.registry import REGISTRY
from picker.pool.source import FileSource, parse_list
from picker.pool.view import Endpoint
from picker.requests.reader import Reader, ReaderSettings
from picker.routing.hits import PrefixHits
from picker.routing.router import Router, RouterSettings
from picker.server.admin import Source, admin_app, metrics_app
from picker.server.config import PickerConfig, load_config
from picker.server.learning import Learning
from picker.server.options import ServeOptions
from picker.server.relay import HEARTBEAT_S, Mailbox
from picker.server.service import Service
from picker.server.tls import credentials
from picker.server.transport import AccessLogs, Health, Streams, ext_proc_server, health_server
from picker.telemetry.endpoints import EndpointTallies
from picker.telemetry.metrics import PoolMetrics, RequestMetrics
from picker.telemetry.sources import SourceMetrics

log = structlog.get_logger(__name__)

UPKEEP_S = 0.5


class PickerProcess:
    """The parts of one worker, in the order in which they are built, started and stopped."""

    def __init__(self, options: ServeOptions, config: PickerConfig) -> None:
        self.options, self.config = options, config
        settings = config.settings
        rng = np.random.default_rng(options.seed)
        self.metrics, self.tallies = RequestMetrics(), EndpointTallies()
        self.index, self.picks = PrefixIndex(), ApproximateIndex()
        self.recent = ApproximateIndex(ttl_s=2.0)
        policy = REGISTRY[options.policy]({}, rng) if options.policy else config.make_policy(rng)
        table = EngineTable()
        self.learning: Learning | None = None
        if isinstance(policy, Learned):
            self.learning = Learning(policy, table, time.monotonic, _state_file(options, settings.state_dir))
        self.router = Router(
            policy,
            PrefixHits(self.index, self.picks, self.recent),
            rng,
            # Flights start at the clock's microseconds: Envoy may still speak of those of the process before this one.
            settings=RouterSettings(
                settings.destinations,
                worker=options.worker,
                workers=options.workers,
                first_flight=time.time_ns() // 1000,
            ),
            table=table,
            watchers=(self.metrics, self.tallies, *([self.learning.metrics] if self.learning else [])),
        )
        self.reader = Reader(
            ReaderSettings(
                max_body_bytes=settings.max_body_bytes,
                steering=settings.steering_fields,
                tokenizers={model: Path(folder) for model, folder in settings.models.items()},
                adapters=settings.adapters,
            )
        )
        self.service = Service(self.reader, self.router, self.metrics, config.exchange_settings())
        self.streams, self.logs, self.health = Streams(self.service), AccessLogs(self.service), Health()
        tick = TickSettings(fast_s=settings.scrape_interval_seconds)
        self.fetch = HttpFetch()
        self.scraper = Scraper(self.router.table, self.router.ledger, self.fetch, tick)
        self.feed = KvFeed(self.index)

    def serve_endpoints(self, endpoints: Sequence[Endpoint]) -> None:
        """The pool is these endpoints from now on."""
        change = self.router.update_pool(endpoints)
        self.scraper.follow(change.view)
        if self.config.settings.models:
            # Only prompts known by their token ids can be looked up among the engines' own blocks.
            self.feed.follow(change)
        else:
            for slot, _ in change.added:
                self.router.hits.publishes(slot, False)
        log.info("pool changed", endpoints=len(endpoints), added=len(change.added), removed=len(change.removed))

    async def upkeep(self) -> None:
        """What must happen now and then, off the pick's path: sweep lost flights, follow the engines' block sizes."""
        while True:
            await asyncio.sleep(UPKEEP_S)
            swept = self.service.sweep()
            if swept:
                log.warning("answers whose end nobody told were given up; is the access log configured?", count=swept)
            self._follow_cache_config()

    def _follow_cache_config(self) -> None:
        slots, columns = self.router.pool.view.slots, self.router.table.columns
        sizes, blocks = columns[scraped.BLOCK_SIZE, slots], columns[scraped.NUM_BLOCKS, slots]
        known = sizes[sizes > 1]
        if len(known):
            self.reader.set_block_tokens(int(known.min()))
        for slot, tokens in zip(slots.tolist(), (sizes * blocks).tolist(), strict=True):
            if tokens > 0:
                self.picks.set_capacity(slot, int(tokens / self.reader.text_block_tokens))


async def serve(options: ServeOptions) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raises ConfigError, OSError, ValueError for what cannot start."""
    config = load_config(options.config_file)
    for warning in config.warnings:
        log.warning("config", message=warning)
    process = PickerProcess(options, config)
    process.index.warm()
    process.picks.warm()
    if process.learning is not None:
        process.learning.restore()
    stop = _stop_signal()
    async with contextlib.AsyncExitStack() as cleanup:
        await _watch_pool(process, cleanup)
        cleanup.push_async_callback(process.fetch.close)
        cleanup.push_async_callback(process.scraper.close)
        cleanup.push_async_callback(process.feed.close)
        await _http(process, cleanup)
        if options.workers > 1:
            await _join_workers(process, cleanup)
        _background(cleanup, process.upkeep())
        if process.learning is not None:
            cleanup.push_async_callback(process.learning.close)
            _background(cleanup, process.learning.run())
        server, health = ext_proc_server(process.streams, process.logs, process.health), health_server(process.health)
        _bind(server, health, options)
        await process.health.ready(True)
        await server.start()
        await health.start()
        log.info("serving", policy=process.router.policy.name, port=options.grpc_port, worker=options.worker)
        await stop.wait()
        patience = options.drain_timeout_s
        await _drain(process, server, config.settings.drain_timeout_seconds if patience is None else patience)
        await health.stop(0)


def _state_file(options: ServeOptions, configured: str) -> Path | None:
    """Where this worker keeps what it learned; None for nowhere."""
    folder = options.state_dir or (Path(configured) if configured else None)
    return None if folder is None else folder / f"learned-{options.worker}"


def _bind(server: grpc.aio.Server, health: grpc.aio.Server, options: ServeOptions) -> None:
    address = f"{options.host}:{options.grpc_port}"
    try:
        if options.secure_serving:
            server.add_secure_port(address, credentials(options.cert_path, options.enable_cert_reload))
        else:
            server.add_insecure_port(address)
        health.add_insecure_port(f"{options.host}:{options.grpc_health_port}")
    except RuntimeError as error:  # what grpc raises for a port that is taken
        raise OSError(str(error)) from error


async def _drain(process: PickerProcess, server: grpc.aio.Server, patience_s: float) -> None:
    """Readiness off, then no new streams; answers that do not pass through us go on without us at once."""
    await process.health.ready(False)
    stopping = asyncio.create_task(server.stop(patience_s))
    left = process.streams.hand_back()
    log.info("draining", streams=left, patience_s=patience_s)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.streams.ended(), patience_s)
    process.logs.close()
    await stopping
    process.streams.close()
    log.info("drained", streams=len(process.streams))


async def _watch_pool(process: PickerProcess, cleanup: contextlib.AsyncExitStack) -> None:
    options = process.options
    if options.endpoints_file is None:
        process.serve_endpoints(parse_list(options.endpoints))
        return
    file = FileSource(options.endpoints_file)
    process.serve_endpoints(file.load())
    _background(
        cleanup, file.watch(process.serve_endpoints, lambda reason: log.error("endpoints not reloaded", reason=reason))
    )


async def _http(process: PickerProcess, cleanup: contextlib.AsyncExitStack) -> None:
    options, router, learning = process.options, process.router, process.learning
    sources: list[Source] = [
        process.metrics,
        PoolMetrics(router, options.pool_name),
        SourceMetrics(router, process.scraper, process.feed, process.index, process.picks),
        *([learning.metrics] if learning else []),
    ]
    offset_s = time.time() - process.service.clock()
    admin = admin_app(router, process.tallies, offset_s, learning.as_json if learning else None)
    for app, host, port in (
        (metrics_app(sources), options.host, options.metrics_port),
        (admin, "127.0.0.1", options.admin_port),
    ):
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        cleanup.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, host, port).start()


async def _join_workers(process: PickerProcess, cleanup: contextlib.AsyncExitStack) -> None:
    options, service = process.options, process.service
    if options.run_dir is None:
        raise ValueError("several workers need a folder to talk through")
    mailbox = Mailbox(options.run_dir, options.worker, options.workers, service.logged, service.doubt)
    await mailbox.open()
    cleanup.callback(mailbox.close)
    service.relay = mailbox

    async def heartbeat() -> None:
        while True:
            if service.access_log_streams:
                mailbox.say_alive()
            await asyncio.sleep(HEARTBEAT_S)

    _background(cleanup, heartbeat())


def _background(cleanup: contextlib.AsyncExitStack, work: Coroutine[object, object, None]) -> None:
    """Run beside everything else until cleanup; should it fail, the log says so and the rest goes on."""
    task = asyncio.create_task(work)

    async def cancel() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def report(done: asyncio.Task[None]) -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            log.error("a background task ended", exc_info=error)

    task.add_done_callback(report)
    cleanup.push_async_callback(cancel)


def _stop_signal() -> asyncio.Event:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
