"""The step model in real time: steps take wall-clock time, and whoever waits for tokens is woken."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

from picker.simulator.engine import Engine
from picker.simulator.sequence import EngineRequest, Limits, Sequence, Step
from picker.simulator.steptime import load_row

MAX_LAG_S = 0.05
"""After a stall longer than this the lost time is gone; below, sleeps that ran over are made up for."""


def warm() -> None:
    """Load what steps are compiled to, on an engine of its own: it takes up to two seconds, and no request's."""
    engine = Engine(load_row(), Limits(block_size=1), kv_tokens=8)
    for number in ("first", "same again"):
        engine.submit(EngineRequest(number, 4, 1, (1, 2, 3)))
        while (step := engine.schedule()) is not None:
            engine.complete(step)


class Answer:
    """One request in the running engine: how many tokens of it exist by now."""

    def __init__(self, sequence: Sequence, finish: str, now: float) -> None:
        self.sequence = sequence
        self.finish = finish
        """Its finish_reason, if it gets that far."""
        self.arrived_s = self.latest_s = now
        self.produced = 0
        self._news = asyncio.Event()

    def wake(self) -> None:
        self.produced = self.sequence.generated
        self._news.set()

    async def progress(self) -> AsyncIterator[tuple[int, int]]:
        """Ranges of output tokens as they come to exist; a slow reader gets fewer, longer ones."""
        sent = 0
        while sent < self.sequence.request.output_tokens:
            await self._news.wait()
            self._news.clear()
            start, sent = sent, self.produced
            yield start, sent


class EngineClock:
    """Runs an engine's steps one after another, `speedup` times faster than modelled."""

    def __init__(
        self,
        engine: Engine,
        speedup: float,
        on_step: Callable[[Step], None],
        on_token: Callable[[Answer, float], None],
    ) -> None:
        """`on_step` sees every completed step; `on_token` every (answer, seconds since its last token or arrival)."""
        self.engine = engine
        self._speedup = speedup
        self._on_step = on_step
        self._on_token = on_token
        self._answers: dict[str, Answer] = {}
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def submit(self, request: EngineRequest, finish: str) -> Answer:
        """Raises Refused."""
        answer = Answer(self.engine.submit(request), finish, time.monotonic())
        self._answers[request.id] = answer
        self._work.set()
        self._idle.clear()
        return answer

    def abort(self, answer: Answer) -> bool:
        """Drop a request that nobody waits for any more; False when it had ended by itself."""
        request_id = answer.sequence.request.id
        known = self._answers.pop(request_id, None) is not None
        self._rest()
        return self.engine.abort(request_id) and known

    async def until_idle(self) -> None:
        """Wait until no request is here."""
        await self._idle.wait()

    async def run(self) -> None:
        """Step for ever."""
        due = time.monotonic()
        while True:
            step = self.engine.schedule()
            if step is None:
                self._work.clear()
                await self._work.wait()
                due = time.monotonic()
                continue
            due = max(due, time.monotonic() - MAX_LAG_S) + step.duration_ms / 1e3 / self._speedup
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self._finish(step)

    def _finish(self, step: Step) -> None:
        emitted = self.engine.complete(step)
        self._on_step(step)
        now = time.monotonic()
        for sequence in emitted:
            answer = self._answers[sequence.request.id]
            answer.wake()
            self._on_token(answer, now - answer.latest_s)
            answer.latest_s = now
            if sequence.finished:
                del self._answers[sequence.request.id]
        self._rest()

    def _rest(self) -> None:
        if not self._answers:
            self._idle.set()
