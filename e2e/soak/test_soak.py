"""Does it still hold what it held an hour ago? `make soak SOAK_S=3600`: half of that by each response path.

A picker of two workers that learns, behind a real Envoy; engines that answer at once, one of which comes and goes. No
process may be started again, hold more and more, or count requests that are over. A minute shows descriptors, threads,
counts, and memory where some 10 KB are kept of each request; half an hour shows a hundredth of that.
"""

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest
from held import Held, grown, held
from rich.console import Console
from rich.table import Table
from users import ask_all

from picker.server.envoy import ResponsePath
from picker.server.processes import Children
from picker.server.up.ports import HOST, free_ports
from picker.server.up.stack import EngineAddress, Stack, until_listening

SOAK_S = float(os.environ.get("SOAK_S", "50"))
ENGINES, WORKERS = 16, 2
A_ROUND = 1000
ROUNDS = 9
"""At least; fewer say nothing of growth."""
SHOWN = 20
REST_S = 60.0
"""Until all ends are told, that of clients who left among them."""


@contextlib.asynccontextmanager
async def stack(path: ResponsePath) -> AsyncIterator[Stack]:
    """All up, and stopped at the end; then the picker's log must be free of errors."""
    with tempfile.TemporaryDirectory(prefix="picker-soak-") as folder:
        children = Children(Path(folder) / "logs")
        ports = free_ports(ENGINES)
        there = Stack(children, Path(folder), workers=WORKERS, engines=[EngineAddress(f"{HOST}:{p}") for p in ports])
        try:
            await children.start("engines", [sys.executable, "-m", "bench.backends", *map(str, ports)])
            await until_listening(ports[-1], children.all[0])
            await there.start_picker({"responsePath": path}, ["--policy", "learned", "--log-level", "warning"])
            await there.start_envoy(path)
            yield there
            assert there.picker is not None  # it serves
            said = there.picker.log.read_text()
        finally:
            await children.stop()
    assert [line for line in said.splitlines() if '"level": "error"' in line or "Traceback" in line] == []


async def at_rest(there: Stack, session: aiohttp.ClientSession) -> None:
    """Wait until nothing is counted any more. Raises TimeoutError, with what still is."""
    deadline = time.monotonic() + REST_S
    while True:
        rows = await there.endpoints(session)
        open_ = {row["address"]: row["in_flight"] for row in rows if row["in_flight"] or row["queued_tokens"]}
        if not open_:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"still counted as in flight: {open_}")
        await asyncio.sleep(0.2)


def come_and_go(there: Stack, number: int) -> None:
    """The last engine is in the pool in every second round."""
    engines = there.engines if number % 2 == 0 else there.engines[:-1]
    file = there.folder / "endpoints.json"
    fresh = file.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode({"endpoints": [{"address": engine.address} for engine in engines]}))
    fresh.replace(file)


def show(title: str, rows: list[tuple[str, ...]]) -> None:
    """Some of the rounds: of supervisor, collector, workers and their trainers."""
    table = Table(title=title, show_edge=False)
    for column in ("requests", "resident MiB", "descriptors", "threads"):
        table.add_column(column, justify="right")
    for row in rows[:: max(1, len(rows) // SHOWN)]:
        table.add_row(*row)
    Console(width=120).print(table)


@pytest.mark.timeout(SOAK_S + 300)
@pytest.mark.parametrize("path", ["access-log", "echo"])
async def test_a_picker_holds_no_more_the_longer_it_serves(path: ResponsePath) -> None:
    looks = defaultdict[str, list[Held]](list)
    rows = list[tuple[str, ...]]()
    async with stack(path) as there, aiohttp.ClientSession() as session:
        assert there.picker is not None  # just started
        port, pid = int(there.url.rpartition(":")[2]), there.picker.pid
        done, number, ends_at = 0, 0, time.monotonic() + SOAK_S / 2
        while time.monotonic() < ends_at or number < ROUNDS:
            done += await ask_all(port, A_ROUND, seed=10 * number)
            number += 1
            await at_rest(there, session)
            now = held(pid, done)
            for name, look in now.items():
                looks[name].append(look)
            facts = ((each.resident_bytes >> 20, each.descriptors, each.threads) for each in now.values())
            columns = (" + ".join(map(str, column)) for column in zip(*facts, strict=True))
            rows.append((f"{done:,}", *columns))
            come_and_go(there, number)
    show(f"response path {path}", rows)
    assert {name: len(seen) for name, seen in looks.items()} == dict.fromkeys(looks, number), (
        "a process was started again"
    )
    assert {name: more for name, seen in looks.items() if (more := grown(seen))} == {}
