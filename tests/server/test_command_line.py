"""The command line as a whole."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from picker.server.cli import main


def test_every_command_says_what_it_does() -> None:
    listed = CliRunner().invoke(main, ["--help"]).output.partition("Commands:")[2].split("\n")
    said = dict(line.split(maxsplit=1) for line in listed if line.strip())
    assert {"conformance", "engine", "explain", "handoff", "replay", "serve", "up"} <= said.keys()
    for command in said:
        assert CliRunner().invoke(main, [command, "--help"]).exit_code == 0


def test_a_command_that_there_is_not_is_named() -> None:
    result = CliRunner().invoke(main, ["no-such-command"])
    assert result.exit_code == 2
    assert "no-such-command" in result.output


@pytest.mark.parametrize("module", ["engine", "handoff", "serve_command"])
def test_only_who_learns_waits_for_scipy(module: str) -> None:
    loaded = f"import sys, picker.server.{module}; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout.split()
    assert f"picker.server.{module}" in modules
    assert not {"scipy.optimize", "scipy.stats", "lightgbm"} & set(modules)
