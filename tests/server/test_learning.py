"""What a picker learned outlives it."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from experience_rows import learnable
from structlog.testing import capture_logs

from picker.engines.table import EngineTable
from picker.learning.guard import Mode
from picker.learning.memory import Memory, packed
from picker.learning.training import train
from picker.policies.learned import Learned, Params
from picker.server import state_file
from picker.server.learning import Learning

ROWS = learnable(60)


def make(file: Path | None, now: float = 1000.0) -> tuple[Learning, Learned, EngineTable]:
    policy, table = Learned(Params(), np.random.default_rng(0)), EngineTable()
    return Learning(policy, table, lambda: now, file), policy, table


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """What a picker left that knew of two classes and stopped when its clock showed 100."""
    state_file.write(tmp_path / "learned-0", packed(Memory(100.0, ROWS, ("", "H100", "L40S"), train(ROWS, 7))))
    return tmp_path / "learned-0"


def test_a_restarted_picker_decides_by_the_model_at_once(file: Path) -> None:
    learning, policy, table = make(file)
    learning.restore()
    assert policy.mode is Mode.LEARNED
    assert learning.as_json()["version"] == 7
    table.classify(0, "L40S")
    assert table.hardware == ["", "H100", "L40S"]


def test_rows_of_the_former_process_are_moved_to_this_ones_clock_and_endpoints(file: Path) -> None:
    learning, _, _ = make(file, now=1000.0)
    learning.restore()
    rows = learning.loop.window.rows()
    np.testing.assert_allclose(rows["at_s"], ROWS["at_s"] + 900.0)
    assert not set(rows["endpoint"].tolist()) & set(range(1000)), "numbers that this process gives to its own"


async def test_what_was_learned_is_kept_at_the_end_and_read_again(file: Path) -> None:
    for _ in range(2):
        learning, _, _ = make(file)
        learning.restore()
        await learning.close()
    again, policy, table = make(file)
    again.restore()
    assert (len(again.loop.window), again.loop.state.version) == (60, 7)
    assert (policy.mode, table.hardware) == (Mode.LEARNED, ["", "H100", "L40S"])


@pytest.mark.parametrize("content", [b"", b"pickerL1", b"x" * 5000])
def test_a_file_that_is_no_memory_is_passed_over_and_said_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "learned-0").write_bytes(content)
    learning, policy, _ = make(tmp_path / "learned-0")
    with capture_logs() as logs:
        learning.restore()
    assert [line["event"] for line in logs] == ["what was learned cannot be read"]
    assert policy.mode is Mode.RULE


async def test_a_folder_that_cannot_be_written_is_said_so_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    learning, _, _ = make(tmp_path / "a file" / "learned-0")
    with capture_logs() as logs:
        await learning.close()
    assert [line["event"] for line in logs] == ["what was learned cannot be kept"]


async def test_without_a_file_nothing_is_kept() -> None:
    learning, policy, _ = make(None)
    learning.restore()
    await learning.close()
    assert policy.mode is Mode.RULE


async def test_a_fault_in_learning_is_said_and_learning_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    learning, _, _ = make(None)
    tries = 0

    async def faulty() -> None:
        nonlocal tries
        tries += 1
        raise ZeroDivisionError

    monkeypatch.setattr("picker.server.learning.AGAIN_S", 0.0)
    monkeypatch.setattr(learning.loop, "run", faulty)
    with capture_logs() as logs:
        running = asyncio.create_task(learning.run())
        while tries < 3:
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert logs[0]["event"] == "learning failed, going on"
    assert running.cancelled()
