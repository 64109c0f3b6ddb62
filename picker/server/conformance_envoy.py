"""One Envoy for the conformance pack: gateways side by side, and the endpoints behind them. Pure: specs in, a dict out.

An endpoint is a listener that hears HTTP/1.1 and h2c alike, notes where and how a request came, and passes it on to one
echo server.
"""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from picker.conformance import echo
from picker.server.envoy import EnvoySpec, Node, bootstrap

_EXT = "type.googleapis.com/envoy.extensions"
_REFERENCES = ("cluster", "cluster_name")
HTTP_2 = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": f"{_EXT}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
}


def side_by_side(gateways: Mapping[str, EnvoySpec], *, h2c: Iterable[str] = ()) -> Node:
    """One bootstrap of several: names of listeners and clusters begin with the gateway's. The first one's admin port
    is everybody's. The engines of those in `h2c` are spoken to in HTTP/2."""
    nodes = {name: _named(name, bootstrap(spec)) for name, spec in gateways.items()}
    for name in h2c:
        _cluster(nodes[name], f"{name}-pool")["typed_extension_protocol_options"] = HTTP_2
    merged, *others = nodes.values()
    for other in others:
        for kind in ("listeners", "clusters"):
            merged["static_resources"][kind] += other["static_resources"][kind]
    return merged


def weigh(node: Node, first: str, second: str, weights: tuple[int, int]) -> None:
    """Let the listener of gateway `first` send by weight to its own pool and to that of `second`, each by its EPP."""
    ours, theirs = _manager(node, first), _manager(node, second)
    route = ours["route_config"]["virtual_hosts"][0]["routes"][0]["route"]
    del route["cluster"]
    asked = "envoy.filters.http.ext_proc"
    other_epp = next(each["typed_config"] for each in theirs["http_filters"] if each["name"] == asked)
    override = {
        "@type": f"{_EXT}.filters.http.ext_proc.v3.ExtProcPerRoute",
        "overrides": {"grpc_service": other_epp["grpc_service"]},
    }
    route["weighted_clusters"] = {
        "clusters": [
            {"name": f"{first}-pool", "weight": weights[0]},
            {"name": f"{second}-pool", "weight": weights[1], "typed_per_filter_config": {asked: override}},
        ]
    }


def add_endpoints(node: Node, endpoints: Iterable[str], echo_port: int) -> None:
    """Listeners at these endpoints, all before the echo server at this port of 127.0.0.1."""
    resources = node["static_resources"]
    resources["listeners"] += [_endpoint(each) for each in endpoints]
    address = {"endpoint": {"address": _address("127.0.0.1", echo_port)}}
    resources["clusters"].append(
        {
            "name": "echo",
            "type": "STATIC",
            "connect_timeout": "1s",
            "load_assignment": {"cluster_name": "echo", "endpoints": [{"lb_endpoints": [address]}]},
        }
    )


def _endpoint(endpoint: str) -> Node:
    host, _, port = endpoint.rpartition(":")
    noted = ((echo.ENDPOINT, "%DOWNSTREAM_LOCAL_ADDRESS%"), (echo.PROTOCOL, "%PROTOCOL%"))
    virtual_host = {
        "name": "echo",
        "domains": ["*"],
        "request_headers_to_add": [
            {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
            for key, value in noted
        ],
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "echo", "timeout": "0s"}}],
    }
    router = {"@type": f"{_EXT}.filters.http.router.v3.Router"}
    manager = {
        "@type": f"{_EXT}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "endpoint",
        "codec_type": "AUTO",
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
        "route_config": {"virtual_hosts": [virtual_host]},
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return {"name": f"endpoint-{endpoint}", "address": _address(host, int(port)), "filter_chains": [chain]}


def _named(name: str, node: Node) -> Node:
    """This bootstrap with its listeners and clusters, and whatever speaks of them, called `name`-so-and-so."""
    renamed: Node = _renamed(name, copy.deepcopy(node))
    resources = renamed["static_resources"]
    for each in [*resources["listeners"], *resources["clusters"]]:
        each["name"] = f"{name}-{each['name']}"
    return renamed


def _renamed(name: str, node: Any) -> Any:
    if isinstance(node, list):
        return [_renamed(name, each) for each in node]
    if not isinstance(node, dict):
        return node
    return {
        key: f"{name}-{value}" if key in _REFERENCES and isinstance(value, str) else _renamed(name, value)
        for key, value in node.items()
    }


def _cluster(node: Node, name: str) -> Node:
    found: Node = next(each for each in node["static_resources"]["clusters"] if each["name"] == name)
    return found


def _manager(node: Node, name: str) -> Node:
    listener = next(each for each in node["static_resources"]["listeners"] if each["name"] == f"{name}-gateway")
    manager: Node = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return manager


def _address(host: str, port: int) -> Node:
    return {"socket_address": {"address": host.strip("[]"), "port_value": port}}
