"""`picker envoy-config` writes what the generator makes, and Envoy takes it."""

import subprocess
import sys
from pathlib import Path

import yaml
from click.testing import CliRunner

from picker.server.cli import main
from picker.server.envoy import EnvoySpec, bootstrap

ENVOY = Path(sys.executable).with_name("envoy")


def written(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["envoy-config", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_envoy_accepts_what_is_written_by_default(tmp_path: Path) -> None:
    file = tmp_path / "envoy.yaml"
    assert written("--output", str(file)) == ""
    validated = subprocess.run([ENVOY, "--mode", "validate", "-c", file], capture_output=True, text=True, check=False)
    assert validated.returncode == 0, validated.stderr[-2000:]


def test_every_worker_gets_the_next_port_and_the_admin_port_stays_on_localhost() -> None:
    config = yaml.safe_load(written("--workers", "2", "--listener-port", "8080"))
    assert config == bootstrap(
        EnvoySpec(8080, 19000, picker_ports=(9002, 9003), balancing="original-dst", listen="0.0.0.0")
    )
    assert config["admin"]["address"]["socket_address"]["address"] == "127.0.0.1"


def test_endpoints_are_for_override_host_alone() -> None:
    runner = CliRunner()
    assert "only with it" in runner.invoke(main, ["envoy-config", "--endpoints", "10.0.0.1:8000"]).output
    assert "only with it" in runner.invoke(main, ["envoy-config", "--balancing", "override-host"]).output
    assert "10.0.0.1" in written("--balancing", "override-host", "--endpoints", "10.0.0.1:8000")
