"""What a process does beside its picks, and until when."""

import asyncio
import contextlib
import signal
from collections.abc import Coroutine

import structlog

log = structlog.get_logger(__name__)


def background(cleanup: contextlib.AsyncExitStack, work: Coroutine[object, object, None]) -> None:
    """Run beside everything else until cleanup; should it fail, the log says so and the rest goes on."""
    task = asyncio.create_task(work)

    async def cancel() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def report(done: asyncio.Task[None]) -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            log.error("a background task ended", exc_info=error)

    task.add_done_callback(report)
    cleanup.push_async_callback(cancel)


def stop_signal() -> asyncio.Event:
    """Set by SIGTERM and by SIGINT."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
