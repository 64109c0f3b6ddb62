"""A real engine under test, and a client that asks it and keeps what its answers say about token ids and cache hits."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import aiohttp

from picker.server.processes import Children
from picker.server.vllm_engine import VllmEngine, start, wait_ready
from picker.server.vllm_install import CACHE

PORTS = range(21410, 21499)
BLOCK_BYTES = 737_280
"""KV of one block of 32 tokens of SmolLM2-135M: 30 layers, keys and values, 3 heads of 64, bfloat16."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one answer said: ids of prompt and output, the prompt tokens found in the prefix cache, the text."""

    prompt: tuple[int, ...]
    output: tuple[int, ...]
    cached: int
    text: str

    @classmethod
    def read(cls, answer: dict[str, Any]) -> Self:
        choice = answer["choices"][0]
        usage = answer["usage"]
        return cls(
            # A chat answer carries the prompt's ids beside its choices, a completion within them.
            prompt=tuple(answer.get("prompt_token_ids") or choice["prompt_token_ids"]),
            output=tuple(choice["token_ids"]),
            cached=(usage["prompt_tokens_details"] or {}).get("cached_tokens", 0),
            text=choice["message"]["content"] if "message" in choice else choice["text"],
        )


@dataclass(frozen=True, slots=True)
class Session:
    """A client of one engine."""

    engine: VllmEngine
    http: aiohttp.ClientSession

    @property
    def kv_tokens(self) -> int:
        """Tokens that the engine's cache holds, one block being vLLM's own."""
        return (self.engine.kv_bytes // BLOCK_BYTES - 1) * self.engine.block_size

    async def ask(self, path: str, body: dict[str, Any]) -> Answer:
        """Send a body as it is, but for the model's name and the wish to see token ids."""
        asked = {"model": self.engine.served_name, "return_token_ids": True, **body}
        return Answer.read(await self.post(path, asked))

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        async with self.http.post(path, json=body) as response:
            if response.status != 200:
                raise AssertionError(f"{path} answered {response.status}: {await response.text()}")
            return await response.json(content_type=None) if response.content_length else None

    async def metrics(self) -> str:
        return await self.get("/metrics")

    async def get(self, url: str) -> str:
        async with self.http.get(url) as response:
            return await response.text()


@contextlib.asynccontextmanager
async def serving(engine: VllmEngine, venv: Path, name: str) -> AsyncIterator[Session]:
    """Start the engine, wait until it is ready, and stop it with all its processes in the end."""
    children = Children(CACHE / "logs")
    try:
        child = await start(engine, venv, children, name)
        await wait_ready(engine, child)
        async with aiohttp.ClientSession(engine.url, timeout=aiohttp.ClientTimeout(120)) as http:
            yield Session(engine, http)
    finally:
        await children.stop()
