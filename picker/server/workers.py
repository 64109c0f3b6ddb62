"""Several worker processes and their collector: spawned, watched, started again when one dies."""

import asyncio
import contextlib
import signal
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog

from picker.server.options import ServeOptions
from picker.server.processes import Child, Children
from picker.server.serve import configuration
from picker.server.sharing import KeptRows

log = structlog.get_logger(__name__)

RESPAWN_S = 1.0


async def supervise(options: ServeOptions, argv: list[str]) -> None:
    """Run `options.workers` workers, each `picker serve argv... --worker i`, and a collector, until SIGTERM or SIGINT.

    Raises ConfigError: a mistake ends the supervisor, not each worker again and again.
    """
    configuration(options)
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with tempfile.TemporaryDirectory(prefix="picker-") as name:
        folder = Path(name)
        with contextlib.closing(KeptRows(folder, options.workers, len(options.pools))) as rows:
            over = asyncio.Event()
            collector = asyncio.create_task(_keep("collector", [*argv, "--collector"], folder, over))
            workers = (
                _keep(f"worker-{i}", [*argv, "--worker", str(i)], folder, stop, partial(rows.bury, i))
                for i in range(options.workers)
            )
            await asyncio.gather(*workers)
            over.set()  # not before: answers that end while workers drain are still counted by its rows
            await collector


async def _keep(
    name: str, argv: list[str], folder: Path, stop: asyncio.Event, bury: Callable[[], None] = lambda: None
) -> None:
    stopping = asyncio.create_task(stop.wait())
    while not stop.is_set():
        child = await _spawn(name, argv, folder)
        ended = asyncio.create_task(child.process.wait())
        await asyncio.wait((ended, stopping), return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            child.signal(signal.SIGTERM)
            await ended
            return
        bury()
        log.error(f"{name.partition('-')[0]} ended, starting it again", process=name, code=child.process.returncode)
        await asyncio.wait((stopping,), timeout=RESPAWN_S)


async def _spawn(name: str, argv: list[str], folder: Path) -> Child:
    command = [sys.executable, "-m", "picker.server.cli", "serve", *argv, "--run-dir", str(folder)]
    return await Children(folder).start(name, command, inherit=True)
