"""The serving side of learning, with a toy trainer in a real process."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from experience_rows import learnable, rows
from toy_trainer import POISON_MS, decode, encode

from picker.learning.experience import EXPERIENCE, Experience
from picker.learning.memory import from_arrays, to_arrays
from picker.learning.model import Model
from picker.learning.training import Parts, errors
from picker.server import learning_loop
from picker.server.learning_loop import LearningLoop
from picker.server.trainer import wish

TOY = str(Path(__file__).with_name("toy_trainer.py"))


class Learner:
    """Finishes what a test gives it, keeps what it is told to adopt."""

    def __init__(self) -> None:
        self.finished = np.empty(0, EXPERIENCE)
        self.models: list[Any] = []
        self.proven: list[bool] = []
        self.forgotten: list[tuple[int, float]] = []
        self.overflowed = self.skipped = 0

    def tick(self, now: float) -> None:
        pass

    def drain(self, now: float) -> Experience:
        drained, self.finished = self.finished, self.finished[:0]
        return drained

    def adopt(self, model: Any, now: float, *, proven: bool) -> None:
        self.models.append(model)
        self.proven.append(proven)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning_loop, "TURN_S", 0.01)
    monkeypatch.setattr(learning_loop, "PAUSES_S", (0.01,))


def make(manner: str = "well", learner: Learner | None = None) -> tuple[LearningLoop[np.ndarray], Learner]:
    learner = learner or Learner()
    return LearningLoop(learner, encode, decode, argv=(sys.executable, TOY, manner)), learner


@contextlib.asynccontextmanager
async def running(loop: LearningLoop[Any]) -> AsyncIterator[None]:
    task = asyncio.create_task(loop.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def test_rows_go_out_and_models_come_back_to_be_adopted() -> None:
    loop, learner = make()
    learner.finished = rows(5)
    async with running(loop):
        await until(lambda: learner.models)
        learner.finished = rows(5, ttft_ms=300.0)
        await until(lambda: learner.models[-1].tolist()[1:] == [10, 200.0])
    assert loop.state.version == learner.models[-1][0]
    assert loop.state.rows == 10
    assert loop.state.rounds >= 2


def test_picks_that_were_not_learned_from_are_told_of() -> None:
    loop, learner = make()
    learner.skipped = 7
    loop.collect()
    assert loop.state.skipped == 7


async def test_the_real_trainer_makes_a_model_of_the_rows() -> None:
    learner = Learner()
    loop: LearningLoop[Model] = LearningLoop(learner, to_arrays, from_arrays, first=wish(Parts()))
    learner.finished = learnable(60)
    async with running(loop):
        await until(lambda: learner.models)
    (model,) = learner.models
    assert (model.version, model.rows) == (1, 60)
    assert errors(model, learnable(60, start=1000)).mean() < 0.1


async def test_a_trainer_that_dies_is_started_again_and_told_everything_anew() -> None:
    loop, learner = make()
    learner.finished = rows(5)
    async with running(loop):
        await until(lambda: learner.models)
        killed = learner.models[-1][0]
        learner.finished = rows(1, ttft_ms=POISON_MS)
        await until(lambda: loop.state.starts >= 2)
        await until(lambda: loop.state.dropped)
        learner.finished = rows(3)
        await until(lambda: loop.state.up and learner.models[-1][1] == 3)
    assert loop.state.dropped == 6, "three trainers died of the six"
    assert learner.models[-1][0] > killed


async def test_a_trainer_that_says_nonsense_is_started_again() -> None:
    loop, _ = make("mad")
    async with running(loop):
        await until(lambda: loop.state.starts >= 2)
    assert not loop.state.up


async def test_a_trainer_that_hangs_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning_loop, "PATIENCE_S", 0.05)
    loop, _ = make("silent")
    async with running(loop):
        await until(lambda: loop.state.starts >= 2)
    assert not loop.state.up


async def test_a_trainer_that_cannot_start_is_no_end_of_the_loop() -> None:
    learner = Learner()
    loop = LearningLoop(learner, encode, decode, argv=("/nowhere/at/all",))
    async with running(loop):
        learner.finished = rows(4)
        await until(lambda: loop.state.waiting == 4)
    assert loop.state.starts == 0


async def test_what_waits_for_a_slow_trainer_is_bounded_and_the_oldest_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(learning_loop, "MOST_WAITING", 10)
    loop, learner = make()
    for start in (0, 8, 16):
        learner.finished = rows(8, start)
        loop.collect()
    assert (loop.state.waiting, loop.state.dropped) == (10, 14)
    assert loop.window.rows()["at_s"].tolist() == list(range(24)), "a new trainer is told of them all the same"


async def test_a_changed_endpoints_past_is_forgotten_here_and_by_the_trainer() -> None:
    loop, learner = make()
    learner.finished = rows(6, endpoint=[1, 2] * 3)
    async with running(loop):
        await until(lambda: learner.models and learner.models[-1][1] == 6)
        learner.forgotten.append((1, 100.0))
        learner.finished = rows(1, 6, endpoint=2)
        await until(lambda: learner.models[-1][1] == 4)
    assert loop.window.rows()["endpoint"].tolist() == [2] * 4
    assert not learner.forgotten


async def test_what_an_earlier_process_learned_is_adopted_before_anything_runs() -> None:
    loop, learner = make()
    loop.restore(rows(9), np.array([7.0, 9.0, 100.0]), version=7)
    assert [model.tolist() for model in learner.models] == [[7.0, 9.0, 100.0]]
    async with running(loop):
        await until(lambda: len(learner.models) == 2)
    assert learner.models[1].tolist() == [8, 9, 100.0]
    assert learner.proven == [True, False]


async def test_a_learner_that_fails_is_no_end_unnoticed() -> None:
    loop, learner = make()
    del learner.forgotten
    with pytest.raises(ExceptionGroup):
        await loop.run()
    assert not loop.state.up


async def test_no_trainer_outlives_the_loop() -> None:
    loop, learner = make()
    learner.finished = rows(1)
    async with running(loop):
        await until(lambda: learner.models)
        (child,) = [c for c in psutil.Process().children() if TOY in c.cmdline()]
        assert child.nice() == min(19, psutil.Process().nice() + 10)
    assert not child.is_running()
