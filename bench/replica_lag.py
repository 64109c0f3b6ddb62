"""How long after one replica's pick the other one counts it, and knows where its prompt went, through a real server.

    python -m bench.replica_lag [--picks 200]

Two replicas in this process, a `redis-server` in another, over a Unix socket; picks come at random times, one after the
other. What a network adds is left out.
"""

import argparse
import asyncio
import contextlib
import random
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import numpy as np
import uvloop

from bench.figures import quantile
from picker.engines.approximate import ApproximateIndex
from picker.engines.index import PrefixIndex
from picker.engines.ledger import IN_FLIGHT, Ledger
from picker.policies.registry import REGISTRY
from picker.pool.view import Endpoint
from picker.requests.request import Request
from picker.routing.hits import PrefixHits
from picker.routing.router import Router
from picker.server.processes import Children
from picker.server.replicas import Replicas
from picker.shared.flights import SharedFlights, local_flights

ENGINES = [Endpoint(f"10.0.0.{i}:8000") for i in range(64)]
BLOCKS = 64
LOOK_S = 0.0005


class Replica:
    """A router, and its part among the others."""

    def __init__(self, name: str, url: str) -> None:
        own, rng = local_flights(), np.random.default_rng(0)
        self.replicas = Replicas(url, "picker:bench", name, (), own)
        flights = SharedFlights(own, self.replicas.blocks)
        self.picks = ApproximateIndex()
        self.router = Router(
            REGISTRY["multiplicative"]({}, rng),
            PrefixHits(PrefixIndex(1000), self.picks, ApproximateIndex(ttl_s=2.0)),
            rng,
            ledger=Ledger(sharing=flights),
            watchers=[self.replicas],
        )
        view = self.router.update_pool(ENGINES).view
        for follows in (flights, self.replicas):
            follows.follow(view, len(ENGINES))

    def pick(self, number: int) -> None:
        """A prompt that nobody saw before."""
        chain = np.random.default_rng(number).integers(1, 1 << 63, BLOCKS, dtype=np.uint64)
        self.router.pick(Request(model="m", prompt_tokens=16.0 * BLOCKS, chain=chain), None, time.monotonic())

    def knows(self, picks: int) -> bool:
        """Whether the next pick would see so many requests in flight, and find each one's prompt."""
        in_flight = self.router.ledger.seen(self.router.pool.view.slots)[IN_FLIGHT].sum()
        return bool(in_flight == picks) and len(self.picks) == picks * BLOCKS


@contextlib.asynccontextmanager
async def pair(folder: Path) -> AsyncIterator[tuple[Replica, Replica]]:
    """Two that hear each other. Raises OSError where there is no redis-server."""
    children, socket = Children(folder / "logs"), folder / "redis.sock"
    argv = ["redis-server", "--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no"]
    await children.start("redis", argv)
    await _until(socket.exists)
    one, two = (Replica(name, f"unix://{socket}") for name in ("one", "two"))
    tasks = [asyncio.create_task(each.replicas.run(each.router)) for each in (one, two)]
    try:
        await _until(lambda: not one.replicas.alone and not two.replicas.alone)
        yield one, two
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await children.stop()


async def lags(picks: int) -> list[float]:
    """Milliseconds from each pick until the other replica counts it and its index holds its prompt."""
    found = []
    with tempfile.TemporaryDirectory(prefix="picker-bench-") as folder:
        async with pair(Path(folder)) as (one, two):
            for number in range(1, picks + 1):
                await asyncio.sleep(random.uniform(0.0, 0.05))
                start = time.monotonic()
                one.pick(number)
                await _until(partial(two.knows, number))
                found.append(1e3 * (time.monotonic() - start))
    return found


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(LOOK_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picks", type=int, default=200)
    found = uvloop.run(lags(parser.parse_args().picks))
    median, p99 = quantile(found, 0.5), quantile(found, 0.99)
    print(f"lag: {median:.0f} ms in the median, {p99:.0f} ms P99, {max(found):.0f} ms most")


if __name__ == "__main__":
    main()
