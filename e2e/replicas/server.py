"""A Redis server of the distribution's package, on a Unix socket, and replicas of a picker that talk through it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np

from picker.engines.approximate import ApproximateIndex
from picker.engines.index import PrefixIndex
from picker.engines.ledger import IN_FLIGHT, Ledger
from picker.policies.registry import REGISTRY
from picker.pool.view import Endpoint
from picker.requests.request import Request
from picker.routing.hits import PrefixHits
from picker.routing.router import Router
from picker.server.processes import Child, Children
from picker.server.replicas import Replicas
from picker.shared.flights import SharedFlights, local_flights

ENGINES = [Endpoint(f"10.0.0.{i}:8000") for i in range(4)]


async def start_server(children: Children, socket: Path) -> Child:
    """Start the server; returns when it listens. Raises OSError where the package is not installed."""
    argv = ["redis-server", "--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no"]
    child = await children.start("redis", argv)
    while not socket.exists():
        await asyncio.sleep(0.01)
    return child


class Picker:
    """The router of one replica, and its part among the others."""

    def __init__(self, name: str, url: str) -> None:
        own = local_flights()
        self.replicas = Replicas(url, "picker:test", name, (), own)
        flights = SharedFlights(own, self.replicas.blocks)
        rng = np.random.default_rng(sum(name.encode()))
        self.router = Router(
            REGISTRY["multiplicative"]({}, rng),
            PrefixHits(PrefixIndex(1000), ApproximateIndex(max_blocks=100_000), ApproximateIndex(ttl_s=2.0)),
            rng,
            ledger=Ledger(sharing=flights),
            watchers=[self.replicas],
        )
        view = self.router.update_pool(ENGINES).view
        for follows in (flights, self.replicas):
            follows.follow(view, len(ENGINES))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Picker"]:
        """Among the others until left, without a goodbye."""
        task = asyncio.create_task(self.replicas.run(self.router))
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def pick(self, chain: int = 0, blocks: int = 64) -> str:
        """Where a prompt goes; prompts of one `chain` are equal."""
        hashes = np.random.default_rng(chain).integers(1, 1 << 63, blocks, dtype=np.uint64)
        request = Request(model="m", prompt_tokens=16.0 * blocks, chain=hashes)
        return self.router.pick(request, None, asyncio.get_running_loop().time()).addresses[0]

    def counts(self) -> float:
        """Requests in flight that the next pick would see."""
        return float(self.router.ledger.seen(self.router.pool.view.slots)[IN_FLIGHT].sum())
