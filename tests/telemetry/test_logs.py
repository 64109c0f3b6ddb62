"""Logs: one JSON object a line, on standard error, from the level that was asked for."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import sys, structlog
from picker.telemetry import logs
logs.configure(sys.argv[1])
log = structlog.get_logger("x")
log.debug("small", n=1)
log.info("usual", text='a "b"\\n')
def read(prompt):
    1 / 0
try:
    read("a client's secret")
except ZeroDivisionError as error:
    log.error("bad", exc_info=error)
"""


@pytest.mark.parametrize(
    ("level", "events"),
    [("debug", ["small", "usual", "bad"]), ("info", ["usual", "bad"]), ("warning", ["bad"]), ("error", ["bad"])],
)
def test_each_line_is_json_from_the_asked_level(level: str, events: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, level], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == events
    assert {"level", "time"} <= lines[-1].keys()
    assert lines[-1]["exception"][0]["exc_type"] == "ZeroDivisionError"
    assert done.stdout == ""


def test_an_error_tells_where_but_not_what_was_in_the_variables_there() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, "error"], capture_output=True, text=True, check=True)
    assert '"name": "read"' in done.stderr
    assert "secret" not in done.stderr
