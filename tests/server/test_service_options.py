"""The command line of `picker serve`: what it refuses before anything listens."""

import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from picker.server.cli import main
from picker.server.options import ServeOptions
from picker.server.up.ports import free_ports, free_run


def serve(*argv: str) -> Result:
    return CliRunner().invoke(main, ["serve", *argv])


def test_no_endpoints_is_a_usage_error() -> None:
    result = serve()
    assert result.exit_code == 2
    assert "--endpoints" in result.output


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--workers", "2", "--grpc-port", "9002", "--grpc-health-port", "9003"], "port 9003"),
        (["--metrics-port", "9002"], "port 9002"),
        (["--workers", "8", "--grpc-port", "65530"], "65530"),
    ],
)
def test_ports_that_cannot_be_are_a_usage_error(argv: list[str], message: str) -> None:
    result = serve("--endpoints", "10.0.0.1:8000", *argv)
    assert result.exit_code == 2
    assert message in result.output


def test_a_taken_port_is_an_error_message() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        others = [
            f"--{name}-port={free}"
            for name, free in zip(("grpc-health", "metrics", "admin"), free_ports(3), strict=True)
        ]
        result = serve("--host", "127.0.0.1", "--endpoints", "10.0.0.1:8000", f"--grpc-port={port}", *others)
    assert result.exit_code == 1
    assert port in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_config_that_cannot_be_used_names_the_line(tmp_path: Path, workers: str) -> None:
    file = tmp_path / "picker.yaml"
    file.write_text("apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugin: []\n")
    result = serve("--endpoints", "10.0.0.1:8000", "--config-file", str(file), "--workers", workers)
    assert result.exit_code == 1
    assert f"{file}:3:1" in result.output


def test_a_certificate_folder_without_a_certificate_is_an_error_message(tmp_path: Path) -> None:
    grpc, metrics = free_run(2), free_run(2)
    ports = [f"--grpc-port={grpc}", f"--metrics-port={metrics}"]
    result = serve("--host", "127.0.0.1", "--endpoints", "10.0.0.1:8000", *ports, "--cert-path", str(tmp_path))
    assert result.exit_code == 1
    assert "tls.key" in result.output


def test_workers_get_consecutive_ports() -> None:
    options = ServeOptions(workers=3, grpc_health_port=9005, admin_port=9093)
    assert options.port_conflict() == ""
    last = options.for_worker(2)
    assert (last.grpc_port, last.grpc_health_port, last.metrics_port, last.admin_port) == (9004, 9007, 9092, 9095)
