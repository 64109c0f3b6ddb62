"""One picker process: everything wired together, listening, until it is told to stop."""

import asyncio
import contextlib
import gc
import time
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from picker.server.admin import Shown, Together, admin_app, metrics_app
from picker.server.background import background, stop_signal
from picker.server.collected import Collected
from picker.server.config import PickerConfig, load_config, read_config
from picker.server.connections import ConnectionMetrics
from picker.server.handoff_feed import Feed, feed_app
from picker.server.health import Health
from picker.server.keepers import Keeper
from picker.server.options import ServeOptions
from picker.server.pools import Pools
from picker.server.readiness import Readiness
from picker.server.relay import HEARTBEAT_S, Mailbox
from picker.server.served_pool import Lane, ServedPool
from picker.server.sharing import run_folder
from picker.server.streams import AccessLogs, Streams
from picker.server.tls import metrics_context
from picker.server.transport import Door, Ears, Limits, Server, open_server
from picker.server.watching import watch_pools

if TYPE_CHECKING:
    from picker.server.kubernetes.cluster import Cluster

log = structlog.get_logger(__name__)

READINESS_S = 0.1
CLUSTER_PAUSE_S = 5.0
"""What a cluster takes to tell everybody that a pod is no longer ready."""


class PickerProcess:
    """One worker: its pools, its streams, and whether it is ready."""

    def __init__(self, options: ServeOptions, config: PickerConfig) -> None:
        self.options, self.config = options, config
        self.served = [
            ServedPool(pool.name, options, config, Lane(options.worker, options.workers, i, len(options.pools)))
            for i, pool in enumerate(options.pools)
        ]
        self.pools = Pools({pool.name: pool.service for pool in self.served}, options.pool_header)
        self.streams, self.logs = Streams(self.pools), AccessLogs(self.pools)
        self.health = Health(strict=options.leader_election)
        self.servers: list[Server] = []
        self.keepers: list[Keeper] = []
        self.leading = not options.leader_election
        self.draining = False
        self._readiness = Readiness(options.unready_after_silence_s)
        self._missing = "it starts"

    def say_readiness(self) -> None:
        """Tell who asks for our health whether we are ready."""
        missing = self._readiness.missing(self.keepers, leading=self.leading, draining=self.draining)
        if missing == self._missing:
            return
        log.info("ready" if not missing else "not ready", **({"because": missing} if missing else {}))
        self._missing = missing
        self.health.ready(not missing)

    async def keep_saying(self) -> None:
        """Follow what readiness follows from, until cancelled."""
        while True:
            self.say_readiness()
            await asyncio.sleep(READINESS_S)

    def lead(self, yes: bool) -> None:
        """The Lease is ours, or no longer."""
        self.leading = yes


def configuration(options: ServeOptions) -> PickerConfig:
    """The configuration file or text. Raises ConfigError."""
    if options.config_text:
        return read_config(options.config_text, "--config-text")
    return load_config(options.config_file)


async def serve(options: ServeOptions) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raises ConfigError, OSError, ValueError for what cannot start."""
    stop = stop_signal()
    config = configuration(options)
    for warning in config.warnings:
        log.warning("config", message=warning)
    process = PickerProcess(options, config)
    for pool in process.served:
        pool.warm()
    async with contextlib.AsyncExitStack() as cleanup:
        for pool in process.served:
            cleanup.push_async_callback(pool.close)
        cluster = await _watch_pools(process, cleanup)
        await _http(process, cleanup)
        if options.workers > 1:
            await _join_workers(process, cleanup)
        for pool in process.served:
            for work in pool.background():
                background(cleanup, work)
        await _open_servers(process)
        # What there is by now stays: a collection that looked at all of it would hold up every stream for a tenth of a
        # second.
        gc.collect()
        gc.freeze()
        process.say_readiness()
        for server in process.servers:
            await server.start()
        health = await open_server(options.transport, Door(options.host, options.grpc_health_port), process.health)
        await health.start()
        background(cleanup, process.keep_saying())
        leadership = await _compete(process, cluster)
        policies = sorted({pool.router.policy.name for pool in process.served})
        log.info(
            "serving",
            policy=",".join(policies),
            port=options.grpc_port,
            worker=options.worker,
            transport=options.transport,
        )
        await stop.wait()
        process.draining = True
        process.say_readiness()
        if leadership is not None:
            await leadership.aclose()
        await _drain(process)
        await health.stop(0)


async def _watch_pools(process: PickerProcess, cleanup: contextlib.AsyncExitStack) -> "Cluster | None":
    """Learn which endpoints there are, now and from now on; the cluster that says so to us, if one does."""
    shares = [(pool, pool.share) for pool in process.served if pool.share is not None]
    if not shares:
        process.keepers, cluster = await watch_pools(process.served, process.options, cleanup)
        return cluster
    collected = [Collected(pool, share) for pool, share in shares]
    process.keepers = [*collected]
    for keeper in collected:
        background(cleanup, keeper.watch())
    return None


async def _open_servers(process: PickerProcess) -> None:
    """The common port, and one for each pool that has its own."""
    options = process.options
    limits = Limits(options.max_receive_bytes, options.max_send_bytes)
    own = [(pool.name, pool.port) for pool in options.pools if pool.port is not None]
    for pool, port in [("", options.grpc_port), *own]:
        door = Door(options.host, port, not options.secure_serving, options.cert_path, options.enable_cert_reload)
        ears = Ears(process.streams, process.logs, pool)
        process.servers.append(await open_server(options.transport, door, process.health, ears, limits))


async def _drain(process: PickerProcess) -> None:
    """Not ready any more: wait until that is known, then no new streams; answers that do not pass through us go on
    without us at once."""
    options, patience_s = process.options, process.options.drain_timeout_s
    if patience_s is None:
        patience_s = process.config.settings.drain_timeout_seconds
    pause_s = options.drain_pause_s
    if pause_s is None:
        pause_s = CLUSTER_PAUSE_S if options.in_cluster else 0.0
    pause_s = min(pause_s, patience_s)
    await asyncio.sleep(pause_s)
    patience_s -= pause_s
    stopping = [asyncio.create_task(server.stop(patience_s)) for server in process.servers]
    left = process.streams.hand_back()
    log.info("draining", streams=left, patience_s=patience_s)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.streams.ended(), patience_s)
    process.logs.close()
    process.health.close()
    await asyncio.gather(*stopping)
    process.streams.close()
    log.info("drained", streams=len(process.streams))


async def _compete(process: PickerProcess, cluster: "Cluster | None") -> contextlib.AsyncExitStack | None:
    """Take part in the election, if there is one; closing what is returned ends that and gives the Lease back."""
    options = process.options
    if cluster is None or not options.leader_election:
        return None
    # Imported here: the client's models take 100 MB, which nobody else needs.
    from picker.server.leader import Leadership, api_client

    candidate = contextlib.AsyncExitStack()
    api = api_client(cluster)
    candidate.push_async_callback(api.close)
    leadership = Leadership(api, options.lease, options.namespace, options.identity, process.lead)
    candidate.push_async_callback(leadership.release)
    background(candidate, leadership.run())
    return candidate


async def _http(process: PickerProcess, cleanup: contextlib.AsyncExitStack) -> None:
    options, served = process.options, process.served
    told = {
        pool.name: [*pool.sources(), *keeper.sources()] for pool, keeper in zip(served, process.keepers, strict=True)
    }
    sources = told[served[0].name] if len(served) == 1 else [Together(told)]
    feeds = {p.name: Feed(p.router, peer_port=options.handoff_peer_port) for p in served}
    shown = {
        p.name: Shown(p.router, p.tallies, p.learning.as_json if p.learning else None, feeds[p.name].page)
        for p in served
    }
    admin = admin_app(shown, time.time() - process.pools.first.clock())
    folder = options.metrics_cert_dir
    tls = None if folder is None else metrics_context(folder, options.metrics_client_ca_file)
    listening = [
        (metrics_app([*sources, ConnectionMetrics(process.servers)]), options.host, options.metrics_port, tls),
        (admin, "127.0.0.1", options.admin_port, None),
    ]
    if options.handoff_port is not None and options.handoff_token_file is not None:
        folder, ca = options.handoff_cert_dir, options.handoff_client_ca_file
        proxies_tls = None if folder is None else metrics_context(folder, ca)
        listening.append((feed_app(feeds, options.handoff_token_file), options.host, options.handoff_port, proxies_tls))
    for app, host, port, context in listening:
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        cleanup.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, host, port, ssl_context=context).start()


async def _join_workers(process: PickerProcess, cleanup: contextlib.AsyncExitStack) -> None:
    options, pools = process.options, process.pools
    mailbox = Mailbox(run_folder(options), options.worker, options.workers, pools.logged, pools.doubt)
    await mailbox.open()
    cleanup.callback(mailbox.close)
    for pool in process.served:
        pool.service.relay = mailbox

    async def heartbeat() -> None:
        while True:
            if pools.first.access_log_streams:
                mailbox.say_alive()
            await asyncio.sleep(HEARTBEAT_S)

    background(cleanup, heartbeat())
