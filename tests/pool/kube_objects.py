"""Kubernetes objects as tests need them, as dicts."""

import json
from collections.abc import Iterable, Mapping
from typing import Any


def pod(
    name: str = "a",
    ip: object = "10.0.0.1",
    uid: str | None = None,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    ready: bool = True,
    deleting: bool = False,
    created: str = "t0",
) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "name": name,
        "uid": uid or f"uid-{name}",
        "resourceVersion": "1",
        "creationTimestamp": created,
        "labels": {"app": "vllm"} if labels is None else labels,
        "annotations": annotations or {},
        "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}],
    }
    if deleting:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    conditions = [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": str(ready)}]
    return {"kind": "Pod", "metadata": meta, "spec": {}, "status": {"podIP": ip, "conditions": conditions}}


def pool(
    name: str = "p", selector: Mapping[str, object] | None = None, ports: Iterable[object] = (8000,), **spec: object
) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "resourceVersion": "1"},
        "spec": {
            "selector": {"matchLabels": {"app": "vllm"} if selector is None else selector},
            "targetPorts": [{"number": port} for port in ports],
            **spec,
        },
    }


def objective(name: str = "o", pool: str = "p", **spec: object) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": "1"}, "spec": {"poolRef": {"name": pool}, **spec}}


def rewrite(
    name: str = "r", *rules: dict[str, Any], pool: str = "p", created: str = "2026-01-01T00:00:00Z"
) -> dict[str, Any]:
    meta = {"name": name, "resourceVersion": "1", "creationTimestamp": created}
    return {"metadata": meta, "spec": {"poolRef": {"name": pool}, "rules": list(rules)}}


def to(*targets: str | tuple[str, int], models: Iterable[str] = ()) -> dict[str, Any]:
    """A rewrite's rule: targets are names, or (name, weight)."""
    pairs = [target if isinstance(target, tuple) else (target, None) for target in targets]
    found: dict[str, Any] = {"targets": [{"modelRewrite": n} | ({} if w is None else {"weight": w}) for n, w in pairs]}
    return found | ({"matches": [{"model": {"value": model}} for model in models]} if models else {})


def raw(found: object) -> bytes:
    return json.dumps(found).encode()
