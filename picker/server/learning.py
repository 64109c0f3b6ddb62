"""Learning, wired for one serving process: loop, metrics, and the file from which a restarted picker goes on."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from picker.engines.table import EngineTable
from picker.learning import forest, kernel
from picker.learning.experience import Experience
from picker.learning.memory import Memory, from_arrays, packed, to_arrays, unpacked
from picker.learning.model import Model
from picker.learning.store import MAX_BYTES, StoreError
from picker.policies.learned import Learned
from picker.server import state_file
from picker.server.learning_loop import LearningLoop
from picker.server.trainer import wish
from picker.telemetry.learning import LearningMetrics

log = structlog.get_logger(__name__)

SAVE_S = 30.0
AGAIN_S = 5.0
FORMER = 1 << 31
"""Bit of the endpoint numbers of an earlier process: the same numbers mean other endpoints in this one."""


class Learning:
    """Of a policy that learns. `restore` before serving, `run` until cancelled, then `close`."""

    def __init__(self, policy: Learned, table: EngineTable, clock: Callable[[], float], file: Path | None) -> None:
        """Without a file what is learned ends with the process."""
        self.loop: LearningLoop[Model] = LearningLoop(
            policy.learner, to_arrays, from_arrays, first=wish(policy.parts), clock=clock
        )
        self.metrics = LearningMetrics(self.loop.state, clock)
        self._policy, self._table, self._clock, self._file = policy, table, clock, file

    def restore(self) -> None:
        """Go on from the file, before the pool is known: the classes of hardware keep their numbers.

        A file that cannot be read is logged and passed over: learning begins anew.
        """
        forest.warm()
        kernel.warm()
        if self._file is None:
            return
        try:
            content = state_file.read(self._file, MAX_BYTES)
            memory = None if content is None else unpacked(content)
        except (OSError, ValueError, StoreError) as error:
            log.warning("what was learned cannot be read", file=str(self._file), reason=str(error))
            return
        if memory is not None:
            self._table.hardware[:] = memory.hardware
            # What it says of single endpoints is about the former numbers.
            model = None if memory.model is None else replace(memory.model, corrections={})
            self.loop.restore(_of_former(memory, self._clock()), model, 0 if model is None else model.version)
            log.info("learned before", rows=len(memory.rows), version=self.loop.state.version)

    async def run(self) -> None:
        """Learn, and save now and then, until cancelled. A fault of ours is logged; learning goes on after a pause."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_again_and_again(self.loop.run))
            if self._file is not None:
                tasks.create_task(self._save_always(self._file))

    async def close(self) -> None:
        """Keep what was learned to the last; after `run`."""
        self.loop.collect()
        if self._file is not None:
            await self._save(self._file)

    def as_json(self) -> dict[str, Any]:
        """For the admin port: the loop, who decides, and the numbers by which the guard judges."""
        guard = self._policy.learner.guard
        numbers = guard.numbers
        predicted = numbers["rows"] > 0 and self.loop.model is not None
        return {
            **self.metrics.as_json(),
            "by": "model" if guard.mode == "learned" else "rule",
            "because": guard.reason.value,
            "error": numbers["model_error"] if predicted else None,
            "baseline_error": numbers["baseline_error"] if predicted else None,
            "guard": dict(numbers),
            "handovers": [
                {"at_s": t.at_s - self._clock(), "was": t.was.value, "now": t.now.value} for t in guard.transitions
            ],
        }

    async def _save_always(self, file: Path) -> None:
        while True:
            await asyncio.sleep(SAVE_S)
            await self._save(file)

    async def _save(self, file: Path) -> None:
        loop = self.loop
        memory = Memory(self._clock(), loop.window.rows(), tuple(self._table.hardware), loop.model)
        try:
            await asyncio.to_thread(lambda: state_file.write(file, packed(memory)))
        except OSError as error:
            log.warning("what was learned cannot be kept", file=str(file), reason=str(error))


async def _again_and_again(work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
        except Exception as fault:
            log.error("learning failed, going on", exc_info=fault)
        # A group of tasks that fails while it is cancelled tells of the failure alone.
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise asyncio.CancelledError
        await asyncio.sleep(AGAIN_S)


def _of_former(memory: Memory, now: float) -> Experience:
    """The rows of an earlier process, on this one's clock: the time between the two does not count."""
    rows = memory.rows.copy()
    rows["at_s"] += now - memory.at_s
    rows["endpoint"] |= FORMER
    return rows
