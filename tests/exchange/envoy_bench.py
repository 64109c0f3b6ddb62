"""A real Envoy between a small HTTP engine and a small gRPC picker made of exchanges alone."""

import asyncio
import contextlib
import hashlib
import json
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp
import grpc
import yaml
from aiohttp import web

from picker.exchange.access_log import AccessRecord, decode
from picker.exchange.events import Event, RequestArrived
from picker.exchange.machine import Answer, Exchange, ExchangeSettings
from picker.server.envoy import EnvoySpec, bootstrap

Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"
HOST = "127.0.0.1"
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 4}}
STREAM = [
    *(b'data: {"i": %d, "usage": null}\n\n' % i for i in range(20)),
    b"data: %s\n\n" % json.dumps({"usage": USAGE}).encode(),
    b"data: [DONE]\n\n",
]


def free_ports(count: int) -> list[int]:
    """Ports nobody listened on a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


@dataclass
class Picker:
    """Sends every request to `destinations`; remembers what its exchanges and the access log told."""

    destinations: tuple[str, ...]
    settings: ExchangeSettings = field(default_factory=ExchangeSettings)
    decide: Callable[[Exchange, RequestArrived, int], object] | None = None
    events: list[list[Event]] = field(default_factory=list)
    records: list[AccessRecord] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def process(self, _: object, context: Any) -> None:
        exchange = Exchange(self.settings)
        mine: list[Event] = []
        self.events.append(mine)
        flight = len(self.events)
        try:
            while not exchange.done and (message := await context.read()) is not grpc.aio.EOF:
                for event in exchange.receive(message):
                    mine.append(event)
                    if isinstance(event, RequestArrived):
                        self._answer(exchange, event, flight)
                for reply in exchange.data_to_send():
                    await context.write(reply)
        finally:
            mine += exchange.disconnected()
            async with self.changed:
                self.changed.notify_all()

    async def log(self, _: object, context: Any) -> bytes:
        while (message := await context.read()) is not grpc.aio.EOF:
            self.records += decode(message)
            async with self.changed:
                self.changed.notify_all()
        return b""

    def _answer(self, exchange: Exchange, arrived: RequestArrived, flight: int) -> None:
        if self.decide is not None:
            self.decide(exchange, arrived, flight)
        else:
            exchange.answer(Answer(self.destinations, flight=str(flight)))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a stream's end or a log message makes `condition` true."""
        async with self.changed:
            await asyncio.wait_for(self.changed.wait_for(condition), 10)

    async def reported(self) -> None:
        """Wait until the access log speaks of the first byte of the latest request, whose answer still runs."""
        flight = len(self.events)
        await self.until(lambda: any(r.flight == flight and r.ttft_s is not None for r in self.records))

    @contextlib.asynccontextmanager
    async def serving(self, port: int) -> AsyncIterator[None]:
        server = grpc.aio.server(options=[("grpc.max_receive_message_length", 64 << 20)])
        process: Handler = grpc.stream_stream_rpc_method_handler(self.process)
        log: Handler = grpc.stream_unary_rpc_method_handler(self.log)
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    "envoy.service.ext_proc.v3.ExternalProcessor", {"Process": process}
                ),
                grpc.method_handlers_generic_handler(
                    "envoy.service.accesslog.v3.AccessLogService", {"StreamAccessLogs": log}
                ),
            )
        )
        server.add_insecure_port(f"{HOST}:{port}")
        await server.start()
        try:
            yield
        finally:
            await server.stop(0)


async def no_wait() -> None:
    """Nothing to wait for."""


@dataclass
class Engine:
    """Says what it got, as JSON at once, or as an event stream that waits in its middle for `midway`."""

    midway: Callable[[], Awaitable[None]]

    async def serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        seen = {"bytes": len(body), "sha": hashlib.sha256(body).hexdigest(), "headers": headers}
        if request.path != "/stream":
            return web.json_response({"seen": seen, "usage": USAGE})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):  # a client may go away in the middle
            for event in STREAM:
                if event is STREAM[10]:
                    await self.midway()
                await response.write(event)
        return response


@dataclass
class Bench:
    """The running three: ask `session` for paths of `url`."""

    url: str
    engine_address: str
    picker: Picker
    engine: Engine
    session: aiohttp.ClientSession


@contextlib.asynccontextmanager
async def running(folder: Path, *, detach: bool = False, **spec: Any) -> AsyncIterator[Bench]:
    """Start engine, picker and Envoy (`spec`: fields of EnvoySpec); stop them all at the end."""
    listener, admin, picker_port, engine_port = free_ports(4)
    address = f"{HOST}:{engine_port}"
    picker = Picker((address,), ExchangeSettings(detach=detach))
    engine = Engine(no_wait if spec.get("response_path") == "echo" else picker.reported)
    config = bootstrap(
        EnvoySpec(listener_port=listener, admin_port=admin, picker_ports=(picker_port,), endpoints=(address,), **spec)
    )
    file = folder / "envoy.yaml"
    file.write_text(yaml.safe_dump(config))
    async with contextlib.AsyncExitStack() as stack:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", engine.serve)
        runner = web.AppRunner(app)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, HOST, engine_port).start()
        await stack.enter_async_context(picker.serving(picker_port))
        await stack.enter_async_context(_envoy(file))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        await _until_ready(session, f"http://{HOST}:{admin}/ready")
        yield Bench(f"http://{HOST}:{listener}", address, picker, engine, session)


@contextlib.asynccontextmanager
async def _envoy(file: Path) -> AsyncIterator[None]:
    binary = Path(sys.executable).with_name("envoy")
    arguments = ["-c", str(file), "--concurrency", "1", "--disable-hot-restart", "-l", "critical"]
    process = await asyncio.create_subprocess_exec(binary, *arguments, stderr=asyncio.subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        await process.wait()


async def _until_ready(session: aiohttp.ClientSession, url: str) -> None:
    for _ in range(400):
        with contextlib.suppress(aiohttp.ClientError):
            async with session.get(url) as response:
                if response.status == 200:
                    return
        await asyncio.sleep(0.025)
    raise AssertionError("Envoy did not become ready")
