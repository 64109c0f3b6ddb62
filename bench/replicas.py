"""Replicas of a picker in this process, and the Redis server through which they talk."""

import asyncio
import contextlib
import time
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

BLOCKS = 64
"""Of a prompt."""


async def start_redis(children: Children, socket: Path) -> Child:
    """Start the server of the distribution's package; returns when it listens on this Unix socket. Raises OSError where
    it is not installed."""
    argv = ["redis-server", "--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no"]
    child = await children.start("redis", argv)
    while not socket.exists():
        await asyncio.sleep(0.01)
    return child


class Replica:
    """The router of one replica, and its part among the others."""

    def __init__(self, name: str, url: str, engines: int) -> None:
        own, rng = local_flights(), np.random.default_rng(sum(name.encode()))
        self.replicas = Replicas(url, "picker:replicas", name, (), own)
        flights = SharedFlights(own, self.replicas.blocks)
        self.picks = ApproximateIndex()
        self.router = Router(
            REGISTRY["multiplicative"]({}, rng),
            PrefixHits(PrefixIndex(1000), self.picks, ApproximateIndex(ttl_s=2.0)),
            rng,
            ledger=Ledger(sharing=flights),
            watchers=[self.replicas],
        )
        view = self.router.update_pool([Endpoint(f"10.0.0.{i}:8000") for i in range(engines)]).view
        for follows in (flights, self.replicas):
            follows.follow(view, engines)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Replica"]:
        """Among the others until left, without a goodbye."""
        task = asyncio.create_task(self.replicas.run(self.router))
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def pick(self, prompt: int = 0) -> str:
        """Where a prompt goes; those of one number are equal."""
        chain = np.random.default_rng(prompt).integers(1, 1 << 63, BLOCKS, dtype=np.uint64)
        request = Request(model="m", prompt_tokens=16.0 * BLOCKS, chain=chain)
        return self.router.pick(request, None, time.monotonic()).addresses[0]

    def counts(self) -> float:
        """Requests in flight that the next pick would see."""
        return float(self.router.ledger.seen(self.router.pool.view.slots)[IN_FLIGHT].sum())
