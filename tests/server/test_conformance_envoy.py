"""Several gateways in one Envoy: Envoy takes it, and nobody's listener or cluster is mistaken for another's."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from picker.server.conformance_envoy import add_endpoints, side_by_side, weigh
from picker.server.envoy import EnvoySpec

ENVOY = Path(sys.executable).with_name("envoy")


def spec(port: int, **more: Any) -> EnvoySpec:
    return EnvoySpec(port, 21001, (port + 100,), ("127.0.0.11:3000",), response_path="echo", **more)


def bootstrap() -> dict[str, Any]:
    node = side_by_side({"one": spec(21010), "two": spec(21011, tls=True), "three": spec(21012)}, h2c=["two"])
    weigh(node, "one", "three", (70, 30))
    add_endpoints(node, ["127.0.0.11:3000"], 21020)
    return node


def cluster(node: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in node["static_resources"]["clusters"] if each["name"] == name)


def test_envoy_accepts_it(tmp_path: Path) -> None:
    file = tmp_path / "envoy.yaml"
    file.write_text(yaml.safe_dump(bootstrap(), sort_keys=False))
    validated = subprocess.run([ENVOY, "--mode", "validate", "-c", file], capture_output=True, text=True, check=False)
    assert validated.returncode == 0, validated.stderr[-2000:]


def test_every_gateway_has_clusters_of_its_own() -> None:
    node = bootstrap()
    ports = {
        each["name"]: each["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"][
            "socket_address"
        ]["port_value"]
        for each in node["static_resources"]["clusters"]
    }
    assert ports == {
        "one-picker": 21110,
        "one-pool": 3000,
        "two-picker": 21111,
        "two-pool": 3000,
        "three-picker": 21112,
        "three-pool": 3000,
        "echo": 21020,
    }


def test_engines_are_spoken_to_in_http_2_where_that_is_asked_for() -> None:
    node = bootstrap()
    speaks = {name: "typed_extension_protocol_options" in cluster(node, f"{name}-pool") for name in ("one", "two")}
    assert speaks == {"one": False, "two": True}


def test_a_weighted_route_asks_the_epp_of_the_pool_that_it_sends_to() -> None:
    listener = bootstrap()["static_resources"]["listeners"][0]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    first, second = manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"]["weighted_clusters"]["clusters"]
    assert (first["name"], first["weight"], second["name"], second["weight"]) == ("one-pool", 70, "three-pool", 30)
    override = second["typed_per_filter_config"]["envoy.filters.http.ext_proc"]["overrides"]
    assert override["grpc_service"]["envoy_grpc"]["cluster_name"] == "three-picker"
    assert manager["http_filters"][0]["typed_config"]["grpc_service"]["envoy_grpc"]["cluster_name"] == "one-picker"
