"""Two pickers behind one Envoy, replaced one at a time while clients ask."""

import asyncio
import contextlib
import signal
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import aiohttp
from gateway import GPU, Gateway, Reply, chat, new_words, until

from picker.server.envoy import EnvoySpec
from picker.server.processes import Child, Children
from picker.server.up.ports import HOST, free_ports
from picker.server.up.stack import SimulatedEngines, Stack, command

PAUSE_S = 4.0
"""Between "not ready" and "no new streams": Envoy looks once a second, twice, and this machine is slow."""


@dataclass(slots=True)
class Replica:
    """One picker of several, with the ports that its successor takes over."""

    name: str
    ports: list[int]
    endpoints: str
    child: Child | None = None

    async def start(self, children: Children) -> None:
        grpc, health, metrics, admin = (str(port) for port in self.ports)
        self.child = await children.start(
            self.name,
            [
                *command("serve"),
                *("--host", HOST, "--grpc-port", grpc, "--grpc-health-port", health),
                *("--metrics-port", metrics, "--admin-port", admin, "--endpoints", self.endpoints),
                *("--secure-serving=false", f"--drain-pause={PAUSE_S}s", "--drain-timeout=40s"),
            ],
        )

    async def picks(self, session: aiohttp.ClientSession) -> int:
        """How many picks it made; -1 while it does not listen."""
        try:
            async with session.get(f"http://{HOST}:{self.ports[3]}/pool") as response:
                return sum(row["picks"] for row in (await response.json())["endpoints"])
        except aiohttp.ClientError:
            return -1


@dataclass(slots=True)
class Clients:
    """Clients that ask one after the other, without a pause, until told to stop."""

    running: Gateway
    replies: list[Reply] = field(default_factory=list)
    stopped: bool = False

    async def ask(self) -> None:
        while not self.stopped:
            self.replies.append(await self.running.ask(chat(new_words(), stream=True, max_tokens=30)))
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def two_pickers() -> AsyncIterator[tuple[Gateway, list[Replica]]]:
    """They echo: of all response paths the one on which an answer needs its picker to the end."""
    with tempfile.TemporaryDirectory(prefix="picker-e2e-") as folder:
        children = Children(Path(folder) / "logs")
        stack = Stack(children, Path(folder))
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
                await stack.start_simulated(SimulatedEngines([GPU] * 2, 4.0))
                addresses = tuple(engine.address for engine in stack.engines)
                ports = free_ports(10)
                replicas = [
                    Replica(f"picker-{name}", ports[i : i + 4], ",".join(addresses)) for i, name in ((0, "a"), (4, "b"))
                ]
                for replica in replicas:
                    await replica.start(children)
                for replica in replicas:
                    await until(partial(listens, replica, session))
                stack.url, stack.envoy_admin = f"http://{HOST}:{ports[8]}", f"http://{HOST}:{ports[9]}"
                grpc = tuple(replica.ports[0] for replica in replicas)
                await stack.launch_envoy(EnvoySpec(ports[8], ports[9], grpc, endpoints=addresses, response_path="echo"))
                yield Gateway(stack, session), replicas
        except BaseException:
            for child in children.all:
                print(f"--- {child.name}, exit status {child.process.returncode}\n{child.tail(30)}")
            raise
        finally:
            await children.stop()


async def listens(replica: Replica, session: aiohttp.ClientSession) -> bool:
    return await replica.picks(session) >= 0


async def test_pickers_that_are_replaced_one_at_a_time_lose_no_request_and_break_no_stream() -> None:
    async with two_pickers() as (running, replicas):
        clients = Clients(running)
        asking = [asyncio.create_task(clients.ask()) for _ in range(4)]
        long: list[asyncio.Task[Reply]] = []
        for replica in replicas:
            assert replica.child is not None
            _, begun = await running.begin_many(6, max_tokens=1500)
            long += begun
            replica.child.signal(signal.SIGTERM)
            assert await asyncio.wait_for(replica.child.process.wait(), 60) == 0
            await replica.start(running.stack.children)

            async def serves_again(replica: Replica = replica) -> bool:
                return await replica.picks(running.session) > 0

            await until(serves_again)
        clients.stopped = True
        await asyncio.gather(*asking)
        assert len(clients.replies) > 20
        assert [reply.status for reply in clients.replies if not reply.ok] == []
        assert [reply.status for reply in await asyncio.gather(*long) if not reply.ok] == []
