"""Two real engines in two stages, behind hand-off proxies and real Envoy: requests cross, and outlive their engine."""

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from words import sentence

from picker.server.processes import Children
from picker.server.up.handoff import SLOW, handed_off, start_proxies, tally, until_told
from picker.server.up.stack import Stack
from picker.server.vllm_engine import start_vllm
from picker.server.vllm_install import VllmInstall

BOUND = 64
STREAMS = 3


async def whole(session: aiohttp.ClientSession, url: str, seed: int, tokens: int, words: int) -> tuple[int, Any]:
    """How many ids its chunks have, and what usage it ends with."""
    asked: dict[str, Any] = {
        "model": "smollm2",
        "prompt": sentence(words, seed),
        "max_tokens": tokens,
        "temperature": 0,
    }
    asked |= {"ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}
    async with session.post(f"{url}/v1/completions", json=asked) as response:
        text = await response.text()
    assert response.status == 200, text
    assert text.endswith("data: [DONE]\n\n"), text[-500:]
    chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    assert not [chunk for chunk in chunks if "error" in chunk]
    return len({chunk["id"] for chunk in chunks}), chunks[-1]["usage"]["completion_tokens"]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    while not await condition():
        await asyncio.sleep(0.02)


@pytest.mark.timeout(2400)
async def test_requests_of_real_engines_cross_stages_and_outlive_their_engine(
    install: VllmInstall, tmp_path: Path
) -> None:
    children = Children(tmp_path / "logs")
    stack = Stack(children, tmp_path)
    try:
        await start_vllm(stack, 2)
        await start_proxies(stack, SLOW)
        parameters = {"stages": [f"0-{BOUND}:1", f"{BOUND}-:1"], "migration": True}
        stack.plugins.append({"type": "staged-policy", "parameters": parameters})
        await stack.start_picker()
        await stack.start_envoy("access-log")
        await until_told(stack)
        first, second = (engine.address for engine in stack.engines)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(None)) as session:

            async def staged() -> bool:
                seen = await handed_off(stack, session)
                return seen is not None and all(one.low is not None for one in seen.engines.values())

            await until(staged)
            while not (await tally(session, first)).moved:
                asking = [whole(session, stack.url, seed, 2 * BOUND, 14) for seed in range(STREAMS)]
                assert await asyncio.gather(*asking) == [(1, 2 * BOUND)] * STREAMS
            assert (await tally(session, second)).taken >= (await tally(session, first)).moved

            async def writes() -> bool:
                return (await tally(session, second)).running > 0

            # So long that they begin and stay in the second stage.
            tasks = [asyncio.create_task(whole(session, stack.url, seed, 200, 120)) for seed in range(STREAMS)]
            await until(writes)
            stack.processes[second].signal(signal.SIGKILL)
            assert await asyncio.gather(*tasks) == [(1, 200)] * STREAMS
            assert (await tally(session, second)).saved >= 1
    except BaseException:
        for child in children.all:
            print(f"--- {child.name}, exit status {child.process.returncode}\n{child.tail(30)}")
        raise
    finally:
        await children.stop()
