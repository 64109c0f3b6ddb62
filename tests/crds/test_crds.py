"""`crds/`: what the projects publish, no more and no less, and what that lets through."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from structure import expanded, fields_of

from tests.kube_fake import schema

CRDS = Path(__file__).parents[2] / "crds"
UPSTREAM = yaml.safe_load(Path(__file__).with_name("upstream.yaml").read_text())
OURS = {crd["metadata"]["name"]: crd for crd in map(yaml.safe_load, (path.read_text() for path in CRDS.glob("*.yaml")))}
POOLS = "inferencepools.inference.networking.k8s.io"
IMPORTS = "inferencepoolimports.inference.networking.x-k8s.io"
OBJECTIVES = [name for name in OURS if name.startswith("inferenceobjectives")]
REWRITES = [name for name in OURS if name.startswith("inferencemodelrewrites")]


def version_of(name: str) -> dict[str, Any]:
    (version,) = OURS[name]["spec"]["versions"]
    return dict(version)


def judged(name: str, **parts: Any) -> tuple[dict[str, Any], list[str]]:
    """An object of a kind with its defaults, and the paths of what is wrong with it."""
    spec = OURS[name]["spec"]
    api = f"{spec['group']}/{spec['versions'][0]['name']}"
    rules = version_of(name)["schema"]["openAPIV3Schema"]
    obj = {"apiVersion": api, "kind": spec["names"]["kind"], "metadata": {"name": "x"}, **parts}
    obj, unknown = schema.pruned(obj, rules)
    obj = schema.with_defaults(obj, rules)
    return obj, unknown + [cause.path for cause in schema.violations(obj, rules)]


def pool(**changed: Any) -> dict[str, Any]:
    fine = {"selector": {"matchLabels": {"app": "vllm"}}, "targetPorts": [{"number": 8000}]}
    return {name: value for name, value in {**fine, **changed}.items() if value is not None}


def ports(*numbers: int) -> list[dict[str, int]]:
    return [{"number": number} for number in numbers]


def test_these_are_the_custom_resources() -> None:
    assert OURS.keys() == UPSTREAM["crds"].keys()


@pytest.mark.parametrize("name", sorted(OURS))
def test_structure_is_that_of_the_published_schema(name: str) -> None:
    record, version = UPSTREAM["crds"][name], version_of(name)
    ours = dict(fields_of(version["schema"]["openAPIV3Schema"]))
    assert ours == expanded(record["fields"], UPSTREAM["parts"])


@pytest.mark.parametrize("name", sorted(OURS))
def test_names_versions_and_columns_are_the_published_ones(name: str) -> None:
    record, spec, version = UPSTREAM["crds"][name], OURS[name]["spec"], version_of(name)
    columns = [
        f"{each['name']} {each['jsonPath']} {each['type']}" for each in version.get("additionalPrinterColumns", [])
    ]
    assert (spec["names"], spec["scope"], columns) == (record["names"], "Namespaced", record["columns"])
    assert (version["name"], version["served"], version["storage"]) == (record["version"], True, True)
    assert version["subresources"] == {"status": {}}


@pytest.mark.parametrize("name", sorted(name for name in OURS if ".inference.networking." in name))
def test_a_bundle_version_is_that_of_the_record(name: str) -> None:
    """Gateways and the conformance suite read it."""
    version = OURS[name]["metadata"]["annotations"]["inference.networking.k8s.io/bundle-version"]
    assert UPSTREAM["crds"][name]["source"].endswith(f"({version})")


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_field_is_described(name: str) -> None:
    def undescribed(inner: dict[str, Any], path: str) -> list[str]:
        found = [] if "description" in inner or path.endswith("metadata") else [path]
        children = list(inner.get("properties", {}).items())
        children += [(word, inner[word]) for word in ("items", "additionalProperties") if word in inner]
        return found + [each for name, child in children for each in undescribed(child, f"{path}.{name}")]

    assert undescribed(version_of(name)["schema"]["openAPIV3Schema"], "") == []


def test_a_pool_gets_its_defaults() -> None:
    reference = {"name": "picker", "port": {"number": 9002}}
    obj, wrong = judged(POOLS, spec=pool(endpointPickerRef=reference))
    assert wrong == []
    assert obj["spec"]["appProtocol"] == "http"
    assert obj["spec"]["endpointPickerRef"] == {"group": "", "kind": "Service", "failureMode": "FailClose", **reference}


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"targetPorts": ports(*range(8000, 8008))},
        {"appProtocol": "kubernetes.io/h2c"},
        {"selector": {"matchLabels": {f"label-{number}": "" for number in range(64)}}},
        {"endpointPickerRef": {"name": "picker", "kind": "Picker", "group": "x.io"}},
    ],
)
def test_a_pool_is_taken(changed: dict[str, Any]) -> None:
    assert judged(POOLS, spec=pool(**changed))[1] == []


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"targetPorts": ports(8000, 8001, 8000)}, "spec.targetPorts"),
        ({"targetPorts": []}, "spec.targetPorts"),
        ({"targetPorts": ports(*range(8000, 8009))}, "spec.targetPorts"),
        ({"targetPorts": ports(0)}, "spec.targetPorts[0].number"),
        ({"targetPorts": ports(65536)}, "spec.targetPorts[0].number"),
        ({"targetPorts": [{"number": "8000"}]}, "spec.targetPorts[0].number"),
        ({"targetPorts": None}, "spec.targetPorts"),
        ({"selector": None}, "spec.selector"),
        ({"selector": {"matchLabels": {}}}, "spec.selector.matchLabels"),
        ({"selector": {"matchLabels": {"a": "-"}}}, "spec.selector.matchLabels.a"),
        ({"selector": {"matchLabels": {f"label-{number}": "" for number in range(65)}}}, "spec.selector.matchLabels"),
        ({"selector": {"matchExpressions": []}}, "spec.selector.matchExpressions"),
        ({"appProtocol": "grpc"}, "spec.appProtocol"),
        ({"endpointPickerRef": {"name": "picker"}}, "spec.endpointPickerRef"),
        ({"endpointPickerRef": {"port": {"number": 9002}}}, "spec.endpointPickerRef.name"),
        (
            {"endpointPickerRef": {"name": "p", "port": {"number": 9002}, "failureMode": "FailClosed"}},
            "spec.endpointPickerRef.failureMode",
        ),
    ],
)
def test_a_pool_is_refused_and_the_field_named(changed: dict[str, Any], where: str) -> None:
    assert where in judged(POOLS, spec=pool(**changed))[1]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_may_have_any_priority_or_none(name: str) -> None:
    for priority in ({}, {"priority": -10}, {"priority": 0}, {"priority": 2**31 - 1}):
        obj, wrong = judged(name, spec={"poolRef": {"name": "pool"}, **priority})
        assert wrong == []
        assert obj["spec"].get("priority") == priority.get("priority")
    assert obj["spec"]["poolRef"]["group"] == "inference.networking.k8s.io"


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_needs_a_pool(name: str) -> None:
    assert judged(name, spec={"priority": 1})[1] == ["spec.poolRef"]
    assert judged(name, spec={"poolRef": {"name": "pool"}, "priority": "high"})[1] == ["spec.priority"]


@pytest.mark.parametrize("name", REWRITES)
def test_a_rewrite_matches_exactly_by_default(name: str) -> None:
    rule = {"matches": [{"model": {"value": "llama"}}], "targets": [{"modelRewrite": "llama-v2", "weight": 90}]}
    obj, wrong = judged(
        name, spec={"poolRef": {"name": "pool"}, "rules": [rule, {"targets": [{"modelRewrite": "any"}]}]}
    )
    assert wrong == []
    assert obj["spec"]["rules"][0]["matches"][0]["model"] == {"type": "Exact", "value": "llama"}


@pytest.mark.parametrize("name", REWRITES)
@pytest.mark.parametrize(
    ("rule", "where"),
    [
        ({"targets": []}, "spec.rules[0].targets"),
        ({"targets": [{"modelRewrite": "a", "weight": 0}]}, "spec.rules[0].targets[0].weight"),
        ({"targets": [{"modelRewrite": "a", "weight": 1_000_001}]}, "spec.rules[0].targets[0].weight"),
        ({"targets": [{"weight": 1}]}, "spec.rules[0].targets[0].modelRewrite"),
        ({"matches": [{"model": {"value": ""}}]}, "spec.rules[0].matches[0].model.value"),
        ({"matches": [{"model": {"value": "a", "type": "Prefix"}}]}, "spec.rules[0].matches[0].model.type"),
    ],
)
def test_a_rewrite_is_refused_and_the_field_named(name: str, rule: dict[str, Any], where: str) -> None:
    assert where in judged(name, spec={"poolRef": {"name": "pool"}, "rules": [rule]})[1]


def test_an_import_lists_each_controller_once() -> None:
    controller = {"name": "example.net/importer", "exportingClusters": [{"name": "east"}]}
    assert judged(IMPORTS, status={"controllers": [controller]})[1] == []
    assert judged(IMPORTS, status={"controllers": [controller, controller]})[1] == ["status.controllers[1]"]
    assert judged(IMPORTS, status={"controllers": [{"name": "no-path"}]})[1] == ["status.controllers[0].name"]
