"""What two workers do beside one, in one run: full streams of Envoy's messages, straight at the workers' ports.

    python -m bench.workers [--rounds 12] [--requests 1500] [--transport lean]

h2load keeps 16 streams open on one connection to each worker, so that every worker always has work: a request of 2 KB,
its pick, and its answer told by the response path. What a request costs is read from the kernel's CPU clock of each
process, the least of all rounds; what that comes to for workers with a core each is told, and beside it the rate that
was seen here, where h2load, the collector and whoever else is on the machine take their part of the cores.

Three take turns: a picker of one worker; two such pickers at once that know nothing of each other; a picker of two
workers. The second shows what this machine makes of two busy cores: memory and caches are theirs in common. What the
third costs beyond it is what sharing costs.
"""

import argparse
import asyncio
import contextlib
import re
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.load import Target, process_cpu_s, until_serving
from bench.prompts import chat_requests
from bench.service_time import words
from picker.server.processes import Children
from picker.server.transport import DEFAULT, TRANSPORTS
from picker.server.up.ports import HOST, free_ports
from picker.server.up.stack import EngineAddress, Stack

BACKENDS = 4
BYTES = 2048
STREAMS = 16
WARM_ROUNDS = 2
_CALL = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"


class LoadError(Exception):
    """h2load is missing, or a stream was not answered."""


@dataclass(frozen=True, slots=True)
class Picker:
    """By its processes: `workers` pick, on these ports; `others` are their supervisor and their collector."""

    ports: tuple[int, ...]
    workers: tuple[int, ...]
    others: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Round:
    """CPU microseconds per request in the workers and in the other processes, and requests per second of the clock."""

    us: float
    others_us: float
    seen_per_s: float


@contextlib.asynccontextmanager
async def pickers(counts: Sequence[int], transport: str) -> AsyncIterator[list[Picker]]:
    """One picker for each number of workers, serving. Raises StackError, TimeoutError, OSError."""
    with tempfile.TemporaryDirectory(prefix="picker-bench-") as folder:
        children = Children(Path(folder) / "logs")
        try:
            ports = free_ports(BACKENDS)
            backends = await children.start("backends", [sys.executable, "-m", "bench.backends", *map(str, ports)])
            for port in ports:
                await until_serving(Target("backends", port, backends.pid), chat_requests(1, 512, seed=0)[0])
            engines = [EngineAddress(f"{HOST}:{port}") for port in ports]
            yield [
                await _picker(Path(folder) / f"picker-{number}", children, engines, count, transport)
                for number, count in enumerate(counts)
            ]
        finally:
            await children.stop()


async def _picker(
    folder: Path, children: Children, engines: list[EngineAddress], workers: int, transport: str
) -> Picker:
    folder.mkdir()
    stack = Stack(children, folder, workers=workers, engines=engines)
    await stack.start_picker(
        {"responsePath": "echo"}, ["--log-level", "warning", "--seed", "0", "--transport", transport]
    )
    assert stack.picker is not None  # just started
    family = {child.pid: child.cmdline() for child in psutil.Process(stack.picker.pid).children()}
    picking = tuple(pid for pid, command in family.items() if "--worker" in command) or (stack.picker.pid,)
    ports = tuple(range(stack.grpc_port, stack.grpc_port + workers))
    return Picker(ports, picking, tuple(pid for pid in (stack.picker.pid, *family) if pid not in picking))


def stream(seed: int) -> bytes:
    """All that Envoy says of one request, as gRPC messages."""
    (request,) = chat_requests(1, BYTES, seed=seed)
    messages = words(request.partition(b"\r\n\r\n")[2], echo=True)
    return b"".join(b"\0" + len(message).to_bytes(4, "big") + message for message in messages)


async def one_round(pickers: Sequence[Picker], body: Path, requests: int) -> Round:
    """So many requests to each worker of all these, at once. Raises LoadError."""
    workers = [pid for picker in pickers for pid in picker.workers]
    processes = workers + [pid for picker in pickers for pid in picker.others]
    before, start = [process_cpu_s(pid) for pid in processes], time.monotonic()
    await asyncio.gather(*(_load(port, body, requests) for picker in pickers for port in picker.ports))
    took = time.monotonic() - start
    spent = [1e6 * (process_cpu_s(pid) - then) for pid, then in zip(processes, before, strict=True)]
    made = requests * len(workers)
    return Round(sum(spent[: len(workers)]) / made, sum(spent[len(workers) :]) / made, made / took)


async def _load(port: int, body: Path, requests: int) -> None:
    if shutil.which("h2load") is None:
        raise LoadError("no h2load here: on Debian apt-get install nghttp2-client")
    headers = ("-H", "content-type: application/grpc", "-H", "te: trailers")
    many = ("-n", str(requests), "-c", "1", "-m", str(STREAMS), "-d", str(body))
    process = await asyncio.create_subprocess_exec(
        "h2load", *many, *headers, f"http://{HOST}:{port}{_CALL}", stdout=asyncio.subprocess.PIPE
    )
    report = (await process.communicate())[0].decode()
    if not re.search(rf"\b{requests} succeeded, 0 failed", report):
        raise LoadError(report)


async def compare(rounds: int, requests: int, transport: str) -> None:
    """Print all bills and what they come to. Raises LoadError, StackError."""
    with tempfile.TemporaryDirectory(prefix="picker-bench-") as folder:
        body = Path(folder) / "stream"
        async with pickers([1, 1, 2], transport) as (first, second, double):
            turns = {"one worker": [first], "two pickers": [first, second], "two workers": [double]}
            bills: dict[str, list[Round]] = {name: [] for name in turns}
            for number in range(WARM_ROUNDS + rounds):
                body.write_bytes(stream(seed=number))
                for name, turn in turns.items():
                    bills[name].append(await one_round(turn, body, requests))
    least = {name: min(billed[WARM_ROUNDS:], key=lambda each: each.us) for name, billed in bills.items()}
    for name, bill in least.items():
        print(
            f"{name:<11}  {bill.us:.0f} us of CPU per request, {bill.others_us:.0f} in supervisor and collector; "
            f"{bill.seen_per_s:.0f} requests/s seen"
        )
    one, apart, together = (bill.us for bill in least.values())
    print(f"two workers do {2 * one / together:.2f} times the work of one; two pickers {2 * one / apart:.2f} times")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--requests", type=int, default=1500)
    parser.add_argument("--transport", choices=TRANSPORTS, default=DEFAULT)
    options = parser.parse_args()
    asyncio.run(compare(options.rounds, options.requests, options.transport))


if __name__ == "__main__":
    main()
