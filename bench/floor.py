"""What of a request's or a chunk's CPU is not picker's to save: `python -m bench.floor [--rounds 9]`.

A picker (by the rule, lean transport) is put under the bench's load through a real Envoy, and the kernel is asked how
many reads that took, of how many bytes, answered with how many. Then as many reads of as many bytes come as quickly to
a process that answers each with so many bytes of nothing: the same event loop, system calls and kernel, no HTTP/2 and
no code of ours. That is the *floor*. What the picker does at rest, scraping above all, is taken out and told apart.

*Alone* is a picker that gets Envoy's messages as quickly, but from a client that prepared them: no Envoy, no client of
its and no backends take caches away from it. *In a row* is the same without pauses: its memory stays warm. Both get
them by the response path that echoes.

Envoy writes once for all that it heard since it wrote last, so that a read holds several requests or chunks. The floor
of as many, each in a read of its own, is told too.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import cast

import numpy as np
import psutil
import uvloop
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.bed import bed
from bench.client import LoadError
from bench.figures import Figure, load_average, yardstick_ms
from bench.load import SETTLE_S, Target, bill, cpu_s
from bench.prompts import chat_requests
from bench.rounds import FEW_CHUNKS, MANY_CHUNKS, SIZES, Plan
from bench.turns import SIZES_OF_TURNS, at_floor, at_picker
from bench.workers import Picker, pickers
from picker.server.processes import Children
from picker.server.up.ports import HOST, free_ports

NONE, ECHO = "lean_none", "lean_duplex"
KINDS = {
    "request, 2 KB, access log": (NONE, "2k"),
    "request, 32 KB, access log": (NONE, "32k"),
    "request, 2 KB, echo": (ECHO, "2k"),
    "request, 32 KB, echo": (ECHO, "32k"),
    "streamed chunk, echo": (ECHO, "chunk"),
}
PLAN = Plan()
REST_S = 2.0
Use = NDArray[np.float64]
"""By the names below; differences and shares of such."""
SECONDS, CPU_S, READS, BYTES_IN, BYTES_OUT = range(5)


def use(pid: int) -> Use:
    """Of a process since it began. Sockets are read and written by read(2) and write(2), which the kernel counts."""
    counted = psutil.Process(pid).io_counters()
    return np.array([time.monotonic(), cpu_s(pid), counted.read_count, counted.read_chars, counted.write_chars])


class Floor(asyncio.Protocol):
    """Answers every so many bytes with so many; the first ones say how many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._asked = self._left = 0
        self._answer = b""

    def data_received(self, data: bytes) -> None:
        if not self._asked:
            self._asked, answer = SIZES_OF_TURNS.unpack(data)
            self._left, self._answer = self._asked, bytes(answer)
            return
        self._left -= len(data)
        if self._left <= 0:
            self._left += self._asked
            self._transport.write(self._answer)


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Floor, HOST, port)
    await server.serve_forever()


async def through_envoy(target: Target, kind: str, seed: int, rest: Use) -> tuple[Use, int]:
    """What a round of load takes beyond what the process does at rest, and of how many requests or chunks."""

    async def taken(requests: list[bytes], events: int = 0) -> Use:
        before = use(target.pid)
        await bill(target, requests, events)
        spent = use(target.pid) - before
        load: Use = spent - rest * spent[SECONDS]
        load[SECONDS] = spent[SECONDS] - SETTLE_S
        return load

    if kind != "chunk":
        return await taken(chat_requests(PLAN.requests, SIZES[kind], seed=seed)), PLAN.requests
    few, many = [
        await taken(
            chat_requests(PLAN.streams, SIZES["2k"], seed=seed + chunks, stream=True, answer_tokens=chunks), chunks + 2
        )
        for chunks in (FEW_CHUNKS, MANY_CHUNKS)
    ]
    return many - few, PLAN.streams * (MANY_CHUNKS - FEW_CHUNKS)


async def one_round(target: Target, alone: Picker, floor: tuple[int, int], kind: str, seed: int) -> dict[str, float]:
    """Through Envoy, and again at the floor and at the picker alone. Raises LoadError, OSError."""
    before = use(target.pid)
    await asyncio.sleep(REST_S)
    rest = use(target.pid) - before
    rest /= rest[SECONDS]
    load, count = await through_envoy(target, kind, seed, rest)
    reads = max(1, round(load[READS]))
    found = {"picker": load[CPU_S] / count, "at rest": rest[CPU_S] * load[SECONDS] / count}
    port, pid = floor
    for name, turns in (("floor", reads), ("one a read", count)):
        asked, answer, gap_s = (load[column] / turns for column in (BYTES_IN, BYTES_OUT, SECONDS))
        began_s = cpu_s(pid)
        await asyncio.to_thread(at_floor, port, round(asked), round(answer), gap_s, turns)
        found[name] = (cpu_s(pid) - began_s) / count
    found["its own"] = found["picker"] - found["floor"]
    if target.name == ECHO:
        together = round(count / reads)
        for name, pause_s, more in (("in a row", 0.0, 1), ("alone", load[SECONDS] / reads, 2)):
            before = use(alone.workers[0])
            await asyncio.to_thread(at_picker, alone.ports[0], kind, together, pause_s, reads, 3 * seed + more)
            spent = use(alone.workers[0]) - before
            spent = (spent - rest * spent[SECONDS]) / (together * reads)
            if spent[BYTES_OUT] < 0.8 * load[BYTES_OUT] / count:
                raise LoadError("the picker alone answers with less than behind Envoy")
            found[name] = spent[CPU_S]
    return {name: 1e6 * value for name, value in found.items()} | {"reads": reads / count}


async def measure(rounds: int) -> dict[str, dict[str, Figure]]:
    """By kind and column: microseconds of CPU, or reads, per request or chunk; one round more warms up."""
    found = {kind: defaultdict[str, list[float]](list) for kind in KINDS}
    with tempfile.TemporaryDirectory(prefix="picker-bench-") as folder:
        children = Children(Path(folder))
        try:
            (port,) = free_ports(1)
            floor = await children.start("floor", [sys.executable, "-m", "bench.floor", "--serve", str(port)])
            async with bed({NONE, ECHO}) as targets, pickers([1], "lean") as (alone,):
                for number in range(rounds + 1):
                    for kind, (name, load) in KINDS.items():
                        columns = await one_round(targets[name], alone, (port, floor.pid), load, number)
                        for column, value in columns.items() if number else ():
                            found[kind][column].append(value)
        finally:
            await children.stop()
    return {kind: {column: Figure(tuple(runs)) for column, runs in of.items()} for kind, of in found.items()}


def shown(figure: Figure | None) -> str:
    if figure is None:
        return "–"
    least, middle, most = (f"{each:.3g}" for each in (min(figure.runs), figure.median, max(figure.runs)))
    return f"{middle} ({least}–{most})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--serve", type=int, metavar="PORT", help="be the floor")
    given = parser.parse_args()
    if given.serve is not None:
        uvloop.run(serve(given.serve))
        return
    print(f"load average {load_average()}, yardstick {yardstick_ms()} ms")
    figures = uvloop.run(measure(given.rounds))
    print(f"load average {load_average()}, yardstick {yardstick_ms()} ms")
    names = ("floor", "one a read", "in a row", "alone", "picker", "its own", "at rest", "reads")
    table = Table("CPU µs: median (least–most)", *names)
    for kind, of in figures.items():
        table.add_row(kind, *(shown(of.get(name)) for name in names))
    Console(width=180).print(table)


if __name__ == "__main__":
    main()
