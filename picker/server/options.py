"""What `picker serve` was asked to do."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from picker.pool.kube.scope import POOL_GROUP, KubeScope
from picker.server.transport import DEFAULT, Transport

DEFAULT_POOL = "default"


@dataclass(frozen=True, slots=True)
class PoolOption:
    """One pool to serve: its name, and the gRPC port of its own if it has one besides the common port."""

    name: str
    port: int | None = None


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Ports are those of worker 0; worker i listens on each port + i. Times are in seconds, sizes in bytes.

    The endpoints come from `endpoints`, else from `endpoints_file`, else from Kubernetes: the pods of
    `endpoint_selector`, else those of the InferencePools called as the pools are.
    """

    host: str = "0.0.0.0"
    grpc_port: int = 9002
    transport: Transport = DEFAULT
    grpc_health_port: int = 9003
    metrics_port: int = 9090
    admin_port: int = 9091
    handoff_port: int | None = None
    pools: tuple[PoolOption, ...] = (PoolOption(DEFAULT_POOL),)
    pool_header: str = ""
    endpoints: str = ""
    endpoints_file: str = ""
    namespace: str = "default"
    pool_group: str = POOL_GROUP
    endpoint_selector: Mapping[str, str] = field(default_factory=dict)
    endpoint_target_ports: tuple[int, ...] = ()
    kv_events_port: int | None = None
    kv_replay_port: int | None = None
    config_file: Path | None = None
    config_text: str = ""
    policy: str = ""
    secure_serving: bool = True
    cert_path: Path | None = None
    enable_cert_reload: bool = False
    metrics_cert_dir: Path | None = None
    metrics_client_ca_file: Path | None = None
    handoff_token_file: Path | None = None
    handoff_cert_dir: Path | None = None
    handoff_client_ca_file: Path | None = None
    handoff_peer_port: int | None = None
    max_receive_bytes: int = 64 << 20
    max_send_bytes: int = 64 << 20
    scrape_interval_s: float | None = None
    disable_endpoint_subset_filter: bool = False
    emit_endpoint_scores: bool = False
    leader_election: bool = False
    identity: str = ""
    unready_after_silence_s: float = 0.0
    drain_timeout_s: float | None = None
    drain_pause_s: float | None = None
    workers: int = 1
    worker: int = 0
    run_dir: Path | None = None
    seed: int | None = None
    state_dir: Path | None = None

    @property
    def in_cluster(self) -> bool:
        """Kubernetes says which endpoints there are."""
        return not self.endpoints and not self.endpoints_file

    @property
    def collector_port(self) -> int:
        """Metrics of the collector of several workers: after their admin ports."""
        return self.admin_port + self.workers

    @property
    def lease(self) -> str:
        """Name of the Lease for which replicas of this picker compete."""
        return f"epp-{self.namespace}-{self.pools[0].name}.llm-d.ai"

    def scope(self, pool: str) -> KubeScope:
        """The part of the cluster that is this pool. Raises ValueError for what Kubernetes does not know."""
        by_name = not self.endpoint_selector
        return KubeScope(
            self.namespace,
            pool=pool if by_name else "",
            group=self.pool_group,
            selector=self.endpoint_selector,
            target_ports=() if by_name else self.endpoint_target_ports,
            kv_events_port=self.kv_events_port,
            kv_replay_port=self.kv_replay_port,
        )

    def port_conflict(self) -> str:
        """What is wrong with the ports of all workers together; empty if nothing is."""
        bases = {
            "--grpc-port": self.grpc_port,
            **{f"pool {pool.name}": pool.port for pool in self.pools if pool.port is not None},
            "--grpc-health-port": self.grpc_health_port,
            "--metrics-port": self.metrics_port,
            "--admin-port": self.admin_port,
            **({} if self.handoff_port is None else {"--handoff-port": self.handoff_port}),
        }
        taken: dict[int, str] = {} if self.workers == 1 else {self.collector_port: "the collector's metrics"}
        for name, first in bases.items():
            for port in range(first, first + self.workers):
                if port > 65535:
                    return f"{name} {first} leaves no room for {self.workers} workers"
                if port in taken:
                    return f"port {port} is wanted by {taken[port]} and by {name}: each takes {self.workers} in a row"
                taken[port] = name
        return ""

    def for_worker(self, worker: int) -> "ServeOptions":
        """The same service on this worker's own ports."""
        return replace(
            self,
            worker=worker,
            grpc_port=self.grpc_port + worker,
            pools=tuple(replace(p, port=None if p.port is None else p.port + worker) for p in self.pools),
            grpc_health_port=self.grpc_health_port + worker,
            metrics_port=self.metrics_port + worker,
            admin_port=self.admin_port + worker,
            handoff_port=None if self.handoff_port is None else self.handoff_port + worker,
        )


def parse_pools(text: str) -> tuple[PoolOption, ...]:
    """Pools of `NAME,NAME:PORT`. Raises ValueError naming what is wrong.

    >>> parse_pools("chat,embed:9012")
    (PoolOption(name='chat', port=None), PoolOption(name='embed', port=9012))
    """
    found: dict[str, PoolOption] = {}
    for part in text.split(","):
        name, colon, port = part.strip().partition(":")
        if not name or name in found:
            raise ValueError(f"{part.strip()[:80]!r}: a pool needs a name of its own")
        if colon and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
            raise ValueError(f"{part.strip()[:80]!r}: no port after the colon")
        found[name] = PoolOption(name, int(port) if colon else None)
    return tuple(found.values())


def parse_selector(text: str) -> dict[str, str]:
    """Labels of `key=value,key=value`. Raises ValueError for anything else, set-based selectors too.

    >>> parse_selector("app=vllm,env==prod")
    {'app': 'vllm', 'env': 'prod'}
    """
    labels: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.strip().partition("=")
        value = value.removeprefix("=")
        if not equals or not key or key.endswith("!") or "(" in key:
            raise ValueError(f"{part.strip()[:80]!r}: only key=value is known here, no sets and no existence")
        labels[key.strip()] = value.strip()
    return labels


def parse_ports(text: str) -> tuple[int, ...]:
    """Ports of `3000,3001`, each once. Raises ValueError."""
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise ValueError(f"{text[:80]!r} is no list of ports") from None
