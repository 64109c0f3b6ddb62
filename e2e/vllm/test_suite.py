"""`picker up` with real engines: it serves its trace, and then passes the suite that a cluster's gateway must pass."""

import json
from pathlib import Path

import pytest

from e2e.suite.against_up import fails_of_suite
from picker.server.vllm_install import VllmInstall


@pytest.mark.timeout(900)
async def test_picker_up_with_vllm_serves_a_trace_and_passes_the_suite(install: VllmInstall, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    options = ["--engine", "vllm", "--engines", "2", "--requests", "8", "--policy", "multiplicative"]
    assert await fails_of_suite([*options, "--json", str(report)], without="embeddings", patience_s=600) == ""
    told = json.loads(report.read_text())
    assert (told["requests"], told["ok"], told["errors"]) == (8, 8, 0)
    assert sum(told["picks"].values()) == 8
    assert told["ttft_ms"]["p50"] > 0
