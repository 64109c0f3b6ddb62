"""What is left of an engine when whoever started it is gone."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
from session import PORTS, serving

from picker.server.vllm_engine import VllmEngine, spread_cores
from picker.server.vllm_install import CACHE, VllmInstall

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

SHARED = Path("/dev/shm")
STARTER = """
import asyncio, sys
from pathlib import Path
from picker.server.processes import Children
from picker.server.vllm_engine import VllmEngine, start, wait_ready

async def main(venv, model, logs, *ports):
    engine = VllmEngine(Path(model), *map(int, ports), kv_bytes=8 << 20, max_model_len=1024)
    child = await start(engine, Path(venv), Children(Path(logs)), "e2e-orphan")
    await wait_ready(engine, child)
    print(child.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_no_engine_process_is_left_when_its_starter_is_killed(install: VllmInstall) -> None:
    ports = [str(port) for port in PORTS[10:13]]
    starter = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", STARTER, str(install.venv), str(install.model("tiny")), str(CACHE / "logs"), *ports),
        stdout=asyncio.subprocess.PIPE,
    )
    assert starter.stdout is not None
    leader = psutil.Process(int(await starter.stdout.readline()))
    group = [leader, *leader.children(recursive=True)]
    starter.send_signal(signal.SIGKILL)
    try:
        _, alive = await asyncio.to_thread(psutil.wait_procs, group, 30)
        assert not alive
    finally:
        if leader.is_running():
            os.killpg(leader.pid, signal.SIGKILL)


async def test_a_stopped_engine_leaves_neither_process_nor_shared_memory(install: VllmInstall) -> None:
    (core,) = spread_cores(1)
    before, others = set(os.listdir(SHARED)), set(psutil.Process().children(recursive=True))
    port, events, replay = PORTS[13:16]
    engine = VllmEngine(install.model("tiny"), port, events, replay, core=core, kv_bytes=8 << 20, max_model_len=1024)
    async with serving(engine, install.venv, "e2e-stopped"):
        group = [each for each in psutil.Process().children(recursive=True) if each not in others]
        assert len(group) > 1
        assert {tuple(process.cpu_affinity() or ()) for process in group} == {(core,)}
    _, alive = await asyncio.to_thread(psutil.wait_procs, group, 30)
    assert not alive
    left = {name for name in set(os.listdir(SHARED)) - before if name.startswith(("psm_", "sem.mp-"))}
    mapped = in_use()
    assert not {name for name in left if (SHARED / name).stat().st_ino not in mapped}


def in_use() -> set[int]:
    """Inodes that a living process has mapped: somebody else's memory, once the engine's processes are gone."""
    return {
        int(fields[4])
        for process in psutil.process_iter()
        for fields in map(str.split, mappings(process))
        if len(fields) > 5 and fields[5].startswith("/dev/shm/")
    }


def mappings(process: psutil.Process) -> list[str]:
    try:
        return Path(f"/proc/{process.pid}/maps").read_text().splitlines()
    except OSError:
        return []
