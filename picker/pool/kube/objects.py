"""What is read of the API's objects. Each field is checked; one that cannot be read is `BadObject`, never half read.

Only the members named here are decoded: a pod's specification, its managed fields and the like are skipped unread.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar, get_args

import msgspec
from msgspec import Meta

from picker.pool.directory import Rewrite, Target
from picker.pool.kube.scope import POOL_GROUP, distinct_ports, is_port, label_selector
from picker.pool.view import EngineKind

ACTIVE_PORTS = ("llm-d.ai/active-ports", "inference.networking.k8s.io/active-ports")
"""Annotation: the target ports of this pod that serve, a comma list. Of several names the first one present wins."""
ENGINE_TYPE = ("llm-d.ai/engine-type", "inference.networking.k8s.io/engine-type")
"""Label: the engine kind; vllm where it is absent or unknown."""
KV_EVENTS_PORT, KV_REPLAY_PORT = "picker.dev/kv-events-port", "picker.dev/kv-replay-port"
"""Annotation or label: the pod's port for KV events and for their replay, of its first target port; the next ports
follow, one for each, as vLLM counts them up by data-parallel rank."""

MAX_LABELS = 256
MAX_RULES = 256
MAX_TARGETS = 256
MAX_WEIGHT = 1_000_000
_INT32 = 2**31
_ENGINES: Mapping[str, EngineKind] = {kind: kind for kind in get_args(EngineKind)}

_Text = Annotated[str, Meta(max_length=512)]
_Short = Annotated[str, Meta(min_length=1, max_length=253)]


class BadObject(Exception):
    """An object that cannot be used; the message says which field is wrong."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod as far as a pool cares. `ip` is as addresses write it (IPv6 in brackets), empty while it has none.

    `serving` is: Ready, and not being deleted. `active_ports` is None where the pod names none.
    """

    uid: str
    ip: str
    labels: Mapping[str, str]
    serving: bool
    created: str = ""
    engine: EngineKind = "vllm"
    active_ports: frozenset[int] | None = None
    kv_events_port: int | None = None
    kv_replay_port: int | None = None


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """An InferencePool's choice of pods and of their ports."""

    selector: Mapping[str, str]
    ports: tuple[int, ...]
    app_protocol: str = "http"


@dataclass(frozen=True, slots=True)
class Objective:
    """An InferenceObjective: the priority of requests that name it, for the pool `pool`."""

    pool: tuple[str, str]
    priority: int = 0


@dataclass(frozen=True, slots=True)
class ModelRewrite:
    """An InferenceModelRewrite for the pool `pool` (group and name). `created` is RFC 3339 and sorts by age."""

    pool: tuple[str, str]
    created: str = ""
    rules: tuple[Rewrite, ...] = field(default=())


class _Metadata(msgspec.Struct):
    name: _Short
    uid: _Text = ""
    creationTimestamp: _Text | None = None
    deletionTimestamp: Any = None
    labels: dict[_Text, _Text] | None = None
    annotations: dict[_Text, str] | None = None


class _Condition(msgspec.Struct):
    type: str = ""
    status: str = ""


class _PodStatus(msgspec.Struct):
    podIP: _Text | None = None
    conditions: list[_Condition] | None = None


class _Pod(msgspec.Struct):
    metadata: _Metadata
    status: _PodStatus | None = None


class _LabelSelector(msgspec.Struct):
    matchLabels: dict[str, str]


class _Port(msgspec.Struct):
    number: int


class _PoolSpec(msgspec.Struct):
    selector: _LabelSelector
    targetPorts: list[_Port]
    appProtocol: _Text | None = None


class _Pool(msgspec.Struct):
    spec: _PoolSpec


class _PoolRef(msgspec.Struct):
    name: _Short
    group: _Text | None = None
    kind: _Text | None = None


class _ObjectiveSpec(msgspec.Struct):
    poolRef: _PoolRef
    priority: Annotated[int, Meta(ge=-_INT32, lt=_INT32)] | None = None


class _Objective(msgspec.Struct):
    spec: _ObjectiveSpec


class _Model(msgspec.Struct):
    value: Annotated[str, Meta(min_length=1, max_length=512)]
    type: _Text | None = None


class _Match(msgspec.Struct):
    model: _Model | None = None


class _Target(msgspec.Struct):
    modelRewrite: Annotated[str, Meta(min_length=1, max_length=512)]
    weight: Annotated[int, Meta(ge=1, le=MAX_WEIGHT)] | None = None


class _Rule(msgspec.Struct):
    targets: Annotated[list[_Target], Meta(min_length=1, max_length=MAX_TARGETS)]
    matches: Annotated[list[_Match], Meta(max_length=MAX_TARGETS)] | None = None


class _RewriteSpec(msgspec.Struct):
    poolRef: _PoolRef
    rules: Annotated[list[_Rule], Meta(max_length=MAX_RULES)]


class _Rewrite(msgspec.Struct):
    metadata: _Metadata
    spec: _RewriteSpec


_S = TypeVar("_S", bound=msgspec.Struct)


def read_pod(raw: bytes) -> Pod:
    """A Pod. Raises BadObject. A port that cannot be read in an annotation counts as not written there."""
    pod = _decode(_Pod, raw)
    meta, status = pod.metadata, pod.status or _PodStatus()
    labels, annotations = meta.labels or {}, meta.annotations or {}
    if len(labels) > MAX_LABELS:
        raise BadObject(f"metadata.labels: more than {MAX_LABELS}")
    ready = any(condition.type == "Ready" and condition.status == "True" for condition in status.conditions or ())
    engine = _first(labels, ENGINE_TYPE)
    active = _first(annotations, ACTIVE_PORTS)
    return Pod(
        uid=meta.uid,
        ip=_literal(status.podIP) if status.podIP else "",
        labels=labels,
        serving=ready and meta.deletionTimestamp is None,
        created=meta.creationTimestamp or "",
        engine=_ENGINES.get(engine or "", "vllm"),
        active_ports=None if active is None else _ports(active),
        kv_events_port=_port(annotations.get(KV_EVENTS_PORT, labels.get(KV_EVENTS_PORT, ""))),
        kv_replay_port=_port(annotations.get(KV_REPLAY_PORT, labels.get(KV_REPLAY_PORT, ""))),
    )


def read_pool(raw: bytes) -> PoolSpec:
    """An InferencePool v1. Raises BadObject."""
    spec = _decode(_Pool, raw).spec
    try:
        label_selector(spec.selector.matchLabels)
        ports = distinct_ports(tuple(port.number for port in spec.targetPorts))
    except ValueError as error:
        raise BadObject(f"spec: {error}") from None
    return PoolSpec(spec.selector.matchLabels, ports, spec.appProtocol or "http")


def read_objective(raw: bytes) -> Objective:
    """An InferenceObjective of either group. Raises BadObject."""
    spec = _decode(_Objective, raw).spec
    return Objective(_pool(spec.poolRef), spec.priority or 0)


def read_rewrite(raw: bytes) -> ModelRewrite:
    """An InferenceModelRewrite of either group. Raises BadObject."""
    decoded = _decode(_Rewrite, raw)
    name = decoded.metadata.name
    rules = tuple(Rewrite(name, _models(rule), _targets(rule)) for rule in decoded.spec.rules)
    return ModelRewrite(_pool(decoded.spec.poolRef), decoded.metadata.creationTimestamp or "", rules)


def _decode(kind: type[_S], raw: bytes) -> _S:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        reason, _, path = " ".join(str(error).split()).partition(" - at `$.")
        raise BadObject(f"{path.removesuffix('`')}: {reason}".lstrip(": ")[:300]) from None


def _first(values: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((values[name] for name in names if name in values), None)


def _literal(text: str) -> str:
    """The IP as an address holds it. Raises BadObject for what no single pod can have."""
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        raise BadObject(f"status.podIP: {text[:80]!r} is no IP") from None
    if ip.is_unspecified or ip.is_multicast or getattr(ip, "scope_id", None):
        raise BadObject(f"status.podIP: {text[:80]!r} is no address of one pod")
    return f"[{ip}]" if ip.version == 6 else str(ip)


def _ports(text: str) -> frozenset[int]:
    """The ports of a comma list; what is none is left out."""
    found = (_port(part) for part in text[:256].split(","))
    return frozenset(port for port in found if port is not None)


def _port(text: str) -> int | None:
    text = text.strip()
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    return number if is_port(number) else None


def _pool(ref: _PoolRef) -> tuple[str, str]:
    """Group and name. Raises BadObject for a reference to something else than a pool."""
    if ref.kind not in (None, "InferencePool"):
        raise BadObject(f"spec.poolRef.kind: {ref.kind!r} is no InferencePool")
    return (POOL_GROUP if ref.group is None else ref.group), ref.name


def _models(rule: _Rule) -> frozenset[str]:
    """The names that a rule applies to; empty for all. Raises BadObject for a way to match that is not known."""
    named: set[str] = set()
    for match in rule.matches or ():
        if match.model is None:
            return frozenset()
        if match.model.type not in (None, "Exact"):
            raise BadObject(f"spec.rules: model matches of type {match.model.type!r} are not known")
        named.add(match.model.value)
    return frozenset(named)


def _targets(rule: _Rule) -> tuple[Target, ...]:
    """Equal shares where no weight is set; where some are, a target without one is never drawn."""
    weighted = any(target.weight is not None for target in rule.targets)
    return tuple(Target(target.modelRewrite, (target.weight or 0) if weighted else 1) for target in rule.targets)
