"""`picker engine`: one simulated engine that speaks vLLM's HTTP API, metrics and KV events."""

import asyncio
import contextlib
import itertools
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any

import click
import msgspec
import uvloop
from aiohttp import web
from prometheus_client.exposition import choose_encoder

from picker.server.engine_clock import Answer, EngineClock, warm
from picker.server.engine_events import KvEvents
from picker.server.engine_metrics import EngineMetrics
from picker.simulator import toy, vllm_api, vllm_events
from picker.simulator.blocks import chain_hashes
from picker.simulator.engine import Engine
from picker.simulator.sequence import EngineRequest, Limits, Refused, Step
from picker.simulator.steptime import DEFAULT_ROW, load_row
from picker.simulator.vllm_api import ApiError, Ask, Voice

MAX_BODY_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Port 0 takes a free one; `kv_tokens` None is the row's capacity; the event ports None publish nothing."""

    host: str = "127.0.0.1"
    port: int = 8000
    model: str = "sim"
    gpu: str = DEFAULT_ROW
    speedup: float = 1.0
    block_size: int = 16
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    max_model_len: int | None = None
    kv_tokens: int | None = None
    alpha: float = 0.0
    host_ms: float = 0.0
    max_waiting: int = 4096
    kv_events_port: int | None = None
    replay_port: int | None = None
    drain_s: float = 30.0
    seed: int = 0


class EngineServer:
    """One engine behind HTTP. `address` is host:port once it listens."""

    def __init__(self, options: EngineOptions) -> None:
        """Raises ValueError for options that no engine starts with, OSError for an event port that is taken."""
        if not options.speedup > 0:
            raise ValueError("speedup must be positive")
        row = replace(load_row(options.gpu), alpha=options.alpha, host_ms=options.host_ms)
        limits = Limits(
            options.block_size,
            options.max_num_seqs,
            options.max_num_batched_tokens,
            options.max_model_len,
            options.max_waiting,
        )
        self.options = options
        publishes = options.kv_events_port is not None
        self.engine = Engine(row, limits, kv_tokens=options.kv_tokens, events=publishes)
        self.metrics = EngineMetrics(self.engine, options.model)
        self.clock = EngineClock(self.engine, options.speedup, self._stepped, self._emitted)
        self.draining = False
        self.address = ""
        self.events: KvEvents | None = None
        if options.kv_events_port is not None:
            self.events = KvEvents(options.host, options.kv_events_port, options.replay_port)
        self._ids = itertools.count()

    def listening(self, address: str) -> None:
        self.address = address
        if self.events is not None:
            self.events.topic = f"kv@{address}@{self.options.model}".encode()

    async def run(self) -> None:
        """Step the engine and serve replays, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.clock.run())
            if self.events is not None:
                tasks.create_task(self.events.answer_replays())

    def app(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_json_errors])
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._completion)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/detokenize", self._detokenize)
        app.router.add_post("/reset_prefix_cache", self._reset)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        return app

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, vllm_api.read_chat(await request.read(), self.options.model))

    async def _completion(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(request, vllm_api.read_completion(await request.read(), self.options.model))

    async def _generate(self, request: web.Request, ask: Ask) -> web.StreamResponse:
        answer = self._submit(ask)
        voice = Voice.of(ask.kind, self.options.model, request.headers.get("X-Request-Id", ""), time.time())
        try:
            if ask.stream:
                return await self._stream(request, voice, answer, ask)
            return await self._whole(voice, answer)
        finally:
            if self.clock.abort(answer):
                self.metrics.finished["abort"] += 1

    def _submit(self, ask: Ask) -> Answer:
        """Raises ApiError."""
        if self.draining:
            raise ApiError(503, "The engine is shutting down.")
        room = self.engine.max_model_len - len(ask.tokens)
        if room < (ask.max_tokens or 1):
            limit = self.engine.max_model_len
            raise ApiError(
                400,
                f"This model's maximum context length is {limit} tokens. However, you requested {ask.max_tokens or 1} "
                f"output tokens and your prompt contains {len(ask.tokens)} input tokens.",
                param="max_tokens",
            )
        seed, size = self.options.seed, self.options.block_size
        count = ask.max_tokens or toy.drawn_length(ask.tokens, seed, room)
        tokens = ask.tokens + toy.continuation(ask.tokens, count, seed)
        hashes = chain_hashes(tokens, size, ask.salt)
        request = EngineRequest(str(next(self._ids)), len(ask.tokens), count, hashes, tokens, ask.salt)
        try:
            return self.clock.submit(request, "stop" if ask.max_tokens is None else "length")
        except Refused as refused:
            raise ApiError(503 if refused.reason == "queue-full" else 400, str(refused)) from None

    async def _whole(self, voice: Voice, answer: Answer) -> web.StreamResponse:
        async for _ in answer.progress():
            pass
        body = voice.whole(_text(answer, 0, answer.produced), answer.finish, _usage(answer))
        return web.Response(body=body, content_type="application/json")

    async def _stream(self, request: web.Request, voice: Voice, answer: Answer, ask: Ask) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        async for start, end in answer.progress():
            prompt = ask.tokens if ask.token_ids and not start else None
            ids = _tokens(answer, start, end) if ask.token_ids else None
            opening = b"" if start else voice.opening(prompt)
            finish = answer.finish if end == answer.sequence.request.output_tokens else None
            await response.write(opening + voice.chunk(_text(answer, start, end), finish, ids, prompt))
        closing = voice.usage(_usage(answer)) if ask.include_usage else b""
        await response.write(closing + vllm_api.DONE)
        await response.write_eof()
        return response

    async def _tokenize(self, request: web.Request) -> web.Response:
        tokens = vllm_api.read_tokenize(await request.read(), self.options.model)
        return _json({"count": len(tokens), "max_model_len": self.engine.max_model_len, "tokens": tokens})

    async def _detokenize(self, request: web.Request) -> web.Response:
        return _json({"prompt": vllm_api.read_detokenize(await request.read(), self.options.model)})

    async def _reset(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self.engine.reset_prefix_cache() else 409)

    async def _models(self, _: web.Request) -> web.Response:
        model = {"id": self.options.model, "object": "model", "owned_by": "picker", "root": self.options.gpu}
        return _json({"object": "list", "data": [model | {"max_model_len": self.engine.max_model_len}]})

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(status=503 if self.draining else 200)

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self.metrics.registry), headers={"Content-Type": content_type})

    def _stepped(self, step: Step) -> None:
        if self.events is not None and step.events:
            self.events.publish(vllm_events.encode_batch(time.time(), step.events, self.options.block_size))

    def _emitted(self, answer: Answer, gap_s: float) -> None:
        (self.metrics.ttft_s if answer.produced == 1 else self.metrics.itl_s).observe(gap_s)
        if answer.sequence.finished:
            self.metrics.finished[answer.finish] += 1
            self.metrics.e2e_s.observe(time.monotonic() - answer.arrived_s)


def _tokens(answer: Answer, start: int, end: int) -> list[int]:
    request = answer.sequence.request
    return list(request.tokens[request.prompt_tokens + start : request.prompt_tokens + end])


def _text(answer: Answer, start: int, end: int) -> str:
    return toy.decode(_tokens(answer, start, end))


def _usage(answer: Answer) -> dict[str, Any]:
    request = answer.sequence.request
    return vllm_api.usage(request.prompt_tokens, request.output_tokens, answer.sequence.cached_tokens or 0)


def _json(body: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")


@web.middleware
async def _json_errors(request: web.Request, handler: Callable[..., Any]) -> web.StreamResponse:
    try:
        response: web.StreamResponse = await handler(request)
    except ApiError as error:
        return _json(error.body(), error.status)
    except web.HTTPRequestEntityTooLarge:
        return _json(ApiError(400, f"the body is larger than {MAX_BODY_BYTES} bytes").body(), 400)
    return response


@contextlib.asynccontextmanager
async def running(options: EngineOptions) -> AsyncIterator[EngineServer]:
    """A server that listens; left, it drains for up to `drain_s` and then aborts what is still here.

    Raises ValueError or OSError where it cannot start.
    """
    server = EngineServer(options)
    warm()
    runner = web.AppRunner(server.app(), access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    try:
        await runner.setup()
        site = web.TCPSite(runner, options.host, options.port)
        await site.start()
        server.listening(f"{options.host}:{runner.addresses[0][1]}")
        async with asyncio.TaskGroup() as tasks:
            stepping = tasks.create_task(server.run())
            yield server
            server.draining = True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(server.clock.until_idle(), options.drain_s)
            await runner.cleanup()
            stepping.cancel()
    finally:
        await runner.cleanup()
        if server.events is not None:
            server.events.close()


async def serve(options: EngineOptions) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raises ValueError or OSError where it cannot start."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running(options) as server:
        click.echo(f"engine {options.model} ({options.gpu}) on http://{server.address}", err=True)
        await stop.wait()


_PORT = click.IntRange(0, 65535)


@click.command(context_settings={"show_default": True})
@click.option("--host", default="127.0.0.1")
@click.option("--port", type=_PORT, default=8000, help="HTTP; 0 takes a free one.")
@click.option("--model", default="sim", help="The model name that is served.")
@click.option("--gpu", default=DEFAULT_ROW, help="Row of the step-time table: gpu/model.")
@click.option("--speedup", type=click.FloatRange(min=0, min_open=True), default=1.0, help="Model time over wall time.")
@click.option("--block-size", type=click.IntRange(1), default=16, help="Tokens of one KV block.")
@click.option("--max-num-seqs", type=click.IntRange(1), default=256)
@click.option("--max-num-batched-tokens", type=click.IntRange(1), default=8192)
@click.option("--max-model-len", type=click.IntRange(2), help="Default: the whole KV cache.")
@click.option("--kv-tokens", type=click.IntRange(1), help="KV capacity; default: the row's.")
@click.option("--alpha", type=click.FloatRange(0), default=0.0, help="Price of unequal lengths in a batch.")
@click.option("--host-ms", type=click.FloatRange(0), default=0.0, help="CPU time between two steps, in ms.")
@click.option("--max-waiting", type=click.IntRange(1), default=4096, help="Queued requests; then 503.")
@click.option("--kv-events-port", type=_PORT, help="ZMQ PUB of KV events; none when not given.")
@click.option("--replay-port", type=_PORT, help="ZMQ ROUTER that replays KV events.")
@click.option("--drain-timeout", "drain_s", type=click.FloatRange(0), default=30.0, help="Seconds after SIGTERM.")
@click.option("--seed", type=int, default=0, help="Of answers and of lengths that are not asked for.")
def engine(**given: Any) -> None:
    """One simulated engine: vLLM's API, metrics and KV events, timed by a step model."""
    try:
        uvloop.run(serve(EngineOptions(**given)))
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
