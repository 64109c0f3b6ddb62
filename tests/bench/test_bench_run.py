"""One short real round: real Envoy, real picker, four small backends."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ONLY = "none_2k,lean_none_2k,lean_in_turn_2k"


def test_a_short_run_writes_a_record_of_its_figures(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "bench.run",
            "--short",
            "--only",
            "none_2k,lean_none_2k,lean_in_turn_2k",
            "--json",
            str(file),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    record = json.loads(file.read_text())
    figure = record["cpu_us_per_request"]["none_2k"]
    assert set(figure) == {"median", "min", "max", "runs"}
    assert len(figure["runs"]) == 2
    assert 0 < figure["min"] <= figure["median"] <= figure["max"]
    assert record["envoy_us_per_request"]["none_2k"]["min"] > 0
    assert record["messages_per_request"]["none_2k"]["min"] >= 3
    assert len(record["load_average"]) == 2
    assert {"cores", "python", "envoy", "date", "command"} <= set(record["machine"])
    assert "request, 2 KB, access" in ran.stdout
    assert record["lean"]["cpu_us_per_request"]["none_2k"]["min"] > 0
    assert record["lean"]["cpu_us_per_request"]["in_turn_2k"]["min"] > 0
    assert record["peers"] == {}
