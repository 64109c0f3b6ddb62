"""`picker up --policy staged`: two stages behind hand-off proxies and real Envoy, as a user starts and sees them."""

import asyncio
import contextlib
import json
import random
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from gateway import GPU

from picker.server.processes import Children
from picker.server.up.handoff import HandedOff, handed_off, start_proxies, tally, until_told
from picker.server.up.stack import SimulatedEngines, Stack

BOUND = 150
WORDS = ("one", "two", "three", "four", "five", "six")


@dataclass
class Stages:
    """Two engines: lengths up to BOUND tokens belong to the first one, others to the second."""

    stack: Stack
    behind: list[str]
    session: aiohttp.ClientSession

    async def answer(self, url: str, seed: int, tokens: int = 250, words: int = 30) -> str:
        """The whole text of a streamed answer."""
        content = " ".join(random.Random(seed).choices(WORDS, k=words))
        asked = {"model": "sim", "messages": [{"role": "user", "content": content}], "max_tokens": tokens}
        async with self.session.post(f"{url}/v1/chat/completions", json=asked | {"stream": True}) as response:
            assert response.status == 200, await response.text()
            events = (await response.text()).split("\n\n")
        assert events[-2] == "data: [DONE]", events[-3:]
        chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
        return "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])

    async def answers(self, url: str, seeds: range, **more: int) -> list[str]:
        return await asyncio.gather(*(self.answer(url, seed, **more) for seed in seeds))

    async def writes(self, proxy: str) -> bool:
        """Whether the engine behind this proxy writes a stream now."""
        return (await tally(self.session, proxy)).running > 0

    async def now(self) -> HandedOff:
        seen = await handed_off(self.stack, self.session)
        assert seen is not None
        return seen


@contextlib.asynccontextmanager
async def stages() -> AsyncIterator[Stages]:
    with tempfile.TemporaryDirectory(prefix="picker-e2e-") as folder:
        children = Children(Path(folder) / "logs")
        stack = Stack(children, Path(folder))
        try:
            await stack.start_simulated(SimulatedEngines([GPU] * 2, speedup=0.5))
            behind = [engine.address for engine in stack.engines]
            await start_proxies(stack)
            parameters = {"stages": [f"0-{BOUND}:1", f"{BOUND}-:1"], "migration": True}
            stack.plugins.append({"type": "staged-policy", "parameters": parameters})
            await stack.start_picker()
            await stack.start_envoy("access-log")
            await until_told(stack)
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(None)) as session:
                there = Stages(stack, behind, session)
                await until(lambda: _staged(there))
                yield there
        except BaseException:
            for child in children.all:
                print(f"--- {child.name}, exit status {child.process.returncode}\n{child.tail(30)}")
            raise
        finally:
            await children.stop()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    while not await condition():
        await asyncio.sleep(0.02)


async def _staged(there: Stages) -> bool:
    return all(one.low is not None for one in (await there.now()).engines.values())


@pytest.mark.timeout(900)
async def test_requests_cross_stages_as_they_grow_and_outlive_picker_and_engine() -> None:
    async with stages() as there:
        first, second = (engine.address for engine in there.stack.engines)
        alone_at = f"http://{there.behind[0]}"
        seen = await there.now()
        assert seen.outlook == f"as laid down, parted at {BOUND} tokens"
        assert [(one.low, one.high) for one in seen.engines.values()] == [(0, BOUND), (BOUND, None)]

        alone = await there.answers(alone_at, range(4))
        while not (moved := (await tally(there.session, first)).moved):
            assert await there.answers(there.stack.url, range(4)) == alone
        assert (await tally(there.session, second)).taken >= moved

        # Envoy admits nobody while its picker is away; the proxies go on with the plan that they know.
        assert there.stack.picker is not None
        there.stack.picker.signal(signal.SIGKILL)
        await there.stack.picker.process.wait()
        while (await tally(there.session, first)).moved == moved:
            assert await there.answers(f"http://{first}", range(4)) == alone

        alone = await there.answers(alone_at, range(4, 8), tokens=500, words=200)
        asking = asyncio.create_task(there.answers(f"http://{second}", range(4, 8), tokens=500, words=200))
        await until(lambda: there.writes(second))
        there.stack.processes[second].signal(signal.SIGKILL)
        assert await asking == alone
        assert (await tally(there.session, second)).saved >= 1


@pytest.mark.timeout(900)
async def test_the_command_lays_stages_down_and_reports_what_crossed_them(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    asked = ["--once", "--policy", "staged", "--engines", "2", "--requests", "12", "--speedup", "2"]
    asked += ["--json", str(report)]
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "picker.server.cli", "up", *asked)
    assert await process.wait() == 0
    told: dict[str, Any] = json.loads(report.read_text())
    assert (told["ok"], told["handoff"]["outlook"]) == (12, "as laid down, parted at 256 tokens")
    below, above = told["handoff"]["engines"].values()
    assert (below["high"], above["low"], above["high"]) == (256, 256, None)
    assert below["tally"]["moved"] >= 1
    assert above["tally"]["taken"] >= below["tally"]["moved"]
