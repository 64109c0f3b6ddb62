"""Several worker processes: spawned, watched, started again when one dies."""

import asyncio
import contextlib
import signal
import sys
import tempfile
from pathlib import Path

import structlog

from picker.server.options import ServeOptions
from picker.server.processes import Child, Children
from picker.server.serve import configuration
from picker.server.sharing import KeptRows

log = structlog.get_logger(__name__)

RESPAWN_S = 1.0


async def supervise(options: ServeOptions, argv: list[str]) -> None:
    """Run `options.workers` workers, each `picker serve argv... --worker i`, until SIGTERM or SIGINT.

    Raises ConfigError: a mistake ends the supervisor, not each worker again and again.
    """
    configuration(options)
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with tempfile.TemporaryDirectory(prefix="picker-") as name:
        folder = Path(name)
        with contextlib.closing(KeptRows(folder, options.workers, len(options.pools))) as rows:
            await asyncio.gather(*(_keep(i, argv, folder, rows, stop) for i in range(options.workers)))


async def _keep(worker: int, argv: list[str], folder: Path, rows: KeptRows, stop: asyncio.Event) -> None:
    stopping = asyncio.create_task(stop.wait())
    while not stop.is_set():
        child = await _spawn(worker, argv, folder)
        ended = asyncio.create_task(child.process.wait())
        await asyncio.wait((ended, stopping), return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            child.signal(signal.SIGTERM)
            await ended
            return
        rows.bury(worker)
        log.error("worker ended, starting it again", worker=worker, code=child.process.returncode)
        await asyncio.wait((stopping,), timeout=RESPAWN_S)


async def _spawn(worker: int, argv: list[str], folder: Path) -> Child:
    command = [sys.executable, "-m", "picker.server.cli", "serve", *argv]
    return await Children(folder).start(
        f"worker-{worker}", [*command, "--worker", str(worker), "--run-dir", str(folder)], inherit=True
    )
