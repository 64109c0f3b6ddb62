"""Kubernetes objects as tests need them, as dicts."""

import json


def pod(name="a", ip="10.0.0.1", uid=None, *, labels=None, annotations=None, ready=True, deleting=False, created="t0"):
    meta = {
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


def pool(name="p", selector=None, ports=(8000,), **spec):
    return {
        "metadata": {"name": name, "resourceVersion": "1"},
        "spec": {
            "selector": {"matchLabels": {"app": "vllm"} if selector is None else selector},
            "targetPorts": [{"number": port} for port in ports],
            **spec,
        },
    }


def objective(name="o", pool="p", **spec):
    return {"metadata": {"name": name, "resourceVersion": "1"}, "spec": {"poolRef": {"name": pool}, **spec}}


def rewrite(name="r", *rules, pool="p", created="2026-01-01T00:00:00Z"):
    meta = {"name": name, "resourceVersion": "1", "creationTimestamp": created}
    return {"metadata": meta, "spec": {"poolRef": {"name": pool}, "rules": list(rules)}}


def to(*targets, models=()):
    """A rewrite's rule: targets are names, or (name, weight)."""
    pairs = [target if isinstance(target, tuple) else (target, None) for target in targets]
    found = {"targets": [{"modelRewrite": n} | ({} if w is None else {"weight": w}) for n, w in pairs]}
    return found | ({"matches": [{"model": {"value": model}} for model in models]} if models else {})


def raw(found):
    return json.dumps(found).encode()
