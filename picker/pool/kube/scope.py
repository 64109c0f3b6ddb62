"""Which part of a cluster one pool is."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

POOL_GROUP = "inference.networking.k8s.io"
MAX_PORTS = 8

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
_LABEL_KEY = re.compile(r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class KubeScope:
    """An InferencePool by name; or, where `pool` is empty, the pods with the labels of `selector` on `target_ports`.

    `kv_events_port` and `kv_replay_port` hold for every pod whose annotations name none (docs/kubernetes.md).
    Raises ValueError for names, labels and ports that Kubernetes does not know.
    """

    namespace: str
    pool: str = ""
    group: str = POOL_GROUP
    selector: Mapping[str, str] = field(default_factory=dict)
    target_ports: tuple[int, ...] = ()
    kv_events_port: int | None = None
    kv_replay_port: int | None = None

    def __post_init__(self) -> None:
        if not _NAMESPACE.fullmatch(self.namespace):
            raise ValueError(f"{self.namespace[:80]!r} is no namespace")
        if not _NAME.fullmatch(self.group):
            raise ValueError(f"{self.group[:80]!r} is no API group")
        if self.pool and not _NAME.fullmatch(self.pool):
            raise ValueError(f"{self.pool[:80]!r} is no name of an InferencePool")
        if bool(self.pool) == bool(self.selector or self.target_ports):
            raise ValueError("a scope is a pool's name, or a selector with target ports")
        if not self.pool:
            label_selector(self.selector)
            distinct_ports(self.target_ports)
        for port in (self.kv_events_port, self.kv_replay_port):
            if port is not None and not is_port(port):
                raise ValueError(f"port {port} is not in 1..65535")


def label_selector(labels: Mapping[str, str]) -> str:
    """`labels` as the API server's `labelSelector`. Raises ValueError unless these are 1 to 64 well-formed labels.

    >>> label_selector({"app": "vllm", "tier": "gpu"})
    'app=vllm,tier=gpu'
    """
    if not 1 <= len(labels) <= 64:
        raise ValueError(f"a selector has 1 to 64 labels, not {len(labels)}")
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            raise ValueError(f"{key[:80]!r}: {value[:80]!r} is no label")
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def distinct_ports(ports: tuple[int, ...]) -> tuple[int, ...]:
    """The same ports. Raises ValueError unless they are 1 to 8 different ones."""
    if not 1 <= len(ports) <= MAX_PORTS or len(set(ports)) != len(ports):
        raise ValueError(f"a pool has 1 to {MAX_PORTS} different target ports, not {list(ports[:99])}")
    for port in ports:
        if not is_port(port):
            raise ValueError(f"port {port} is not in 1..65535")
    return ports


def is_port(number: int) -> bool:
    """Whether a TCP port has this number."""
    return 1 <= number <= 65535
