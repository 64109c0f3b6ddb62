"""The learned policy with real processes: it takes over, survives its trainer's death, and is warm after a restart."""

import asyncio
import contextlib
import random
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
from gateway import PATIENCE_S, Gateway, chat, gateway, new_words, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
LEARNED = ("--policy", "learned", "--seed", "3")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    argv = (*LEARNED, "--state-dir", str(tmp_path_factory.mktemp("state")))
    async with gateway(speedup=1.0, argv=argv, expected="trainer ended, starting it again") as there:
        yield there


@pytest_asyncio.fixture(loop_scope="module")
async def running(stack: Gateway) -> AsyncIterator[Gateway]:
    """It has a picker that learns, and nothing is under way before or after."""
    await stack.start_picker()
    await stack.at_rest()
    yield stack
    if stack.picker.running:
        await stack.at_rest()


def prompt() -> dict[str, Any]:
    """A streamed request like no other; lengths differ, so that there is something to learn."""
    return chat(new_words(random.choice((50, 1000, 5000))), stream=True, max_tokens=8)


@contextlib.asynccontextmanager
async def traffic(running: Gateway) -> AsyncIterator[None]:
    """Requests one after another from a few clients; none may fail."""
    stop = asyncio.Event()

    async def client() -> None:
        while not stop.is_set():
            reply = await running.ask(prompt())
            assert reply.ok, reply
            await asyncio.sleep(random.random() * 0.1)

    clients = [asyncio.create_task(client()) for _ in range(6)]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*clients)


async def learned(running: Gateway) -> dict[str, Any]:
    """What the picker says of its learning."""
    facts = await running.stack.learning(running.session)
    assert facts is not None
    return facts


async def taken_over(running: Gateway) -> dict[str, Any]:
    """Wait until the model is in charge."""

    async def by_model() -> dict[str, Any] | None:
        facts = await learned(running)
        return facts if facts["by"] == "model" else None

    facts: dict[str, Any] = await until(by_model)
    return facts


def trainer_of(running: Gateway) -> psutil.Process | None:
    """The picker's trainer process."""
    children = psutil.Process(running.picker.pid).children()
    return next((child for child in children if "picker.server.trainer" in " ".join(child.cmdline())), None)


async def test_the_model_takes_over_and_its_picks_can_be_explained(running: Gateway) -> None:
    async with traffic(running):
        facts = await taken_over(running)
        assert facts["version"] >= 1
        assert facts["rows"] >= 50

        async def by_model() -> dict[str, Any] | None:
            reply = await running.ask(prompt())
            decision = await running.decided(reply.request_id)
            return decision if decision["by"] == "model" else None

        decision = await until(by_model)
    assert await running.metric("picker_model_version") >= 1
    assert await running.metric("picker_learned_picks_total", by="model") >= 1
    assert await running.metric("picker_trainer_up") == 1
    command = [sys.executable, "-m", "picker.server.cli", "explain", decision["request_id"]]
    process = await asyncio.create_subprocess_exec(
        *command, "--admin", running.stack.admin, stdout=asyncio.subprocess.PIPE, env={"COLUMNS": "200"}
    )
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0
    assert "decided by model" in said
    assert "LMetric alone would have picked" in said
    assert f"TTFT {decision['outcome']['ttft_ms']:.1f} ms (predicted " in said


async def test_a_trainer_that_is_killed_is_started_again_and_no_request_notices(running: Gateway) -> None:
    async with traffic(running):
        before = await taken_over(running)
        trainer = trainer_of(running)
        assert trainer is not None
        trainer.kill()

        async def learns_on() -> bool:
            facts = await learned(running)
            another = facts["starts"] == before["starts"] + 1
            return bool(another and facts["up"] and facts["version"] > before["version"])

        await until(learns_on)
        assert await running.metric("picker_trainer_starts_total") == before["starts"] + 1


async def test_a_restarted_picker_picks_by_its_model_from_the_first_request_on(running: Gateway) -> None:
    async with traffic(running):
        before = await taken_over(running)
    await running.at_rest()
    running.picker.signal(signal.SIGTERM)
    assert await asyncio.wait_for(running.picker.process.wait(), PATIENCE_S) == 0
    await running.start_picker()
    facts = await learned(running)
    assert facts["version"] >= before["version"]
    assert facts["by"] == "model"
    picks = [await running.decided((await running.ask(prompt())).request_id) for _ in range(5)]
    # A slice of all picks is the rule's to the end; none is because there is no model yet.
    assert "model" in [pick["by"] for pick in picks], [pick["because"] for pick in picks]
    assert "cold" not in [pick["because"] for pick in picks]


async def test_no_trainer_outlives_a_picker_that_is_killed(running: Gateway) -> None:
    trainer = await until(lambda: asyncio.to_thread(trainer_of, running))
    running.picker.signal(signal.SIGKILL)
    await running.picker.process.wait()

    async def gone() -> bool:
        return not trainer.is_running() or trainer.status() == psutil.STATUS_ZOMBIE

    await until(gone)


async def test_a_damaged_memory_is_passed_over(running: Gateway) -> None:
    running.picker.signal(signal.SIGKILL)
    await running.picker.process.wait()
    (Path(running.argv[-1]) / "learned-0").write_bytes(b"pickerL1" + bytes(100))
    await running.start_picker()
    assert (await running.ask(prompt())).ok
    assert (await learned(running))["version"] == 0
    assert "what was learned cannot be read" in running.picker.log.read_text()
