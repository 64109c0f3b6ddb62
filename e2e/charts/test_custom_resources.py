"""The custom resources as an API server takes them: defaults, refusals, short names, status."""

import json

import pytest
from cluster_tools import Failed, Space

SPEC = {
    "selector": {"matchLabels": {"app": "vllm"}},
    "targetPorts": [{"number": 8000}],
    "endpointPickerRef": {"name": "picker", "port": {"number": 9002}},
}
POOL = {
    "apiVersion": "inference.networking.k8s.io/v1",
    "kind": "InferencePool",
    "metadata": {"name": "chat"},
    "spec": SPEC,
}


def pool(**changed: object) -> dict[str, object]:
    return {**POOL, "spec": {**SPEC, **changed}}


def test_a_pool_is_filled_with_its_defaults(space: Space) -> None:
    space.apply(POOL)
    spec = space.get("infpool", "chat")["spec"]
    assert (spec["appProtocol"], spec["endpointPickerRef"]["failureMode"]) == ("http", "FailClose")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"targetPorts": [{"number": 8000}, {"number": 8000}]}, "port number must be unique"),
        ({"endpointPickerRef": {"name": "picker"}}, "port is required when kind is 'Service'"),
        ({"targetPorts": []}, "spec.targetPorts"),
        ({"appProtocol": "grpc"}, "spec.appProtocol"),
        ({"typo": 1}, "typo"),
    ],
)
def test_a_pool_is_refused_and_the_field_named(space: Space, changed: dict[str, object], said: str) -> None:
    with pytest.raises(Failed, match=said):
        space.apply(pool(**changed))


def test_a_gateway_writes_the_status_and_nothing_else(space: Space) -> None:
    space.apply(POOL)
    generation = space.get("infpool", "chat")["metadata"]["generation"]
    status = {"parents": [{"parentRef": {"name": "gateway"}}]}
    patch = json.dumps({"status": status, "spec": {"targetPorts": [{"number": 1}]}})
    space.kubectl("patch", "infpool", "chat", "--subresource=status", "--type=merge", "-p", patch)
    after = space.get("infpool", "chat")
    assert after["status"]["parents"][0]["parentRef"]["kind"] == "Gateway", "a default of the schema"
    assert (after["spec"]["targetPorts"], after["metadata"]["generation"]) == ([{"number": 8000}], generation)


def test_a_second_apply_changes_what_differs(space: Space) -> None:
    space.apply(POOL)
    assert "unchanged" in space.apply(POOL)
    space.apply(pool(targetPorts=[{"number": 8000}, {"number": 8001}]))
    assert [port["number"] for port in space.get("infpool", "chat")["spec"]["targetPorts"]] == [8000, 8001]


@pytest.mark.parametrize("group", ["llm-d.ai", "inference.networking.x-k8s.io"])
def test_objectives_and_rewrites_live_in_both_groups(space: Space, group: str) -> None:
    reference = {"poolRef": {"name": "chat"}}
    objective = {"kind": "InferenceObjective", "metadata": {"name": "batch"}, "spec": {**reference, "priority": -1}}
    rules = [{"targets": [{"modelRewrite": "llama"}]}]
    rewrite = {"kind": "InferenceModelRewrite", "metadata": {"name": "any"}, "spec": {**reference, "rules": rules}}
    space.apply(*({"apiVersion": f"{group}/v1alpha2", **each} for each in (objective, rewrite)))
    assert space.get(f"inferenceobjectives.{group}", "batch")["spec"]["poolRef"]["kind"] == "InferencePool"
    assert space.names(f"inferencemodelrewrites.{group}") == [f"inferencemodelrewrite.{group}/any"]
