"""Two `picker serve` over the same engines, each behind an Envoy of its own, and a real server between them."""

import asyncio
import contextlib
import itertools
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from bench.replicas import start_redis
from picker.server.processes import Child, Children
from picker.server.up.stack import SimulatedEngines, Stack

ENGINES = 4
GPU = "h100_sxm/llama-3-8b tp1"
_numbers = itertools.count()


@dataclass
class Replica:
    """One picker, and its Envoy's clients."""

    stack: Stack
    session: aiohttp.ClientSession

    async def ask(self, words: str, **more: Any) -> str:
        """Send a prompt and read the whole answer; the request's id. Raises ClientError where there is none."""
        name = f"e2e-{next(_numbers)}"
        body = {"model": "sim", "messages": [{"role": "user", "content": words}], "max_tokens": 1, **more}
        url = f"{self.stack.url}/v1/chat/completions"
        async with self.session.post(url, json=body, headers={"x-request-id": name}) as response:
            response.raise_for_status()
            await response.read()
        return name

    async def chosen(self, words: str) -> str:
        """The engine that a prompt is picked for."""
        return (await self.chosen_by(words))[1]

    async def chosen_by(self, words: str) -> tuple[int, str]:
        """The worker that picks for a prompt, and the engine."""
        name = await self.ask(words)
        for worker in range(self.stack.workers):
            async with self.session.get(f"{beside(self.stack.admin, worker)}/decisions/{name}") as response:
                if isinstance(decisions := await response.json(), list):
                    return worker, decisions[0]["chosen"]
        raise AssertionError(f"nobody picked for {name}")

    async def at_rest(self) -> None:
        """Wait until no request is counted: one that is weighs on the next pick."""

        async def empty() -> bool:
            return all(row["in_flight"] == 0 for row in await self.stack.endpoints(self.session))

        await until(empty)

    async def metric(self, name: str, worker: int = 0, **labels: str) -> float:
        async with self.session.get(f"{beside(self.stack.metrics, worker)}/metrics") as response:
            families = text_string_to_metric_families(await response.text())
        samples = (sample for family in families for sample in family.samples)
        return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())

    async def until(self, name: str, value: float, worker: int = 0, **labels: str) -> None:
        await until(lambda: self._is(name, value, worker, labels))

    async def until_all(self, name: str, value: float) -> None:
        """Every worker says so."""
        for worker in range(self.stack.workers):
            await self.until(name, value, worker)

    async def _is(self, name: str, value: float, worker: int, labels: dict[str, str]) -> bool:
        return await self.metric(name, worker, **labels) == value


def beside(url: str, worker: int) -> str:
    """The same port of another worker."""
    host, _, port = url.rpartition(":")
    return f"{host}:{int(port) + worker}"


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    while not await holds():
        await asyncio.sleep(0.02)


@dataclass
class Pair:
    """Both of them, and the server between them."""

    one: Replica
    two: Replica
    server: Child
    children: Children
    socket: Path

    async def together(self) -> None:
        for replica, other in ((self.one, self.two), (self.two, self.one)):
            await replica.until_all("picker_replicas_heard", other.stack.workers)
            await replica.until_all("picker_replicas_alone", 0)


@dataclass(frozen=True)
class Each:
    """What both pickers are like."""

    policy: str = "multiplicative"
    workers: int = 1


@pytest_asyncio.fixture
async def pair(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    """Both as the test says, or else by the rule and of one process."""
    each: Each = getattr(request, "param", Each())
    children, socket = Children(tmp_path / "logs"), tmp_path / "redis.sock"
    timeout = aiohttp.ClientTimeout(total=120)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            server = await start_redis(children, socket)
            stacks = [Stack(children, tmp_path / name, workers=each.workers) for name in ("one", "two")]
            await stacks[0].start_simulated(SimulatedEngines([GPU] * ENGINES))
            stacks[1].engines = stacks[0].engines
            for stack in stacks:
                stack.folder.mkdir()
                await stack.start_picker({"replicasUrl": f"unix://{socket}"}, ["--policy", each.policy])
                await stack.start_envoy("access-log")
            replicas = [Replica(stack, session) for stack in stacks]
            there = Pair(replicas[0], replicas[1], server, children, socket)
            await there.together()
            yield there
    finally:
        await children.stop()


async def test_what_a_killed_picker_counted_and_placed_is_known_to_the_other_until_its_time_is_over(pair: Pair) -> None:
    one, two = pair.one, pair.two
    prompts = [f"{i} " + "word " * 2000 for i in range(6)]
    placed = [await one.chosen(prompt) for prompt in prompts]
    known = await one.metric("llm_d_epp_prefix_indexer_size", index="picks")
    await two.until("llm_d_epp_prefix_indexer_size", known, index="picks")
    await two.until("picker_replicas_in_flight", 0)

    streams = [asyncio.create_task(one.ask(f"{i} go on", max_tokens=100_000, stream=True)) for i in range(5)]
    await two.until("picker_replicas_in_flight", 5)
    assert one.stack.picker is not None
    one.stack.picker.signal(signal.SIGKILL)
    await two.until("picker_replicas_heard", 0)
    assert await two.metric("picker_replicas_in_flight") == 0
    assert [await two.chosen(prompt) for prompt in prompts] == placed
    for stream in streams:
        stream.cancel()
    await asyncio.gather(*streams, return_exceptions=True)


async def test_without_the_server_each_serves_alone_and_says_so_and_with_it_both_are_together_again(pair: Pair) -> None:
    replicas = (pair.one, pair.two)
    pair.server.signal(signal.SIGKILL)
    await pair.server.process.wait()
    for replica in replicas:
        await replica.until("picker_replicas_alone", 1)
        await replica.until("picker_replicas_heard", 0)
        await replica.ask("are you there?")
        assert replica.stack.picker is not None
        assert "going on alone" in replica.stack.picker.log.read_text()
    with contextlib.suppress(FileNotFoundError):
        pair.socket.unlink()
    await start_redis(pair.children, pair.socket)
    await pair.together()
    await asyncio.gather(*(replica.ask("and now?") for replica in replicas))


COLLECTOR = 4
"""Its metrics port, counted from the first of two workers'."""


@pytest.mark.parametrize("pair", [Each(workers=2)], indirect=True)
async def test_what_any_worker_of_one_places_and_counts_every_worker_of_the_other_knows(pair: Pair) -> None:
    one, two = pair.one, pair.two
    placed: dict[str, tuple[int, str]] = {}
    while {worker for worker, _ in placed.values()} != {0, 1}:
        prompt = f"{len(placed)} " + "word " * 2000
        placed[prompt] = await one.chosen_by(prompt)

    async def alike() -> bool:
        known = [await replica.metric("llm_d_epp_prefix_indexer_size", COLLECTOR) for replica in (one, two)]
        return known[0] == known[1] >= len(placed) * len(prompt) // 256

    await until(alike)
    # A prompt that is still counted as waiting where it was placed would keep others away from there.
    await one.at_rest()
    await two.until_all("picker_replicas_in_flight", 0)
    for prompt, (_, engine) in placed.items():
        asked: set[int] = set()
        while asked != {0, 1}:
            await two.at_rest()
            worker, chosen = await two.chosen_by(prompt)
            asked.add(worker)
            assert chosen == engine

    await two.until_all("picker_replicas_in_flight", 0)
    streams = [asyncio.create_task(one.ask(f"{i} go on", max_tokens=100_000, stream=True)) for i in range(5)]
    await two.until_all("picker_replicas_in_flight", 5)
    for stream in streams:
        stream.cancel()
    await asyncio.gather(*streams, return_exceptions=True)
    await two.until_all("picker_replicas_in_flight", 0)


@pytest.mark.parametrize("pair", [Each("learned")], indirect=True)
async def test_what_came_of_the_picks_of_one_teaches_the_other(pair: Pair) -> None:
    await asyncio.gather(*(pair.one.ask(f"{i} hello", max_tokens=4, stream=True) for i in range(12)))
    await pair.two.until("picker_learning_heard_rows_total", 12)
    assert await pair.two.metric("picker_learning_unread_rows_total") == 0
    assert await pair.two.metric("picker_learning_rows_total") == 0
    assert await pair.one.metric("picker_learning_heard_rows_total") == 0
