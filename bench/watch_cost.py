"""What watching a pool costs: CPU time of `KubernetesSource` with a `Pool` behind it, while its pods change.

    python -m bench.watch_cost [--pods 5000] [--events 100] [--seconds 15] [--json]

A process of its own plays the API server: pods of 9 kB as kubelets write them (specification, managed fields), listed
in pages, then events at a steady rate. *heartbeats* alter nothing that a pool cares about; *flips* make a pod ready or
unready each time. Only this process's CPU time counts. `stall` is the longest that the event loop kept others waiting.
"""

import argparse
import asyncio
import json
import multiprocessing
import resource
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

import uvloop
from kubernetes.aio.client.configuration import Configuration

from bench.watch_server import serve
from picker.pool.directory import Directory
from picker.pool.kube.access import PODS
from picker.pool.kube.scope import KubeScope
from picker.pool.view import Pool
from picker.server.kubernetes.cluster import Cluster
from picker.server.kubernetes.source import KubernetesSource

SCOPE = KubeScope("ns", pool="p")
SETTLE_S = 1.0


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU times in seconds; `share` is that of one core, `event_us` the CPU time of one event, in microseconds."""

    kind: str
    pods: int
    list_cpu_s: float
    events: int
    share: float
    event_us: float
    published: int
    stall_ms: float
    memory_mb: float


async def watch(pipe: Connection, kind: str, pods: int, seconds: float) -> Cost:
    """List, settle, then measure `seconds` of events."""
    published, pool = [0], Pool()

    def follow(directory: Directory) -> None:
        pool.replace(directory.endpoints)
        published[0] += 1

    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{pipe.recv()}"
    cluster = Cluster(configuration)
    source = KubernetesSource(SCOPE, follow, cluster=cluster)
    began = time.process_time()
    watching = asyncio.create_task(source.run())
    while not published[0]:
        await asyncio.sleep(0.01)
    listed = time.process_time() - began
    pipe.send("go")
    await asyncio.sleep(SETTLE_S)
    at, cpu, seen, before = time.monotonic(), time.process_time(), source.counts[str(PODS)].events, published[0]
    await asyncio.sleep(seconds)
    took, cpu = time.monotonic() - at, time.process_time() - cpu
    events, views = source.counts[str(PODS)].events - seen, published[0] - before
    stall_ms = await _longest_stall(seconds / 2)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await cluster.close()
    pipe.send("done")
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    per_event = cpu / events * 1e6 if events else 0.0
    return Cost(kind, pods, listed, events, cpu / took, per_event, views, stall_ms, memory_mb)


async def _longest_stall(seconds: float) -> float:
    """The longest time, in ms, that a task which wants to run every 5 ms was late."""
    ends, late = time.monotonic() + seconds, 0.0
    while (now := time.monotonic()) < ends:
        await asyncio.sleep(0.005)
        late = max(late, time.monotonic() - now - 0.005)
    return late * 1000


def measure(pods: int, rate: float, seconds: float) -> Iterator[Cost]:
    """Both kinds of events, one after the other."""
    context: Any = multiprocessing.get_context("spawn")
    for kind in ("heartbeats", "flips"):
        ours, theirs = context.Pipe()
        server = context.Process(target=serve, args=(theirs, pods, rate, kind))
        server.start()
        try:
            yield uvloop.run(watch(ours, kind, pods, seconds))
        finally:
            server.terminate()
            server.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", type=int, default=5000)
    parser.add_argument("--events", type=float, default=100.0, help="per second")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for cost in measure(options.pods, options.events, options.seconds):
        if options.json:
            print(json.dumps(asdict(cost)))
            continue
        print(
            f"{cost.kind:<11} {cost.pods} pods: list {cost.list_cpu_s:.2f} s of CPU; {cost.events} events at "
            f"{cost.event_us:.0f} us: {cost.share:.1%} of a core; {cost.published} views published, "
            f"longest stall {cost.stall_ms:.0f} ms, {cost.memory_mb:.0f} MB"
        )


if __name__ == "__main__":
    main()
