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

import uvloop

from bench.figures import quantile
from bench.replicas import BLOCKS, Replica, start_redis
from picker.server.processes import Children

ENGINES = 64
LOOK_S = 0.0005


@contextlib.asynccontextmanager
async def pair(folder: Path) -> AsyncIterator[tuple[Replica, Replica]]:
    """Two that hear each other. Raises OSError where there is no redis-server."""
    children, socket = Children(folder / "logs"), folder / "redis.sock"
    try:
        await start_redis(children, socket)
        one, two = (Replica(name, f"unix://{socket}", ENGINES) for name in ("one", "two"))
        async with one.running(), two.running():
            await _until(lambda: not one.replicas.alone and not two.replicas.alone)
            yield one, two
    finally:
        await children.stop()


def knows(replica: Replica, picks: int) -> bool:
    """Whether its next pick would see so many requests in flight, and find each one's prompt."""
    return replica.counts() == picks and len(replica.picks) == picks * BLOCKS


async def lags(picks: int) -> list[float]:
    """Milliseconds from each pick until the other replica counts it and its index holds its prompt."""
    found = []
    with tempfile.TemporaryDirectory(prefix="picker-bench-") as folder:
        async with pair(Path(folder)) as (one, two):
            for number in range(1, picks + 1):
                await asyncio.sleep(random.uniform(0.0, 0.05))
                start = time.monotonic()
                one.pick(number)
                await _until(partial(knows, two, number))
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
