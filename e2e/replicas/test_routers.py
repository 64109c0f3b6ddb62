"""Replicas through a real server: they count together, keep prompts together, and go on alone without it."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest_asyncio

from bench.replicas import Replica, start_redis
from picker.server.processes import Children

ENGINES = 4


@pytest_asyncio.fixture
async def children(tmp_path: Path) -> AsyncIterator[Children]:
    made = Children(tmp_path / "logs")
    yield made
    await made.stop()


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.005)


async def test_replicas_count_together_until_one_is_gone(children: Children, tmp_path: Path) -> None:
    await start_redis(children, tmp_path / "redis.sock")
    url = f"unix://{tmp_path / 'redis.sock'}"
    async with Replica("one", url, ENGINES).running() as one:
        async with Replica("two", url, ENGINES).running() as two:
            for i in range(10):
                one.pick(i)
                two.pick(100 + i)
            await until(lambda: one.counts() == two.counts() == 20)
        await until(lambda: one.counts() == 10)


async def test_a_prompt_goes_where_another_replica_sent_its_like(children: Children, tmp_path: Path) -> None:
    await start_redis(children, tmp_path / "redis.sock")
    url = f"unix://{tmp_path / 'redis.sock'}"
    async with Replica("one", url, ENGINES).running() as one, Replica("two", url, ENGINES).running() as two:
        await until(lambda: not one.replicas.alone and not two.replicas.alone)
        placed = {chain: one.pick(chain) for chain in range(8)}
        await until(lambda: two.counts() == 8)
        assert {chain: two.pick(chain) for chain in placed} == placed


async def test_without_the_server_each_goes_on_alone_and_says_so_and_with_it_they_are_together_again(
    children: Children, tmp_path: Path
) -> None:
    socket = tmp_path / "redis.sock"
    server = await start_redis(children, socket)
    async with (
        Replica("one", f"unix://{socket}", ENGINES).running() as one,
        Replica("two", f"unix://{socket}", ENGINES).running() as two,
    ):
        two.pick()
        await until(lambda: one.counts() == 1)
        server.signal(signal.SIGKILL)
        await server.process.wait()
        await until(lambda: one.replicas.alone and two.replicas.alone)
        assert (one.counts(), two.counts()) == (0, 1)
        one.pick()
        assert one.counts() == 1
        socket.unlink(missing_ok=True)
        await start_redis(children, socket)
        await until(lambda: one.counts() == two.counts() == 2)
