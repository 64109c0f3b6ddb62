"""Engines that can be told to die, and a proxy beside each."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from picker.handoff import members as handoff_members
from picker.handoff.attempts import FailoverSettings
from picker.server.handoff import HandoffOptions, HandoffServer, running

sys.path.append(str(Path(__file__).parents[1] / "handoff"))
import model_engine

TOKEN = "a-secret-of-the-pool"
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 60, "seed": 1}
PROMPT = [1, 2, 3]
CONTEXT = len(PROMPT) + 16
EXPORTED = {"do_remote_prefill": True, "remote_host": "127.0.0.1", "remote_num_tokens": 7}
PAGE = """vllm:num_requests_running 1
vllm:num_requests_waiting 0
vllm:kv_cache_usage_perc 0.1
vllm:cache_config_info{block_size="16",num_gpu_blocks="1000"} 1
"""


class Engine:
    """Answers as `model_engine`; `dies_after` events its connection is cut, or it falls silent, or it answers 5xx."""

    def __init__(self, name: str) -> None:
        self.name, self.heard = name, list[tuple[str, dict[str, Any]]]()
        self.headers: list[CIMultiDict[str]] = []
        self.dies_after: int | None = None
        self.silent = False
        self.status = 200
        self.every_s = 0.0
        self.prefills = asyncio.Event()
        """Until it is set, prompts wait."""
        self.prefills.set()
        self.url = ""

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/detokenize", self._detokenize)
        app.router.add_route("*", "/{path:.*}", self._answer)
        return app

    async def _detokenize(self, request: web.Request) -> web.Response:
        return web.json_response({"prompt": model_engine.decode((await request.json())["tokens"])})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else {}
        self.heard.append((request.path, body))
        self.headers.append(request.headers.copy())
        if self.status != 200:
            return web.json_response({"error": {"message": "no"}}, status=self.status)
        if request.raw_path == "/v1/models":
            return web.json_response({"data": [{"id": "m", "max_model_len": CONTEXT}]})
        if request.path == "/metrics":
            return web.Response(text=PAGE)
        if body.get("kv_transfer_params", {}).get("do_remote_decode"):
            return web.json_response({"kv_transfer_params": EXPORTED})
        if not body.get("stream"):
            return web.json_response({"path": request.raw_path, "method": request.method, "by": self.name})
        prompt = body["prompt"] if request.path == TEXT and isinstance(body["prompt"], list) else PROMPT
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await self.prefills.wait()
        kind = "chat" if request.path == CHAT else "completion"
        for place, event in enumerate(model_engine.answer(kind, body, prompt, "7" if self.name == "a" else "8")):
            if place == self.dies_after:
                if self.silent:
                    await asyncio.sleep(60)
                assert request.transport is not None
                request.transport.close()
                return response
            await response.write(event)
            await asyncio.sleep(self.every_s)
        return response


class Pool:
    def __init__(self, engines: dict[str, Engine], proxies: dict[str, HandoffServer]) -> None:
        self.engines, self.proxies = engines, proxies
        self.session = aiohttp.ClientSession()

    def url(self, name: str = "a") -> str:
        return "http://" + self.proxies[name].address

    async def post(self, path: str, body: Any, name: str = "a", **more: Any) -> tuple[int, bytes]:
        async with self.session.post(self.url(name) + path, json=body, **more) as response:
            return response.status, await response.read()

    def alone(self, **more: Any) -> bytes:
        """What one engine says to the request."""
        return b"".join(model_engine.answer("chat", ASKED | {"stream": True} | more, PROMPT, "7"))


@asynccontextmanager
async def pool(
    *names: str, token: str | None = TOKEN, pull: bool = False, stages: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[Pool]:
    names = names or ("a", "b")
    engines = {name: Engine(name) for name in names}
    async with contextlib.AsyncExitStack() as stack:
        proxies = {}
        for name, engine in engines.items():
            runner = web.AppRunner(engine.app(), shutdown_timeout=0.1, handler_cancellation=True)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            engine.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            options = HandoffOptions(
                name, engine.url, "127.0.0.1", 0, token=token, pull=pull, failover=FailoverSettings(**settings)
            )
            proxies[name] = await stack.enter_async_context(running(options))
        engines_at = {"engines": {name: f"http://{proxy.address}" for name, proxy in proxies.items()}}
        for name, proxy in proxies.items():
            proxy.follow(handoff_members.read(json.dumps(engines_at | (stages or {}).get(name, {})).encode()))
        made = Pool(engines, proxies)
        stack.push_async_callback(made.session.close)
        yield made
