"""The generated bootstrap: Envoy accepts every variant, and the lines that picker depends on are there."""

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from picker.server.envoy import Balancing, EnvoySpec, RequestMode, ResponsePath, bootstrap

ENVOY = Path(sys.executable).with_name("envoy")
PATHS: tuple[ResponsePath, ...] = ("access-log", "detach", "echo")
MODES: tuple[RequestMode, ...] = ("full-duplex", "buffered")
BALANCINGS: tuple[Balancing, ...] = ("override-host", "original-dst")


def spec(**changes: Any) -> EnvoySpec:
    settings = {"listener_port": 21000, "admin_port": 21001, "picker_ports": (21002, 21003)}
    return EnvoySpec(**{**settings, "endpoints": ("127.0.0.1:21010", "[::1]:21011"), **changes})


def filters(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    return {each["name"]: each["typed_config"] for each in manager["http_filters"]}


@pytest.mark.parametrize(("path", "mode", "balancing"), list(itertools.product(PATHS, MODES, BALANCINGS)))
def test_envoy_accepts_every_variant(
    tmp_path: Path, path: ResponsePath, mode: RequestMode, balancing: Balancing
) -> None:
    config = bootstrap(
        spec(response_path=path, request_mode=mode, balancing=balancing, tls=balancing == "original-dst", pool="chat")
    )
    file = tmp_path / "envoy.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    validated = subprocess.run([ENVOY, "--mode", "validate", "-c", file], capture_output=True, text=True, check=False)
    assert validated.returncode == 0, validated.stderr[-2000:]


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("access-log", ("SKIP", "NONE", "SKIP")),
        ("detach", ("SEND", "STREAMED", "SKIP")),
        ("echo", ("SEND", "FULL_DUPLEX_STREAMED", "SEND")),
    ],
)
def test_response_path_sets_the_response_modes(path: ResponsePath, wanted: tuple[str, str, str]) -> None:
    modes = filters(bootstrap(spec(response_path=path)))["envoy.filters.http.ext_proc"]["processing_mode"]
    assert tuple(modes[f"response_{part}_mode"] for part in ("header", "body", "trailer")) == wanted


def test_only_an_echoed_answer_needs_no_access_log() -> None:
    names = {path: set(filters(bootstrap(spec(response_path=path)))) for path in PATHS}
    usage = {"envoy.filters.http.sse_to_metadata", "envoy.filters.http.json_to_metadata"}
    assert usage <= names["access-log"]
    assert usage <= names["detach"]
    assert not usage & names["echo"]


def test_every_worker_port_is_an_endpoint_of_its_own() -> None:
    picker = bootstrap(spec())["static_resources"]["clusters"][0]
    endpoints = picker["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert [each["endpoint"]["address"]["socket_address"]["port_value"] for each in endpoints] == [21002, 21003]
    assert picker["circuit_breakers"]["thresholds"][0]["max_requests"] > 1024


def test_the_picker_is_asked_whether_it_is_ready_as_often_without_traffic_as_with_it() -> None:
    (check,) = bootstrap(spec())["static_resources"]["clusters"][0]["health_checks"]
    assert check["no_traffic_interval"] == check["interval"]


def test_a_pool_is_named_to_the_picker_where_it_has_several() -> None:
    grpc = filters(bootstrap(spec(pool="chat")))["envoy.filters.http.ext_proc"]["grpc_service"]
    assert grpc["initial_metadata"] == [{"key": "x-picker-pool", "value": "chat"}]
    assert "initial_metadata" not in filters(bootstrap(spec()))["envoy.filters.http.ext_proc"]["grpc_service"]


@pytest.mark.parametrize("path", PATHS)
def test_the_snippets_in_the_docs_are_what_is_generated(path: ResponsePath) -> None:
    page = (Path(__file__).parents[2] / "docs" / "envoy.md").read_text()
    section = page.split(f"## Path `{path}`")[1].split("\n## ")[0]
    snippets = [yaml.safe_load(block.split("```")[0]) for block in section.split("```yaml\n")[1:]]
    config = bootstrap(spec(response_path=path))
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    generated = {**manager, **filters(config)["envoy.filters.http.ext_proc"]}
    assert snippets
    for snippet in snippets:
        assert {key: generated[key] for key in snippet} == snippet
