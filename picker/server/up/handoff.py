"""Hand-off proxies in a stack: one beside each engine, which clients and picker take for it."""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import aiohttp
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from picker.handoff.feed import Told
from picker.server.processes import Child
from picker.server.up.ports import HOST, free_ports, free_run
from picker.server.up.stack import READY_S, Stack, StackError, command, until_ok

PREFIX = "picker_handoff_"
SLOW = ("--silence-timeout", "300", "--first-timeout", "1800")
"""Where engines compute on a CPU that others use, too."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What one proxy counted: streams that its engine writes now, those of others that went on there, its own that went
    on elsewhere, those of them that outlived an engine, and the median of what their clients waited, in seconds."""

    running: int = 0
    taken: int = 0
    moved: int = 0
    saved: int = 0
    gap_s: float | None = None


@dataclass(frozen=True, slots=True)
class Beside:
    """What the live table shows of an engine behind a proxy. `low` to `high`: lengths of its stage, in tokens."""

    low: float | None
    high: float | None
    tally: Tally
    pid: int
    alive: bool


@dataclass(frozen=True, slots=True)
class HandedOff:
    """The plan in words, and the engines by the addresses of their proxies."""

    outlook: str
    engines: Mapping[str, Beside]


async def start_proxies(stack: Stack, options: Sequence[str] = ()) -> None:
    """Put a proxy before each engine: the stack's engines are these from now on. Its picker, once it is there, tells
    them pool and plan. `options` are more of `picker handoff`. Raises StackError."""
    token = stack.folder / "pool-token"
    token.touch(0o600)
    token.write_text(secrets.token_urlsafe(24))
    stack.handoff_port, stack.token_file = free_run(stack.workers), token
    behind, proxies = stack.engines, list[Child]()
    stack.engines = []
    for i, (engine, port) in enumerate(zip(behind, free_ports(len(behind)), strict=True)):
        name = f"{HOST}:{port}"
        argv = ["--name", name, "--host", HOST, "--port", str(port), "--engine", f"http://{engine.address}"]
        argv += ["--pool-token-file", str(token), "--picker", f"http://{HOST}:{stack.handoff_port}", *options]
        proxies.append(await stack.children.start(f"proxy-{i}", [*command("handoff"), *argv]))
        stack.engines.append(replace(engine, address=name))
        stack.processes[name] = stack.processes[engine.address]
    for engine, proxy in zip(stack.engines, proxies, strict=True):
        await until_ok(f"http://{engine.address}/health", proxy)


async def until_told(stack: Stack) -> None:
    """Wait until every proxy knows the pool. Raises StackError where none is told for long."""
    try:
        async with asyncio.timeout(READY_S), aiohttp.ClientSession() as session:
            for engine in stack.engines:
                while ("plan_version",) not in await _counts(session, engine.address):
                    await asyncio.sleep(0.05)
    except TimeoutError:
        raise StackError(f"the proxies were told nothing for {READY_S:.0f} s") from None


async def handed_off(stack: Stack, session: aiohttp.ClientSession) -> HandedOff | None:
    """Plan and streams as they are now; None of a stack without proxies. Raises aiohttp.ClientError."""
    if stack.handoff_port is None:
        return None
    async with session.get(f"{stack.admin}/plan", raise_for_status=True) as response:
        told = msgspec.json.decode(await response.read(), type=Told)
    edges: list[float | None] = [0.0, *told.bounds, None]
    shown = {}
    for name, seat in told.engines.items():
        low, high = (None, None) if seat.stage is None else edges[seat.stage : seat.stage + 2]
        child = stack.processes[name]
        shown[name] = Beside(low, high, await tally(session, name), child.pid, child.running)
    return HandedOff(told.outlook, shown)


async def tally(session: aiohttp.ClientSession, proxy: str) -> Tally:
    """Of one proxy. Raises aiohttp.ClientError."""
    found = await _counts(session, proxy)
    return Tally(
        running=int(found.get(("running",), 0)),
        taken=int(sum(value for (first, *_), value in found.items() if first == "taken_total")),
        moved=int(found.get(("moves_total", "went-on"), 0)),
        saved=int(found.get(("failovers_total", "went-on"), 0)),
        gap_s=found.get(("gap_quantile_seconds", "0.5", "move")),
    )


async def _counts(session: aiohttp.ClientSession, proxy: str) -> dict[tuple[str, ...], float]:
    """Samples by name and sorted values of their labels."""
    async with session.get(f"http://{proxy}/handoff/metrics", raise_for_status=True) as response:
        page = await response.text()
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(page):
        found |= {(s.name.removeprefix(PREFIX), *sorted(s.labels.values())): s.value for s in family.samples}
    return found
