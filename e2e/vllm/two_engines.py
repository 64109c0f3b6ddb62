"""Two real engines, a proxy beside each, and a client that reads whole streams."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp
from session import PORTS, Session

from picker.handoff import members as handoff_members
from picker.server.handoff import HandoffOptions, HandoffServer, running
from picker.server.processes import Child, Children
from picker.server.vllm_engine import VllmEngine, spread_cores, start, wait_ready
from picker.server.vllm_install import CACHE, VllmInstall

TOKEN = "the-secret-of-these-tests"


@dataclass
class Two:
    """`a` is asked by the client, and moves to or dies for `b`."""

    engines: dict[str, Session]
    children: dict[str, Child]
    proxies: dict[str, HandoffServer]

    def follow(self, parts: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """Tell both proxies of each other, and their parts in a plan."""
        engines = {name: f"http://{proxy.address}" for name, proxy in self.proxies.items()}
        for name, proxy in self.proxies.items():
            part = {"engines": engines, **(parts or {}).get(name, {})}
            proxy.follow(handoff_members.read(json.dumps(part).encode()))

    async def stream(self, url: str, path: str, body: dict[str, Any]) -> tuple[str, list[int], Any, Any]:
        """Text, token ids, finish_reason and usage of a whole stream."""
        asked = {"model": self.engines["a"].engine.served_name, "temperature": 0, "stream": True, **body}
        asked |= {"stream_options": {"include_usage": True}, "return_token_ids": True}
        text, ids, finish, usage = "", list[int](), None, None
        async with self.engines["a"].http.post(url + path, json=asked) as response:
            assert response.status == 200, await response.text()
            async for line in response.content:
                if not line.startswith(b"data: {"):
                    continue
                chunk = json.loads(line[6:])
                assert "error" not in chunk, chunk
                usage = chunk.get("usage") or usage
                for choice in chunk["choices"]:
                    text += choice.get("text") or choice.get("delta", {}).get("content") or ""
                    ids += choice.get("token_ids") or []
                    finish = choice["finish_reason"] or finish
        counts = {name: (usage or {}).get(name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
        return text, ids, finish, counts

    async def until(self, tokens: int, asking: "asyncio.Task[Any]") -> bool:
        """Whether the one stream came to so many tokens; False if it ended before."""
        while not asking.done():
            if any(f.ready and len(f.stream.tokens) >= tokens for f in self.proxies["a"].flights.here()):
                return True
            await asyncio.sleep(0.002)
        return False


@contextlib.asynccontextmanager
async def two_engines(install: VllmInstall, name: str, first_port: int, *, pull: bool = False) -> AsyncIterator[Two]:
    """In float32; `pull`: with NIXL between them. Ports are the first eight from that one of `PORTS` on."""
    ports = iter(PORTS[first_port : first_port + 8])
    specs = [
        VllmEngine(
            install.model("smollm2"),
            next(ports),
            next(ports),
            next(ports),
            core=core,
            max_model_len=2048,
            dtype="float32",
            nixl_port=next(ports) if pull else None,
        )
        for core in spread_cores(2)
    ]
    children = Children(CACHE / "logs")
    async with AsyncExitStack() as stack:
        stack.push_async_callback(children.stop)
        started = {
            each: await start(spec, install.venv, children, f"{name}-{each}")
            for each, spec in zip("ab", specs, strict=True)
        }
        engines, proxies = {}, {}
        for each, spec in zip("ab", specs, strict=True):
            await wait_ready(spec, started[each])
            timeout = aiohttp.ClientTimeout(300)
            http = await stack.enter_async_context(aiohttp.ClientSession(spec.url, timeout=timeout))
            engines[each] = Session(spec, http)
            options = HandoffOptions(each, spec.url, "127.0.0.1", 0, token=TOKEN, pull=pull)
            proxies[each] = await stack.enter_async_context(running(options))
        two = Two(engines, started, proxies)
        two.follow()
        yield two
