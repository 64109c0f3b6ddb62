"""Exact prefix hits from the engines' own KV events, also after some of them were lost or an engine started anew."""

import asyncio
import itertools
import random
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import pytest_asyncio
import zmq
import zmq.asyncio
from gateway import COLLECTOR, COMPLETIONS, GPU, Gateway, child_with, gateway, until
from tokenizers import Tokenizer, models

from picker.server.up.ports import HOST
from picker.server.up.stack import EngineAddress, SimulatedEngines

BLOCK = 16
PROMPT = 40 * BLOCK
REUSABLE = PROMPT - BLOCK
"""An engine computes the last token anew, and with it the last block."""
BEFORE = 50
"""Batches before a restart: more than the new engine publishes until it is heard, or its numbers would join on."""
FORGOTTEN_S = 2.5
"""After two seconds a pick's own memory of a prompt is gone; what is known then comes from events."""


class Wire:
    """Passes an engine's KV events on, but for those that come while it is `cut`."""

    def __init__(self, engine: EngineAddress) -> None:
        self.cut, self.dropped = False, 0
        self._context = zmq.asyncio.Context()
        self._source, self._sink = self._context.socket(zmq.SUB), self._context.socket(zmq.PUB)
        self._source.subscribe(b"")
        self._source.connect(engine.kv_events or "")
        port = self._sink.bind_to_random_port(f"tcp://{HOST}")
        self.engine = replace(engine, kv_events=f"tcp://{HOST}:{port}")
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            frames = await self._source.recv_multipart()
            if self.cut:
                self.dropped += 1
            else:
                await self._sink.send_multipart(frames)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._context.destroy(linger=0)


@dataclass
class Wires:
    """A wire at every engine."""

    all: list[Wire] = field(default_factory=list)

    def between(self, engine: EngineAddress) -> EngineAddress:
        self.all.append(Wire(engine))
        return self.all[-1].engine


@pytest_asyncio.fixture
async def wires() -> AsyncIterator[Wires]:
    laid = Wires()
    yield laid
    for each in laid.all:
        await each.close()


@pytest.fixture
def model(tmp_path: Path) -> dict[str, object]:
    """Settings under which prompts are matched by token ids. The tests send ids, so any tokenizer will do."""
    Tokenizer(models.WordLevel({"word": 0, "?": 1}, unk_token="?")).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text("{}")
    return {"models": {"sim": str(tmp_path)}}


def prompt(seed: int) -> list[int]:
    """Forty blocks of token ids."""
    return random.Random(seed).choices(range(1000), k=PROMPT)


async def ask(running: Gateway, ids: list[int]) -> tuple[int, int]:
    """Send a prompt; returns the tokens that were predicted to be cached, and those that were."""
    reply = await running.ask({"model": "sim", "prompt": ids, "max_tokens": 2}, COMPLETIONS)
    assert reply.ok
    decision = await running.decided(reply.request_id)
    assert decision["matching"] == "exact"
    row = next(row for row in decision["endpoints"] if row["address"] == decision["chosen"])
    return int(decision["prompt_tokens"] - row["new_tokens"]), decision["outcome"]["cached_tokens"]


async def told(running: Gateway, name: str) -> float:
    return await running.metric(f"picker_kv_{name}_total")


async def test_a_gap_in_the_events_is_closed_by_a_replay(model: dict[str, object], wires: Wires) -> None:
    async with gateway(engines=1, settings=model, rewire=wires.between) as running:
        (wire,) = wires.all
        await ask(running, prompt(1))
        await until(lambda: told(running, "batches"))
        wire.cut = True
        assert await ask(running, prompt(2)) == (0, 0)

        async def dropped() -> int:
            return wire.dropped

        await until(dropped)
        await asyncio.sleep(FORGOTTEN_S)
        wire.cut = False
        await ask(running, prompt(3))
        await until(lambda: told(running, "gaps"))
        await until(lambda: told(running, "replays"))

        async def all_known() -> bool:
            return await running.metric("llm_d_epp_prefix_indexer_size", index="events") >= 3 * PROMPT // BLOCK

        await until(all_known)
        assert await ask(running, prompt(2)) == (REUSABLE, REUSABLE)
        assert await told(running, "lost_batches") == 0


async def test_what_an_engine_held_is_forgotten_when_it_starts_anew(model: dict[str, object]) -> None:
    async with gateway(engines=1, settings=model) as running:
        for seed in range(BEFORE):
            await ask(running, prompt(seed))

        async def all_told() -> bool:
            return await told(running, "batches") >= BEFORE

        await until(all_told)
        await asyncio.sleep(FORGOTTEN_S)
        assert await ask(running, prompt(1)) == (REUSABLE, REUSABLE)
        (place,) = running.stack.engines
        running.engine(place.address).signal(signal.SIGKILL)
        await running.engine(place.address).process.wait()
        await running.start_engine(SimulatedEngines([GPU]), place)

        fresh = itertools.count(BEFORE)

        async def restart_seen() -> float:
            await ask(running, prompt(next(fresh)))
            await asyncio.sleep(0.2)
            return await told(running, "restarts")

        await until(restart_seen)
        await asyncio.sleep(FORGOTTEN_S)
        assert await ask(running, prompt(1)) == (0, 0)


async def asked_of_both(running: Gateway, ids: list[int]) -> set[tuple[int, int]]:
    """Ask until each of two workers has picked; what `ask` returned."""
    found = set()
    before = [await running.metric("llm_d_epp_request_total", worker=worker) for worker in (0, 1)]

    async def both() -> bool:
        found.add(await ask(running, ids))
        now = [await running.metric("llm_d_epp_request_total", worker=worker) for worker in (0, 1)]
        return all(n > b for n, b in zip(now, before, strict=True))

    await until(both)
    return found


async def test_each_worker_knows_what_engines_announced_even_while_the_collector_is_dead(
    model: dict[str, object],
) -> None:
    async with gateway(engines=1, workers=2, settings=model, expected="collector ended") as running:
        await ask(running, prompt(1))

        async def all_known() -> bool:
            return await running.metric("llm_d_epp_prefix_indexer_size", worker=COLLECTOR, index="events") >= 40

        await until(all_known)
        await asyncio.sleep(FORGOTTEN_S)
        assert await asked_of_both(running, prompt(1)) == {(REUSABLE, REUSABLE)}
        collector = child_with(running, "--collector")
        assert collector is not None
        collector.kill()
        await asyncio.sleep(FORGOTTEN_S)
        assert await asked_of_both(running, prompt(1)) == {(REUSABLE, REUSABLE)}
