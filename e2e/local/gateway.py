"""The whole request path as child processes, a client that asks it, and engines that a test can play itself."""

import asyncio
import contextlib
import itertools
import json
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from picker.server.envoy import RequestMode, ResponsePath
from picker.server.processes import Child, Children
from picker.server.up.ports import HOST
from picker.server.up.stack import EngineAddress, SimulatedEngines, Stack, engine_argv

GPU = "h100_sxm/llama-3-8b tp1"
PATIENCE_S = 120.0
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
COLLECTOR = 4
"""Of two workers: its metrics port comes after their metrics and admin ports, and so is that of "worker" 4."""
_numbers = itertools.count()


def chat(words: str = "tell me a story", *, stream: bool = False, max_tokens: int = 8, **more: Any) -> dict[str, Any]:
    """A chat body; every one has a prompt of its own unless `words` repeat."""
    body = {"model": "sim", "messages": [{"role": "user", "content": words}], "max_tokens": max_tokens, **more}
    return {**body, "stream": True, "stream_options": {"include_usage": True}} if stream else body


def new_words(count: int = 100) -> str:
    """A prompt that nobody sent before."""
    return f"{next(_numbers)} " + "word " * count


@dataclass(slots=True)
class Reply:
    """An answer as its client saw it. `whole`: nothing cut it off, and an event stream has its last event."""

    request_id: str
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    whole: bool = False
    began: float = 0.0
    ended: float = 0.0
    first_bytes: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ok(self) -> bool:
        return self.status == 200 and self.whole

    def json(self) -> Any:
        return json.loads(self.body)

    def usage(self) -> dict[str, Any]:
        """Token counts, from the last event that has some or from the one JSON body."""
        if not self.headers["content-type"].startswith("text/event-stream"):
            parts = [self.json()]
        else:
            parts = [json.loads(line[6:]) for line in self.body.splitlines() if line.startswith(b"data: {")]
        usage: dict[str, Any] = next(part["usage"] for part in reversed(parts) if part.get("usage"))
        return usage


@dataclass(slots=True)
class Gateway:
    """A running stack and its client. `settings` and `argv` are its picker's."""

    stack: Stack
    session: aiohttp.ClientSession
    settings: Mapping[str, object] = field(default_factory=dict)
    argv: Sequence[str] = ()

    @property
    def picker(self) -> Child:
        """The latest, be it running or not."""
        assert self.stack.picker is not None, "no picker was started"
        return self.stack.picker

    @property
    def envoy(self) -> Child:
        """The latest."""
        assert self.stack.envoy is not None, "no Envoy was started"
        return self.stack.envoy

    async def ask(
        self, body: Any = None, path: str = CHAT, headers: Mapping[str, str] | None = None, reply: Reply | None = None
    ) -> Reply:
        """Send one request (GET without a body) and read the whole answer, or as much as there is of it."""
        reply = reply or Reply(f"e2e-{next(_numbers)}")
        sent = {"x-request-id": reply.request_id, "content-type": "application/json", **(headers or {})}
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        reply.began = time.monotonic()
        received = bytearray()
        try:
            async with self.session.request(
                "GET" if data is None else "POST", self.stack.url + path, data=data, headers=sent
            ) as response:
                reply.status, reply.headers = response.status, response.headers
                async for chunk in response.content.iter_any():
                    received += chunk
                    reply.first_bytes.set()
            streamed = response.content_type == "text/event-stream"
            reply.whole = not streamed or received.endswith(b"data: [DONE]\n\n")
        except aiohttp.ClientError:
            pass  # cut off, or refused: `whole` and `status` tell
        finally:
            reply.body, reply.ended = bytes(received), time.monotonic()
            reply.first_bytes.set()
        return reply

    async def begin(self, body: Any, path: str = CHAT) -> tuple[Reply, asyncio.Task[Reply]]:
        """Send one request; returns when its first bytes are here, or its end."""
        reply = Reply(f"e2e-{next(_numbers)}")
        task = asyncio.create_task(self.ask(body, path, reply=reply))
        await asyncio.wait_for(reply.first_bytes.wait(), PATIENCE_S)
        return reply, task

    async def picked(self, body: Any) -> tuple[Reply, asyncio.Task[Reply], dict[str, Any]]:
        """Send one request; returns when it was picked for, with the decision."""
        reply = Reply(f"e2e-{next(_numbers)}")
        task = asyncio.create_task(self.ask(body, reply=reply))
        found: list[dict[str, Any]] = await until(lambda: self.decisions(reply.request_id))
        return reply, task, found[0]

    async def begin_many(self, count: int, **body: Any) -> tuple[list[Reply], list[asyncio.Task[Reply]]]:
        """So many streamed answers under way."""
        begun = await asyncio.gather(*(self.begin(chat(new_words(), stream=True, **body)) for _ in range(count)))
        return [reply for reply, _ in begun], [task for _, task in begun]

    async def get(self, url: str) -> Any:
        async with self.session.get(url) as response:
            return await response.json()

    async def pool(self) -> dict[str, dict[str, Any]]:
        """The endpoints' rows by address, own counts summed over all workers."""
        return {row["address"]: row for row in await self.stack.endpoints(self.session)}

    async def at_rest(self) -> None:
        """Wait until the ledger holds nothing."""

        async def empty() -> bool:
            return all(row["in_flight"] == 0 == row["queued_tokens"] for row in (await self.pool()).values())

        await until(empty)

    async def decisions(self, request_id: str) -> list[dict[str, Any]]:
        """What any worker's decision log says of a request, newest first."""
        host, _, port = self.stack.admin.rpartition(":")
        found = [
            await self.get(f"{host}:{int(port) + worker}/decisions/{request_id}")
            for worker in range(self.stack.workers)
        ]
        return [decision for each in found if isinstance(each, list) for decision in each]

    async def decided(self, request_id: str) -> dict[str, Any]:
        """The decision about a request, once its outcome is known."""

        async def known() -> dict[str, Any] | None:
            found = await self.decisions(request_id)
            return found[0] if found and found[0]["outcome"] is not None else None

        decision: dict[str, Any] = await until(known)
        return decision

    async def metric(self, name: str, worker: int = 0, **labels: str) -> float:
        """Sum of a metric's samples that have these labels."""
        host, _, port = self.stack.metrics.rpartition(":")
        async with self.session.get(f"{host}:{int(port) + worker}/metrics") as response:
            families = text_string_to_metric_families(await response.text())
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    async def start_picker(self) -> None:
        """A new picker at the place of one that is gone, unless there is one."""
        if not self.picker.running:
            await self.stack.start_picker(self.settings, self.argv)

    def engine(self, address: str) -> Child:
        """The process of a simulated engine."""
        port = address.rpartition(":")[2]
        return next(c for c in reversed(self.stack.children.all) if c.name.startswith(f"engine-at-{port}"))

    async def start_engine(self, spec: SimulatedEngines, at: EngineAddress) -> None:
        """A new engine at the place of one that is gone."""
        places = (at.address, at.kv_events, at.kv_replay)
        port, events, replay = (int(str(place).rpartition(":")[2]) for place in places)
        await self.stack.children.start(f"engine-at-{port}", engine_argv(port, events, replay, at.gpu, spec))

        async def answers() -> bool:
            with contextlib.suppress(aiohttp.ClientError):
                async with self.session.get(f"http://{at.address}/health") as response:
                    return response.status == 200
            return False

        await until(answers)


async def until(condition: Callable[[], Awaitable[Any]], patience_s: float = PATIENCE_S) -> Any:
    """Poll until `condition` gives something true; returns it."""
    async with asyncio.timeout(patience_s):
        while not (found := await condition()):
            await asyncio.sleep(0.02)
    return found


def child_with(running: Gateway, *argv: str) -> psutil.Process | None:
    """The child of the supervisor that was called with these arguments, in a row."""
    for child in psutil.Process(running.picker.pid).children():
        command = child.cmdline() if child.status() != psutil.STATUS_ZOMBIE else []
        if any(tuple(command[i : i + len(argv)]) == argv for i in range(len(command))):
            return child
    return None


@contextlib.asynccontextmanager
async def gateway(
    path: ResponsePath = "access-log",
    mode: RequestMode = "full-duplex",
    *,
    engines: int = 2,
    speedup: float = 10.0,
    options: Sequence[str] = (),
    more: Sequence[EngineAddress] = (),
    rewire: Callable[[EngineAddress], EngineAddress] = lambda engine: engine,
    workers: int = 1,
    settings: Mapping[str, object] | None = None,
    argv: Sequence[str] = (),
    tls: bool = False,
    expected: str = "no error",
) -> AsyncIterator[Gateway]:
    """Engines (simulated ones, and `more`), picker and Envoy, up; stopped at the end, when the picker's log must be
    free of errors but for the event `expected`. `rewire`: where the picker shall find an engine's KV events."""
    with tempfile.TemporaryDirectory(prefix="picker-e2e-") as folder:
        children = Children(Path(folder) / "logs")
        stack = Stack(children, Path(folder), workers=workers)
        try:
            async with aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=60), connector=aiohttp.TCPConnector(limit=0)
            ) as session:
                if engines:
                    await stack.start_simulated(SimulatedEngines([GPU] * engines, speedup, options=options))
                for child, engine in zip(children.all, stack.engines, strict=True):
                    child.name = f"engine-at-{engine.address.rpartition(':')[2]}"
                stack.engines = [rewire(engine) for engine in stack.engines] + [*more]
                running = Gateway(stack, session, {"responsePath": path, **(settings or {})}, argv)
                await stack.start_picker(running.settings, argv)
                await stack.start_envoy(path, mode, tls=tls)
                yield running
                picker_log = running.picker.log.read_text()
        except BaseException:
            for child in children.all:
                print(f"--- {child.name}, exit status {child.process.returncode}\n{child.tail(30)}")
            raise
        finally:
            await children.stop()
    for line in picker_log.splitlines():
        assert '"level": "error"' not in line or expected in line, picker_log
        assert "Traceback" not in line, picker_log


@dataclass(slots=True)
class Heard:
    """A request as an engine saw it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Scribe:
    """An engine that writes down what it hears. Its /metrics never answer when it is `mute`; it answers no request at
    all, but breaks the connection, when it `breaks`. All others it answers with `status`."""

    mute: bool = False
    breaks: bool = False
    status: int = 200
    heard: list[Heard] = field(default_factory=list)
    address: str = ""

    @property
    def last(self) -> Heard:
        return self.heard[-1]

    async def serve(self, request: web.Request) -> web.Response:
        if request.path == "/metrics":
            if self.mute:
                await asyncio.sleep(3600)
            return web.Response(text="vllm:num_requests_running 0\nvllm:num_requests_waiting 0\n")
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.heard.append(Heard(request.method, request.path, headers, await request.read()))
        if self.breaks and request.transport is not None:
            request.transport.abort()
        return web.json_response({"usage": {"prompt_tokens": 5, "completion_tokens": 1}}, status=self.status)


@contextlib.asynccontextmanager
async def scribe(*, mute: bool = False, breaks: bool = False) -> AsyncIterator[Scribe]:
    """A Scribe that listens."""
    engine = Scribe(mute, breaks)
    app = web.Application(client_max_size=64 << 20)
    app.router.add_route("*", "/{path:.*}", engine.serve)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        engine.address = f"{HOST}:{runner.addresses[0][1]}"
        yield engine
    finally:
        await runner.cleanup()
