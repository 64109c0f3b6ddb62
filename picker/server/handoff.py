"""`picker handoff`: the proxy beside one engine, which moves running requests and outlives the engine's death."""

import asyncio
import contextlib
import signal
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import uvloop
from aiohttp import web
from prometheus_client.exposition import choose_encoder

from picker.handoff import wire
from picker.handoff.attempts import FailoverSettings
from picker.handoff.line import Line
from picker.handoff.members import MAX_BYTES, Members, base_url, read
from picker.server.handoff_agent import MESSAGES, AgentAtWork
from picker.server.handoff_calls import Calls
from picker.server.handoff_flights import Flights
from picker.server.handoff_follow import PlanFeed
from picker.server.handoff_metrics import HandoffMetrics
from picker.server.handoff_proxy import MAX_BODY_BYTES, Proxy
from picker.server.handoff_relay import Site
from picker.server.handoff_tls import PoolTls
from picker.server.handoff_token import read_token
from picker.stages.agent_state import BidSettings
from picker.telemetry import logs

MEMBERS = "/handoff/members"


@dataclass(frozen=True, slots=True)
class HandoffOptions:
    """`name` is this proxy's in the membership; port 0 takes a free one; without a `token` it knows no peers. `picker`,
    if not empty, is the base URL that tells the membership of `pool` (its first one if empty) and the plan. With
    `cert_dir` peers come to `peer_port` alone, by mutual TLS."""

    name: str
    engine: str
    host: str = "0.0.0.0"
    port: int = 8000
    members: Members = field(default_factory=Members)
    picker: str = ""
    pool: str = ""
    token: str | None = None
    cert_dir: Path | None = None
    peer_port: int = 0
    moves: bool = True
    pull: bool = False
    failover: FailoverSettings = field(default_factory=FailoverSettings)
    bids: BidSettings = field(default_factory=BidSettings)


class HandoffServer:
    """One proxy. `address` is host:port once it listens."""

    def __init__(self, options: HandoffOptions) -> None:
        """Raises ValueError for a picker that cannot be asked, OSError for certificates that cannot be used."""
        self.options, self.members, self.address, self.peer_address = options, options.members, "", ""
        self.tls = None if options.cert_dir is None else PoolTls(options.cert_dir)
        self.flights = Flights(options.name)
        self.metrics = HandoffMetrics(
            lambda: sum(flight.stream.begun for flight in self.flights.here()), lambda: self.agent.wait_ms / 1e3
        )
        calls = Calls(
            options.name, base_url(options.engine), options.token, options.failover, lambda: self.members, self.tls
        )
        self.site = Site(calls, self.flights, self.metrics, options.failover, Line())
        self.proxy = Proxy(self.site, options.token)
        self.agent = AgentAtWork(self.site, options.bids, pull=options.pull)
        self._registry = self.metrics.registry()
        self.feed: PlanFeed | None = None
        if options.picker:
            if options.token is None:
                raise ValueError("a picker tells its plan only to those who have the pool's token")
            self.feed = PlanFeed(options.picker, options.name, options.token, self.follow, options.pool, self.tls)
            self._registry.register(self.feed)

    def follow(self, members: Members) -> None:
        """The plan or the pool changed."""
        self.members = members
        if self.options.moves:
            self.agent.follow(members)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_get("/handoff/metrics", self._metrics)
        if self.tls is None:
            self._for_peers(app)
        self.proxy.for_clients(app)
        return app

    def peers_app(self) -> web.Application:
        """What peers alone see, where there is mutual TLS."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        self._for_peers(app)
        return app

    def _for_peers(self, app: web.Application) -> None:
        app.router.add_put(MEMBERS, self._members)
        app.router.add_post(MESSAGES, self._messages)
        self.proxy.for_peers(app)

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": content_type})

    async def _members(self, request: web.Request) -> web.Response:
        data = await self._from_peer(request)
        try:
            self.follow(read(data))
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        return web.Response(status=204)

    async def _messages(self, request: web.Request) -> web.Response:
        data = await self._from_peer(request)
        try:
            self.agent.receive(wire.decode(data))
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        return web.Response(status=204)

    async def _from_peer(self, request: web.Request) -> bytes:
        if not self.proxy.is_peer(request):
            raise web.HTTPNotFound
        data = await request.content.read(MAX_BYTES + 1)
        while len(data) <= MAX_BYTES and (more := await request.content.readany()):
            data += more
        if len(data) > MAX_BYTES:
            raise web.HTTPRequestEntityTooLarge(max_size=MAX_BYTES, actual_size=len(data))
        return data


@contextlib.asynccontextmanager
async def running(options: HandoffOptions) -> AsyncIterator[HandoffServer]:
    """A proxy that listens. Raises ValueError or OSError where it cannot start."""
    server = HandoffServer(options)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(server.site.calls.close)
        server.address = await _listen(stack, server.app(), options.host, options.port)
        if server.tls is not None:
            peers = server.peers_app()
            server.peer_address = await _listen(stack, peers, options.host, options.peer_port, server.tls.server)
        server.follow(options.members)
        async with asyncio.TaskGroup() as tasks:
            working = [tasks.create_task(server.agent.run())]
            if server.feed is not None:
                working.append(tasks.create_task(server.feed.run()))
            yield server
            for task in working:
                task.cancel()


async def _listen(
    stack: contextlib.AsyncExitStack, app: web.Application, host: str, port: int, tls: ssl.SSLContext | None = None
) -> str:
    """host:port where the app is served until the stack ends. Raises OSError."""
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    stack.push_async_callback(runner.cleanup)
    await runner.setup()
    await web.TCPSite(runner, host, port, ssl_context=tls).start()
    return f"{host}:{runner.addresses[0][1]}"


async def serve(options: HandoffOptions, drain_s: float) -> None:
    """Serve until SIGTERM or SIGINT, then wait for the streams that run."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    logs.configure("info")
    async with running(options) as server:
        click.echo(f"handoff {options.name} for {options.engine} on http://{server.address}", err=True)
        await stop.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(server.flights.until_none(), drain_s)


_BIDS, _FAILOVER = BidSettings(), FailoverSettings()
_SECONDS = click.FloatRange(min=0, min_open=True)


@click.command(context_settings={"show_default": True})
@click.option("--name", required=True, help="This proxy's name in the membership.")
@click.option("--engine", required=True, help="The engine beside it: http://host:port.")
@click.option("--host", default="0.0.0.0")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, help="For clients and peers; 0 takes a free one.")
@click.option(
    "--members", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Membership at start, JSON."
)
@click.option("--picker", default="", help="Who tells membership and plan: http(s)://host:port of its --handoff-port.")
@click.option("--pool", default="", help="Which of the picker's pools; its first if not given.")
@click.option(
    "--pool-token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The secret that all proxies of the pool share; without it, no peers: no moves, no failover.",
)
@click.option(
    "--cert-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="tls.crt, tls.key and ca.crt: mutual TLS with peers, on --peer-port, and with the picker.",
)
@click.option("--peer-port", type=click.IntRange(0, 65535), default=8443, help="For peers, with --cert-dir.")
@click.option("--failover/--no-failover", default=True, help="Go on elsewhere when an engine breaks under a request.")
@click.option("--moves/--no-moves", default=True, help="Bid for and give away running requests.")
@click.option(
    "--kv",
    type=click.Choice(["compute", "pull"]),
    default="compute",
    help="How KV gets to a peer: computed there, or pulled by the engines' NixlConnector.",
)
@click.option("--max-transfers", type=click.IntRange(1, 64), default=_BIDS.transfers, help="At once, either way.")
@click.option(
    "--least-gain-ms",
    type=click.FloatRange(0),
    default=_BIDS.move_ms,
    help="A move must save more than this, and than the median gap.",
)
@click.option(
    "--max-deaths",
    type=click.IntRange(1, 16),
    default=_FAILOVER.deaths,
    help="Engines that may break under one request.",
)
@click.option(
    "--silence-timeout",
    "silence_s",
    type=_SECONDS,
    default=_FAILOVER.silence_s,
    help="Seconds between bytes of a stream.",
)
@click.option("--first-timeout", "first_s", type=_SECONDS, default=_FAILOVER.first_s, help="Seconds before the first.")
@click.option(
    "--failover-timeout",
    "within_s",
    type=_SECONDS,
    default=_FAILOVER.within_s,
    help="Seconds to find another engine.",
)
@click.option("--drain-timeout", "drain_s", type=click.FloatRange(0), default=300.0, help="Seconds after SIGTERM.")
def handoff(
    name: str, engine: str, members: Path | None, pool_token_file: Path | None, kv: str, drain_s: float, **given: Any
) -> None:
    """The proxy beside an engine: moves running requests, and goes on elsewhere when the engine dies."""
    failover = FailoverSettings(
        on=given["failover"],
        deaths=given["max_deaths"],
        within_s=given["within_s"],
        silence_s=given["silence_s"],
        first_s=given["first_s"],
    )
    try:
        options = HandoffOptions(
            name=name,
            engine=base_url(engine),
            host=given["host"],
            port=given["port"],
            members=Members() if members is None else read(members.read_bytes()),
            picker=base_url(given["picker"]) if given["picker"] else "",
            pool=given["pool"],
            token=read_token(pool_token_file),
            cert_dir=given["cert_dir"],
            peer_port=given["peer_port"],
            moves=given["moves"],
            pull=kv == "pull",
            failover=failover,
            bids=BidSettings(
                transfers=given["max_transfers"], move_ms=given["least_gain_ms"], computes=kv == "compute"
            ),
        )
        uvloop.run(serve(options, drain_s))
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
