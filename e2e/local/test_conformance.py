"""The conformance pack: the real picker passes all of it through a real Envoy, and a wrong EPP does not."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[2] / "tests" / "conformance"))

from small_epp import SmallEpp, serving

from picker.exchange.events import RequestArrived
from picker.server.up.ports import free_run

PODS = ("127.0.0.31", "127.0.0.32", "127.0.0.33")


async def conformance(folder: Path, *argv: str) -> tuple[int, dict[str, Any]]:
    """The exit status of the command, and its JSON."""
    file = folder / "results.json"
    command = [sys.executable, "-m", "picker.server.cli", "conformance", "--envoy", "--json", str(file), *argv]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert file.exists(), output.decode()
    return process.returncode or 0, json.loads(file.read_text())


def failed(found: dict[str, Any]) -> dict[str, str]:
    return {case["name"]: case["seen"] for case in found["cases"] if case["verdict"] == "failed"}


async def test_picker_passes_every_case_and_every_case_is_asked(tmp_path: Path) -> None:
    status, found = await conformance(tmp_path, "--patience", "20")
    assert failed(found) == {}
    assert (status, found["not_asked"]) == (0, 0)
    assert found["passed"] >= 80


async def test_an_epp_that_steers_elsewhere_and_has_errors_for_answers_is_found_out(tmp_path: Path) -> None:
    first = free_run(3)
    pool = tuple(f"{ip}:{port}" for ip in PODS for port in range(first, first + 3))

    def elsewhere(arrived: RequestArrived) -> tuple[str, ...] | None:
        nowhere = not arrived.subset or "192.0.2.1:1" in arrived.subset
        return arrived.subset if nowhere else pool[-1:]

    wrong = SmallEpp(pool, restrict=elsewhere, errors=True)
    async with serving(wrong) as port:
        address = f"127.0.0.1:{port}"
        argv = ["--epp", address, "--health", address, "--insecure", "--endpoints", ",".join(pool), "--testing-plugins"]
        status, found = await conformance(tmp_path, *argv, "--patience", "5")
    through_envoy = {case["name"] for case in found["cases"] if case["pack"] in ("following", "bodies", "failing")}
    assert status == 1
    assert failed(found).keys() & through_envoy == {
        "following-1-pods",
        "following-2-pods",
        "following-ports",
        "served-header-is-where-it-arrived",
        "steered-out-of-the-pool-is-answered-with-503",
    }
    assert "steering-header-names-the-endpoint" in failed(found)
