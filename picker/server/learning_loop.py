"""The serving side of learning: rows go to the trainer process, its models come back, nothing here ever waits for it.

The loop's own window holds what the trainer was told, so that a trainer that died is told it again, and a restarted
picker reads it from disk together with the model.
"""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Generic, Protocol, TypeVar

import numpy as np
import structlog

from picker.learning.experience import EXPERIENCE, Experience, sane
from picker.learning.memory import MODEL, of_model
from picker.learning.store import MAX_BYTES, Arrays, StoreError, pack, unpack
from picker.learning.window import Window
from picker.server.trainer import COUNTS, FORGET, LENGTH, framed
from picker.telemetry.learning import LoopState

log = structlog.get_logger(__name__)

Tell = Callable[[Experience], None]
"""Hears of rows."""

M = TypeVar("M")
Taken = TypeVar("Taken", contravariant=True)

TURN_S = 1.0
MOST_WAITING = 20_000
"""Rows that wait for a trainer that is busy or away; older ones are dropped and counted."""
MOST_HEARD = 8192
"""Rows of others that wait for the next turn; more are dropped and counted."""
MOST_FORGOTTEN = 1000
"""Changed endpoints that a busy trainer is told of; the window forgets all of them."""
PATIENCE_S = 60.0
"""A trainer silent for so long hangs, and is started anew. Its start imports LightGBM, which takes seconds."""
PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Before starting a trainer again: the more, the more of them ended before their first answer."""
FUTILE = 3
"""So many trainers in a row that died of what they were told first: it is dropped."""
TRAINER = (sys.executable, "-m", "picker.server.trainer")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


class Learner(Protocol[Taken]):
    """Whoever serves with the models. `now` is in seconds of the loop's clock."""

    overflowed: int
    """Rows lost because nobody drained them in time."""
    forgotten: list[tuple[int, float]]
    """Endpoint numbers that changed, and when: rows picked before teach no more. Emptied by the loop."""

    @property
    def skipped(self) -> int:
        """Picks of which no row was made."""
        ...

    def drain(self, now: float) -> Experience:
        """Rows that ended since the last call."""
        ...

    def tick(self, now: float) -> None:
        """Time passes."""
        ...

    def adopt(self, model: Taken, now: float, *, proven: bool) -> None:
        """Serve with this model from now on. `proven`: it did so before a restart."""
        ...


class LearningLoop(Generic[M]):
    """One per serving process. `run` until cancelled."""

    def __init__(
        self,
        learner: Learner[M],
        encode: Callable[[M], Arrays],
        decode: Callable[[Arrays], M],
        *,
        first: Arrays = MappingProxyType({}),
        argv: Sequence[str] = TRAINER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`first`: what a trainer is told at its start beside rows and model."""
        self.state = LoopState()
        self.window = Window()
        self.model: M | None = None
        self.tell: Tell | None = None
        """Hears of the rows of our own picks, turn by turn."""
        self._others: list[Experience] = []
        self._learner, self._encode, self._decode = learner, encode, decode
        self._first, self._argv, self._clock = first, tuple(argv), clock
        self._waiting = np.empty(0, EXPERIENCE)
        self._forget: list[tuple[int, float]] = []
        self._futile = self._latest = 0

    def restore(self, rows: Experience, model: M | None, version: int) -> None:
        """Go on from what an earlier process learned; before `run`."""
        self.window.add(rows)
        self._latest = version
        if model is not None:
            self._adopt(model, proven=True)

    @property
    def now(self) -> float:
        """Seconds of the loop's clock, which is that of the rows."""
        return self._clock()

    def hear(self, rows: Experience) -> None:
        """Rows of others that serve the same pool: they teach like ours, and are told to nobody."""
        kept = rows[: MOST_HEARD - sum(map(len, self._others))]
        self.state.heard += len(kept)
        self.state.dropped += len(rows) - len(kept)
        if len(kept):
            self._others.append(kept)

    def collect(self) -> None:
        """Take what the learner has finished. Called each turn, and once at the end."""
        learner, now = self._learner, self._clock()
        learner.tick(now)
        rows = learner.drain(now)
        self.state.rows += len(rows)
        self.state.overflowed, self.state.skipped = learner.overflowed, learner.skipped
        if self.tell is not None and len(rows):
            self.tell(rows[sane(rows)])
        rows = np.concatenate((rows, *self._others))
        self._others.clear()
        self.window.add(rows[sane(rows)])
        for endpoint, before_s in learner.forgotten:
            self.window.forget(endpoint, before_s)
        self._forget = (self._forget + learner.forgotten)[-MOST_FORGOTTEN:]
        learner.forgotten.clear()
        waiting = np.concatenate((self._waiting, rows))
        self.state.dropped += max(0, len(waiting) - MOST_WAITING)
        self._waiting = waiting[-MOST_WAITING:]
        self.state.waiting = len(self._waiting)

    async def run(self) -> None:
        """Keep a trainer running and talk to it, until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._collect_always())
                tasks.create_task(self._train_always())
        finally:
            self.state.up = False

    async def _collect_always(self) -> None:
        while True:
            self.collect()
            await asyncio.sleep(TURN_S)

    async def _train_always(self) -> None:
        while True:
            try:
                async with _started(self._argv) as trainer:
                    self.state.starts += 1
                    await self._converse(trainer)
            except (OSError, EOFError, TimeoutError, StoreError) as error:
                log.error("trainer ended, starting it again", reason=f"{type(error).__name__}: {error}")
            self.state.up = False
            self._futile += 1
            if self._futile == FUTILE and len(self.window):
                log.error("what trainers died of is dropped", rows=len(self.window))
                self.state.dropped += len(self.window)
                self.window = Window()
            await asyncio.sleep(PAUSES_S[min(self._futile, len(PAUSES_S)) - 1])

    async def _converse(self, trainer: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        """Turn after turn, until something breaks. Raises OSError, EOFError, TimeoutError, StoreError."""
        before = {name: int(getattr(self.state, name)) for name in COUNTS}
        told: Arrays = self._everything()
        while True:
            self._heard(await _asked(trainer, told), before)
            self._futile, self.state.up = 0, True
            await asyncio.sleep(TURN_S)
            told = self._news()

    def _everything(self) -> Arrays:
        """What a new trainer is told first. Rows that wait are in the window already."""
        self._news()
        model = {} if self.model is None else self._encode(self.model)
        return {
            **self._first,
            "rows": self.window.rows(),
            "version": np.array(self._latest),
            **{MODEL + name: array for name, array in model.items()},
        }

    def _news(self) -> Arrays:
        """What happened since the last turn."""
        rows, forget = self._waiting, np.array(self._forget, FORGET)
        self._waiting, self._forget, self.state.waiting = rows[:0], [], 0
        # A header alone, of a dtype of so many fields, takes its reader a millisecond.
        return {name: array for name, array in (("rows", rows), ("forget", forget)) if len(array)}

    def _heard(self, answer: Arrays, before: Mapping[str, int]) -> None:
        """`before`: counts of all earlier trainers. Raises StoreError for an answer that makes no sense."""
        try:
            for name, count in zip(COUNTS, answer["counts"].tolist(), strict=True):
                setattr(self.state, name, before[name] + count)
            self._latest = int(answer["version"])
            self.state.round_s = float(answer.get("round_s", self.state.round_s))
            arrays = of_model(answer)
            model = self._decode(arrays) if arrays else None
        except (LookupError, TypeError, ValueError) as error:
            raise StoreError(f"an answer that makes no sense: {error}") from error
        if model is not None:
            self._adopt(model, proven=False)

    def _adopt(self, model: M, *, proven: bool) -> None:
        now = self._clock()
        self._learner.adopt(model, now, proven=proven)
        self.model, self.state.version, self.state.adopted_at = model, self._latest, now


@contextlib.asynccontextmanager
async def _started(argv: Sequence[str]) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A trainer, killed in the end: it holds nothing of its own. Raises OSError."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    try:
        with theirs:
            end = theirs.fileno()
            # subprocess and not asyncio: it forks without the fork handlers of gRPC's threads.
            process = subprocess.Popen(argv, stdin=end, stdout=end, env={**os.environ, **ONE_THREAD})
        try:
            yield reader, writer
        finally:
            process.kill()
            await asyncio.to_thread(process.wait)
    finally:
        writer.transport.abort()


async def _asked(trainer: tuple[asyncio.StreamReader, asyncio.StreamWriter], told: Arrays) -> Arrays:
    """One turn. Raises OSError, EOFError, TimeoutError, StoreError."""
    reader, writer = trainer
    async with asyncio.timeout(PATIENCE_S):
        if writer.is_closing():
            raise BrokenPipeError("it is gone")
        writer.write(framed(pack(told)))
        await writer.drain()
        (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        if length > MAX_BYTES:
            raise StoreError("an answer that is too long")
        return unpack(await reader.readexactly(length))
