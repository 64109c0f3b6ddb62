"""An Envoy bootstrap that asks picker, for each response path. Pure: a spec in, a plain dict out (YAML by any dumper).

docs/envoy.md explains what each response path costs and gives; the comments here say why a line must be as it is.
"""

from dataclasses import dataclass
from typing import Any, Literal

from picker.exchange import keys

ResponsePath = Literal["access-log", "detach", "echo"]
RequestMode = Literal["full-duplex", "buffered"]
Balancing = Literal["override-host", "original-dst"]
Node = dict[str, Any]

_EXT = "type.googleapis.com/envoy.extensions"
_USAGE_PATHS: dict[str, tuple[tuple[str, ...], ...]] = {
    # Completions; responses (streamed: inside `response`); Anthropic messages (streamed: inside `message`).
    keys.PROMPT_TOKENS: (
        ("usage", "prompt_tokens"),
        ("usage", "input_tokens"),
        ("response", "usage", "input_tokens"),
        ("message", "usage", "input_tokens"),
    ),
    keys.CACHED_TOKENS: (
        ("usage", "prompt_tokens_details", "cached_tokens"),
        ("usage", "input_tokens_details", "cached_tokens"),
        ("response", "usage", "input_tokens_details", "cached_tokens"),
    ),
    keys.COMPLETION_TOKENS: (
        ("usage", "completion_tokens"),
        ("usage", "output_tokens"),
        ("response", "usage", "output_tokens"),
    ),
}


@dataclass(frozen=True, slots=True)
class EnvoySpec:
    """One Envoy in front of one pool. Addresses are `ip:port`; ports are on `host` unless said otherwise.

    `listen`: where clients are served, if not on `host`, which holds the admin port.
    `picker_ports`: one per picker worker. `pool`: its name, where the picker has several.
    `endpoints` is not needed by original-dst, which goes wherever the pick says.
    `message_timeout_s` bounds the pick of a buffered request; in full duplex Envoy waits for it without limit.
    `flush_interval_s`: how often a running answer is reported to the access log.
    """

    listener_port: int
    admin_port: int
    picker_ports: tuple[int, ...]
    endpoints: tuple[str, ...] = ()
    response_path: ResponsePath = "access-log"
    request_mode: RequestMode = "full-duplex"
    balancing: Balancing = "override-host"
    host: str = "127.0.0.1"
    listen: str = ""
    picker_host: str = "127.0.0.1"
    pool: str = ""
    tls: bool = False
    fail_open: bool = False
    message_timeout_s: float = 60.0
    flush_interval_s: float = 0.2
    buffer_bytes: int = 32 << 20


def bootstrap(spec: EnvoySpec) -> Node:
    """The whole bootstrap. Validated by `envoy --mode validate` for every combination in the tests."""
    pool = _pool(spec)
    return {
        "admin": {"address": _address(spec.host, spec.admin_port)},
        "layered_runtime": {
            "layers": [
                {
                    "name": "static",
                    # Closed ext_proc streams end cleanly instead of with a reset.
                    "static_layer": {"envoy.reloadable_features.ext_proc_graceful_grpc_close": True},
                }
            ]
        },
        "static_resources": {"listeners": [_listener(spec)], "clusters": [_picker(spec), pool]},
    }


def _listener(spec: EnvoySpec) -> Node:
    return {
        "name": "gateway",
        "address": _address(spec.listen or spec.host, spec.listener_port),
        # Buffered bodies above this get 413 from Envoy itself; in full duplex it bounds one body message.
        "per_connection_buffer_limit_bytes": spec.buffer_bytes,
        "filter_chains": [{"filters": [_extension("envoy.filters.network.http_connection_manager", _manager(spec))]}],
    }


def _manager(spec: EnvoySpec) -> Node:
    manager = _typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="gateway",
        generate_request_id=True,
        stream_idle_timeout="0s",
        http_filters=[
            _extension("envoy.filters.http.ext_proc", _ext_proc(spec)),
            *(_usage_filters() if _logs(spec) else []),
            _extension("envoy.filters.http.router", _typed("filters.http.router.v3.Router")),
        ],
        route_config={"virtual_hosts": [{"name": "pool", "domains": ["*"], "routes": [_route(spec)]}]},
    )
    if _logs(spec):
        manager["access_log"] = [_extension("envoy.access_loggers.http_grpc", _access_log())]
        # Reports running answers, so that a first byte is known before the end.
        manager["access_log_options"] = {"access_log_flush_interval": _seconds(spec.flush_interval_s)}
    return manager


def _logs(spec: EnvoySpec) -> bool:
    """An echoed answer is seen whole and needs no log."""
    return spec.response_path != "echo"


def _route(spec: EnvoySpec) -> Node:
    route: Node = {"cluster": "pool", "timeout": "0s"}
    if spec.balancing == "override-host":
        # Each retry takes the next destination of the pick's list. No `reset`: a request that an engine was sent may be
        # what it died of, and is sent to no other.
        route["retry_policy"] = {
            "retry_on": "connect-failure,refused-stream,reset-before-request,retriable-status-codes",
            "retriable_status_codes": [503],
            "num_retries": 2,
        }
    return {"match": {"prefix": "/"}, "route": route}


def _ext_proc(spec: EnvoySpec) -> Node:
    duplex = spec.request_mode == "full-duplex"
    echo = spec.response_path == "echo"
    response_body = {"access-log": "NONE", "detach": "STREAMED", "echo": "FULL_DUPLEX_STREAMED"}[spec.response_path]
    return _typed(
        "filters.http.ext_proc.v3.ExternalProcessor",
        grpc_service={
            "envoy_grpc": {"cluster_name": "picker"},
            **({"initial_metadata": [{"key": keys.POOL, "value": spec.pool}]} if spec.pool else {}),
            # A worker that is gone before its first reply has picked for nobody: another one may be asked.
            "retry_policy": {
                "retry_on": "reset,connect-failure,refused-stream",
                "num_retries": 3,
                "retry_back_off": {"base_interval": "0.01s", "max_interval": "0.05s"},
                "retry_host_predicate": [
                    _extension(
                        "envoy.retry_host_predicates.previous_hosts",
                        _typed("retry.host.previous_hosts.v3.PreviousHostsPredicate"),
                    )
                ],
                # Least request draws two hosts at random, with repeats: few draws may all fall on the dead one of two.
                "host_selection_retry_max_attempts": 64,
            },
        },
        failure_mode_allow=spec.fail_open,
        status_on_error={"code": 503},
        message_timeout=_seconds(spec.message_timeout_s),
        processing_mode={
            "request_header_mode": "SEND",
            "request_body_mode": "FULL_DUPLEX_STREAMED" if duplex else "BUFFERED",
            # Full duplex bodies demand trailers in their direction. Elsewhere SKIP lets Envoy close the stream early.
            "request_trailer_mode": "SEND" if duplex else "SKIP",
            # Unasked about the answer, Envoy closes the stream as soon as the request is on its way.
            "response_header_mode": "SKIP" if spec.response_path == "access-log" else "SEND",
            "response_body_mode": response_body,
            "response_trailer_mode": "SEND" if echo else "SKIP",
        },
        response_attributes=[keys.UPSTREAM_ADDRESS],
        metadata_options={
            # Without it Envoy drops the pick's metadata.
            "receiving_namespaces": {"untyped": [keys.LB_NAMESPACE]},
            "forwarding_namespaces": {"untyped": [keys.LB_NAMESPACE, keys.SUBSET_NAMESPACE]},
        },
    )


def _usage_filters() -> list[Node]:
    """Token counts from the answer into metadata: one filter for event streams, one for plain JSON."""
    rules = [
        {
            "selectors": [{"key": key} for key in path],
            "on_present": {"metadata_namespace": keys.USAGE_NAMESPACE, "key": name, "type": "NUMBER"},
        }
        for name, paths in _USAGE_PATHS.items()
        for path in paths
    ]
    parser = _extension(
        "envoy.content_parsers.json",
        _typed("content_parsers.json.v3.JsonContentParser", rules=[{"rule": rule} for rule in rules]),
    )
    sse = _typed("filters.http.sse_to_metadata.v3.SseToMetadata", response_rules={"content_parser": parser})
    plain = _typed(
        "filters.http.json_to_metadata.v3.JsonToMetadata",
        response_rules={"rules": rules, "allow_content_types_regex": {"regex": "application/json(;.*)?"}},
    )
    return [
        _extension("envoy.filters.http.sse_to_metadata", sse),
        _extension("envoy.filters.http.json_to_metadata", plain),
    ]


def _access_log() -> Node:
    return _typed(
        "access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
        common_config={
            "log_name": "picker",
            "transport_api_version": "V3",
            "grpc_service": {"envoy_grpc": {"cluster_name": "picker"}},
            "buffer_flush_interval": "0.02s",
            "custom_tags": [{"tag": keys.FIRST_BODY_BYTE, "value": "%COMMON_DURATION(DS_RX_BEG:US_RX_BODY_BEG:us)%"}],
        },
    )


def _picker(spec: EnvoySpec) -> Node:
    """The picker's workers: one endpoint per port, never one shared port, or one connection would bind one worker."""
    cluster: Node = {
        "name": "picker",
        "type": "STATIC",
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        # A dead worker has the fewest requests of all: without this it would draw every one of them.
        "outlier_detection": {
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 1,
            "interval": "1s",
            "base_ejection_time": "1s",
            "max_ejection_time": "3s",
            "max_ejection_percent": 100,
        },
        # A picker that drains, or follows another one, says so here: no new stream goes to it, running ones go on.
        "health_checks": [
            {
                "grpc_health_check": {},
                "interval": "1s",
                "no_traffic_interval": "1s",
                "timeout": "2s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
            }
        ],
        # The default of 1,024 turns into 500s under load: every open answer may hold a stream.
        "circuit_breakers": _breakers(),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": _typed(
                "upstreams.http.v3.HttpProtocolOptions", explicit_http_config={"http2_protocol_options": {}}
            )
        },
        "load_assignment": _assignment("picker", [(spec.picker_host, port) for port in spec.picker_ports]),
    }
    if spec.tls:
        # No validation context: the picker's certificate is self-signed unless it is given one.
        tls = _typed("transport_sockets.tls.v3.UpstreamTlsContext", common_tls_context={"alpn_protocols": ["h2"]})
        cluster["transport_socket"] = _extension("envoy.transport_sockets.tls", tls)
    return cluster


def _pool(spec: EnvoySpec) -> Node:
    """The engines, chosen by the pick."""
    cluster: Node = {"name": "pool", "connect_timeout": "1s", "circuit_breakers": _breakers()}
    if spec.balancing == "original-dst":
        return {
            **cluster,
            "type": "ORIGINAL_DST",
            "lb_policy": "CLUSTER_PROVIDED",
            "original_dst_lb_config": {"use_http_header": True, "http_header_name": keys.DESTINATION},
        }
    fallback = _extension(
        "envoy.load_balancing_policies.round_robin", _typed("load_balancing_policies.round_robin.v3.RoundRobin")
    )
    override = _typed(
        "load_balancing_policies.override_host.v3.OverrideHost",
        override_host_sources=[{"metadata": _lb_key(keys.DESTINATION)}],
        selected_host_key=_lb_key(keys.SERVED),
        fallback_policy={"policies": [{"typed_extension_config": fallback}]},
    )
    policy = _extension("envoy.load_balancing_policies.override_host", override)
    return {
        **cluster,
        "type": "STATIC",
        "load_assignment": _assignment("pool", [_split(address) for address in spec.endpoints]),
        "load_balancing_policy": {"policies": [{"typed_extension_config": policy}]},
    }


# ------------------------------------------------------------------ Envoy's own shapes


def _typed(message: str, **fields: Any) -> Node:
    return {"@type": f"{_EXT}.{message}", **fields}


def _extension(name: str, config: Node) -> Node:
    return {"name": name, "typed_config": config}


def _address(host: str, port: int) -> Node:
    return {"socket_address": {"address": host, "port_value": port}}


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _assignment(name: str, addresses: list[tuple[str, int]]) -> Node:
    endpoints = [{"endpoint": {"address": _address(host, port)}} for host, port in addresses]
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}


def _breakers() -> Node:
    """Out of the way: the defaults are 1,024 of each, and 3 retries, few for all the picks of an engine that died."""
    limits = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
    return {"thresholds": [dict.fromkeys(limits, 100_000)]}


def _lb_key(key: str) -> Node:
    return {"key": keys.LB_NAMESPACE, "path": [{"key": key}]}


def _seconds(seconds: float) -> str:
    return f"{seconds:g}s"
