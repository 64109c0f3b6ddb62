"""The main job in its script form, with real engines behind real Envoy."""

import asyncio
import json
import sys
from pathlib import Path

from picker.server.vllm_install import VllmInstall


async def test_picker_up_serves_a_trace_with_real_engines(install: VllmInstall, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "picker.server.cli", "up", "--once", "--engine", "vllm"]
    asked = ["--engines", "2", "--requests", "8", "--json", str(report)]
    process = await asyncio.create_subprocess_exec(*command, *asked)
    assert await process.wait() == 0
    told = json.loads(report.read_text())
    assert (told["requests"], told["ok"], told["errors"]) == (8, 8, 0)
    assert sum(told["picks"].values()) == 8
    assert told["ttft_ms"]["p50"] > 0
