"""The command line of `picker serve`: what it refuses before anything listens."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from picker.server.cli import main
from picker.server.options import ServeOptions, parse_pools
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
    pools = parse_pools("chat,embed:9100")
    options = ServeOptions(workers=3, grpc_health_port=9005, admin_port=9093, pools=pools)
    assert options.port_conflict() == ""
    last = options.for_worker(2)
    assert (last.grpc_port, last.grpc_health_port, last.metrics_port, last.admin_port) == (9004, 9007, 9092, 9095)
    assert [pool.port for pool in last.pools] == [None, 9102]


def test_the_port_of_a_pool_is_nobody_elses() -> None:
    assert "pool embed" in ServeOptions(pools=parse_pools("chat,embed:9090")).port_conflict()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--endpoint-selector", "app=x", "--endpoint-target-ports", "8000", "--pool-name", "p"], "in place of a pool"),
        (["--endpoint-selector", "app=x"], "target ports"),
        (["--endpoint-selector", "env in (a,b)", "--endpoint-target-ports", "8000"], "only key=value"),
        (["--endpoint-selector", "app", "--endpoint-target-ports", "8000"], "only key=value"),
        (["--endpoint-selector", "app=x", "--endpoint-target-ports", "1,2,3,4,5,6,7,8,9"], "1 to 8"),
        (["--endpoint-selector", "app=x", "--endpoint-target-ports", "http"], "no list of ports"),
        (["--pool-name", "a,a"], "a name of its own"),
        (["--pool-name", "a,,b"], "a name of its own"),
        (["--pool-name", "a:x"], "no port"),
        (["--pool-name", "A_B"], "no name of an InferencePool"),
        (["--pool-name", "a", "--pool-namespace", "../.."], "no namespace"),
        (["--pool-name", "a", "--config-text", "x", "--config-file", __file__], "two configurations"),
        (["--pool-name", "a,b", "--endpoints", "10.0.0.1:1"], "of one pool"),
        (["--pool-name", "a,b", "--endpoints-file", "pool.yaml"], "{pool}"),
        (["--pool-name", "a", "--ha-enable-leader-election", "--workers", "2"], "one worker"),
        (["--endpoints", "10.0.0.1:1", "--ha-enable-leader-election"], "Lease"),
        (["--pool-name", "a", "--metrics-client-ca-file", __file__], "--metrics-cert-dir"),
        (["--pool-name", "a", "--pool-group", "inference.networking.x-k8s.io"], "its InferencePools are gone"),
        (["--pool-name", "a", "--drain-timeout", "soon"], "no duration"),
        (["--pool-name", "a", "--grpc-max-recv-msg-size", "big"], "no size"),
    ],
)
def test_what_does_not_go_together_is_a_usage_error_that_says_so(argv: list[str], message: str) -> None:
    result = serve(*argv)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ServeOptions]:
    """The options with which a command line would serve."""

    def ask(*argv: str) -> ServeOptions:
        seen: list[ServeOptions] = []
        monkeypatch.setattr("picker.server.serve_command.run_service", seen.append)
        monkeypatch.setattr("picker.server.serve_command.uvloop.run", lambda _: None)
        result = serve(*argv)
        assert result.exit_code == 0, result.output
        return seen[0]

    return ask


def test_the_arguments_of_the_conformance_suites_deployment_are_understood(asked: Callable[..., ServeOptions]) -> None:
    options = asked(
        *("--pool-name", "primary", "--pool-namespace", "infra", "--v", "4", "--zap-encoder", "json"),
        *("--grpc-port", "9002", "--grpc-health-port", "9003"),
    )
    assert options.in_cluster
    assert options.scope("primary").pool == "primary"
    assert (options.namespace, options.grpc_health_port) == ("infra", 9003)
    assert options.lease == "epp-infra-primary.llm-d.ai"


def test_switches_take_a_value_or_none_as_in_go(asked: Callable[..., ServeOptions]) -> None:
    options = asked(
        "--pool-name=p", "--secure-serving=false", "--enable-cert-reload", "--ha-enable-leader-election=true"
    )
    assert (options.secure_serving, options.enable_cert_reload, options.leader_election) == (False, True, True)
    assert asked("--pool-name=p", "--secure-serving", "false", "-v=4").secure_serving is False


def test_times_and_sizes_are_written_as_in_go(asked: Callable[..., ServeOptions]) -> None:
    options = asked("--pool-name=p", "--drain-timeout=1m30s", "--drain-pause", "2", "--grpc-max-recv-msg-size=10MiB")
    assert (options.drain_timeout_s, options.drain_pause_s, options.max_receive_bytes) == (90.0, 2.0, 10 << 20)


@pytest.mark.parametrize(("given", "scraped"), [("1ms", 0.05), ("100ms", 0.1), ("1h", 1.5)])
def test_the_interval_between_scrapes_stays_in_what_can_be_kept(
    asked: Callable[..., ServeOptions], given: str, scraped: float
) -> None:
    assert asked("--pool-name=p", f"--refresh-metrics-interval={given}").scrape_interval_s == scraped


def test_a_kubeconfig_may_be_named_by_a_flag(
    asked: Callable[..., ServeOptions], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", "elsewhere")
    file = tmp_path / "config"
    file.touch()
    asked("--pool-name=p", "--kubeconfig", str(file))
    assert os.environ["KUBECONFIG"] == str(file)


def test_the_environment_says_where_the_pool_is(
    asked: Callable[..., ServeOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAMESPACE", "from-env")
    monkeypatch.setenv("POD_NAME", "chat-epp-5d9c8-x7k2p")
    options = asked("--endpoint-selector=app=vllm,tier==gpu", "--endpoint-target-ports=8000,8001,8000")
    assert (options.namespace, options.pools[0].name) == ("from-env", "chat-epp")
    assert options.identity.startswith("chat-epp-5d9c8-x7k2p_")
    scope = options.scope("chat-epp")
    assert (dict(scope.selector), scope.target_ports) == ({"app": "vllm", "tier": "gpu"}, (8000, 8001))
    assert asked("--pool-name=p", "--pool-namespace=given").namespace == "given"


def test_the_health_port_follows_the_last_grpc_port(asked: Callable[..., ServeOptions]) -> None:
    assert asked("--pool-name=chat").grpc_health_port == 9003
    assert asked("--pool-name=chat,embed:9003").grpc_health_port == 9004


def test_two_identities_of_one_pod_differ(asked: Callable[..., ServeOptions]) -> None:
    assert asked("--pool-name=p").identity != asked("--pool-name=p").identity
