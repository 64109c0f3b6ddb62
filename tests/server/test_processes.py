"""Children that are started, stopped, and never outlive who started them."""

import asyncio
import signal
import sys
from pathlib import Path

import psutil
import pytest

from picker.server.processes import Child, Children

FOREVER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
]
HOLDER = """
import multiprocessing, time
semaphore = multiprocessing.get_context("spawn").Semaphore(1)
print("up", semaphore._semlock.name, flush=True)
time.sleep(600)
"""
PARENT = """
import asyncio, sys, time
from pathlib import Path
from picker.server.processes import Children

async def main():
    child = await Children(Path(sys.argv[1])).start("child", [sys.executable, "-c", "import time; time.sleep(600)"])
    print(child.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def up(child: Child) -> Child:
    """Wait until the child says so."""
    async with asyncio.timeout(120):
        while "up" not in child.tail():
            await asyncio.sleep(0.01)
    return child


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def until_gone(pid: int) -> None:
    async with asyncio.timeout(120):
        while not gone(pid):
            await asyncio.sleep(0.01)


async def test_a_child_writes_its_log_and_ends_when_told(tmp_path: Path) -> None:
    children = Children(tmp_path / "logs")
    child = await up(await children.start("one", FOREVER))
    assert child.running
    assert (tmp_path / "logs" / "one.log").read_text() == "up\n"
    await child.stop()
    assert not child.running
    assert child.process.returncode == -signal.SIGTERM


async def test_a_child_that_ignores_the_signal_is_killed(tmp_path: Path) -> None:
    child = await up(await Children(tmp_path).start("stubborn", STUBBORN))
    await child.stop(patience_s=0.1)
    assert child.process.returncode == -signal.SIGKILL


async def test_grandchildren_go_with_the_group(tmp_path: Path) -> None:
    shell = ["sh", "-c", "sleep 600 & echo up; wait"]
    child = await up(await Children(tmp_path).start("shell", shell))
    (grandchild,) = psutil.Process(child.pid).children()
    await child.stop()
    await until_gone(grandchild.pid)


async def test_shared_memory_of_a_child_is_taken_away_when_it_is_stopped(tmp_path: Path) -> None:
    child = await up(await Children(tmp_path).start("holder", [sys.executable, "-c", HOLDER]))
    _, name = child.tail().split()
    semaphore = Path(f"/dev/shm/sem.{name.lstrip('/')}")
    assert semaphore.exists()
    await child.stop()
    assert not semaphore.exists()


async def test_all_children_are_stopped_together(tmp_path: Path) -> None:
    children = Children(tmp_path)
    started = [await up(await children.start(f"child-{i}", FOREVER)) for i in range(3)]
    await children.stop()
    assert not any(child.running for child in started)
    assert children.all == []


async def test_stopping_what_ended_by_itself_is_no_error(tmp_path: Path) -> None:
    children = Children(tmp_path)
    child = await children.start("short", [sys.executable, "-c", "raise SystemExit(3)"])
    await child.process.wait()
    assert children.dead() is child
    child.signal(signal.SIGTERM)
    await children.stop()
    assert child.process.returncode == 3


async def test_the_end_of_the_output_explains_a_failure(tmp_path: Path) -> None:
    script = "print('\\n'.join(map(str, range(100)))); raise SystemExit('no such engine')"
    child = await Children(tmp_path).start("failing", [sys.executable, "-c", script])
    await child.process.wait()
    assert child.tail(lines=2) == "99\nno such engine"


async def test_a_command_that_does_not_exist_is_an_os_error(tmp_path: Path) -> None:
    children = Children(tmp_path)
    with pytest.raises(FileNotFoundError):
        await children.start("nothing", [str(tmp_path / "no-such-command")])
    assert children.all == []


async def test_children_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    parent = await Children(tmp_path / "a").start("parent", [sys.executable, "-c", PARENT, str(tmp_path / "b")])
    async with asyncio.timeout(120):
        while not parent.tail():
            await asyncio.sleep(0.01)
    child = int(parent.tail())
    assert not gone(child)
    parent.process.kill()
    await until_gone(child)
