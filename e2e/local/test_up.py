"""`picker up`: the main job on one machine."""

import asyncio
import contextlib
import json
import signal
import sys
from pathlib import Path

import aiohttp
import psutil
from gateway import PATIENCE_S, until
from prometheus_client.parser import text_string_to_metric_families

from picker.server.up.ports import HOST

UP = [sys.executable, "-m", "picker.server.cli", "up", "--engines", "3", "--requests", "25", "--speedup", "10"]


async def until_said(process: asyncio.subprocess.Process, words: bytes) -> None:
    """Read its output up to these words."""
    assert process.stdout is not None
    said = b""
    while words not in said:
        piece = await asyncio.wait_for(process.stdout.read(4096), PATIENCE_S)
        assert piece, said.decode(errors="replace")
        said += piece


async def test_the_script_form_exits_0_and_reports_when_every_answer_was_complete(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    process = await asyncio.create_subprocess_exec(
        *UP, "--once", "--policy", "least-request", "--response-path", "echo", "--json", str(report)
    )
    assert await process.wait() == 0
    told = json.loads(report.read_text())
    assert (told["requests"], told["ok"], told["errors"]) == (25, 25, 0)
    assert len(told["picks"]) == 3
    assert sum(told["picks"].values()) == 25
    for figure in ("ttft_ms", "tpot_ms", "e2e_ms"):
        assert 0 < told[figure]["p50"] <= told[figure]["p99"]
    assert told["envoy_version"].startswith("1.40")


async def test_ctrl_c_stops_everything_and_leaves_no_child() -> None:
    process = await asyncio.create_subprocess_exec(*UP, stdout=asyncio.subprocess.PIPE)
    await until_said(process, b"Ctrl-C stops everything.")
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) == 6, "engines, Envoy, picker and its trainer"
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
    assert not [child for child in children if child.is_running()]


async def test_the_script_form_fails_when_an_answer_is_cut_off() -> None:
    process = await asyncio.create_subprocess_exec(*UP, "--once", "--speedup", "1", "--requests", "3")
    engines: list[psutil.Process] = []

    async def one_is_busy() -> bool:
        engines[:] = [child for child in psutil.Process(process.pid).children() if "engine" in child.cmdline()]
        ports = [child.cmdline()[child.cmdline().index("--port") + 1] for child in engines]
        with contextlib.suppress(aiohttp.ClientError):
            return any([await running_at(port) for port in ports])
        return False

    await until(one_is_busy)
    for child in engines:
        child.kill()
    assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 1


async def running_at(port: str) -> float:
    """Requests that an engine works on."""
    async with aiohttp.ClientSession() as session, session.get(f"http://{HOST}:{port}/metrics") as response:
        families = text_string_to_metric_families(await response.text())
        return sum(s.value for family in families for s in family.samples if s.name == "vllm:num_requests_running")
