"""Custom resources in the fake: known once installed, filled with defaults, pruned, and judged by schema and CEL."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.kube_fake import ApiError, Cluster, How

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "format": "int32", "minimum": 1},
                "colour": {"type": "string", "default": "red", "enum": ["red", "blue"]},
                "port": {"x-kubernetes-int-or-string": True},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "labels": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 3}},
                "parts": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {
                        "type": "object",
                        "properties": {"name": {"type": "string"}, "count": {"type": "integer", "default": 1}},
                    },
                },
            },
            "x-kubernetes-validations": [
                {"rule": "self.colour != 'blue' || self.size > 2", "message": "blue ones are large"},
                {"rule": "self.size >= oldSelf.size", "message": "sizes do not shrink"},
            ],
        },
        "status": {"type": "object", "properties": {"seen": {"type": "boolean"}}},
    },
}


def definition(schema: dict[str, Any] = SCHEMA, group: str = "x.io") -> dict[str, Any]:
    version = {"name": "v1", "served": True, "storage": True, "subresources": {"status": {}}}
    names = {"plural": "boxes", "singular": "box", "kind": "Box", "listKind": "BoxList"}
    spec: dict[str, Any] = {"group": group, "scope": "Namespaced", "names": names}
    spec["versions"] = [{**version, "schema": {"openAPIV3Schema": schema}}]
    kind = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    return {**kind, "metadata": {"name": f"boxes.{group}"}, "spec": spec}


@pytest.fixture
def cluster() -> Cluster:
    cluster = Cluster(now=lambda: 0.0)
    install(cluster, definition())
    return cluster


def install(cluster: Cluster, crd: dict[str, Any]) -> None:
    cluster.create(cluster.of_kind(crd), "", crd)


def box(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "x.io/v1", "kind": "Box", "metadata": {"name": "a"}, "spec": {"size": 1, **spec}}


def created(cluster: Cluster, how: How | None = None, **spec: Any) -> Any:
    return cluster.create(cluster.resource("x.io", "v1", "boxes"), "default", box(**spec), how or How())


def refusal(act: Callable[[], Any]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        act()
    return caught.value


def test_a_kind_is_known_from_its_definition_on_until_that_is_deleted(cluster: Cluster) -> None:
    created(cluster)
    crds = cluster.resource("apiextensions.k8s.io", "v1", "customresourcedefinitions")
    cluster.delete(crds, ("", "boxes.x.io"))
    assert refusal(lambda: cluster.resource("x.io", "v1", "boxes")).code == 404
    install(cluster, definition())
    assert list(cluster.store.all(("x.io", "boxes"))) == []


def test_what_is_missing_gets_its_default_in_lists_too(cluster: Cluster) -> None:
    spec = created(cluster, parts=[{"name": "a"}, {"name": "b", "count": 2}])["spec"]
    assert spec["colour"] == "red"
    assert [part["count"] for part in spec["parts"]] == [1, 2]


def test_what_the_schema_does_not_know_is_dropped_but_where_it_may_stay(cluster: Cluster) -> None:
    spec = created(cluster, typo=1, free={"any": "thing"})["spec"]
    assert "typo" not in spec
    assert spec["free"] == {"any": "thing"}


def test_a_strict_client_is_told_of_its_typos(cluster: Cluster) -> None:
    error = refusal(lambda: created(cluster, How(validation="Strict"), typo=1))
    assert (error.code, 'unknown field "spec.typo"' in error.message) == (400, True)
    warned = How(validation="Warn")
    created(cluster, warned, typo=1)
    assert warned.warnings == ['unknown field "spec.typo"']


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        ({"size": 0}, "spec.size"),
        ({"size": True}, "spec.size"),
        ({"size": "1"}, "spec.size"),
        ({"size": 2**31}, "spec.size"),
        ({"size": None}, "spec.size"),
        ({"colour": "green"}, "spec.colour"),
        ({"colour": "blue"}, "spec"),
        ({"port": 1.5}, "spec.port"),
        ({"labels": {"a": "long"}}, "spec.labels.a"),
        ({"parts": [{"name": "a"}, {"name": "a"}]}, "spec.parts[1]"),
        ({"parts": {}}, "spec.parts"),
    ],
)
def test_what_the_schema_forbids_is_refused_at_its_path(cluster: Cluster, spec: dict[str, Any], where: str) -> None:
    error = refusal(lambda: created(cluster, **spec))
    assert (error.code, error.details["causes"][0]["field"]) == (422, where)


def test_a_rule_about_the_old_object_holds_on_updates(cluster: Cluster) -> None:
    old = created(cluster, size=5)
    boxes = cluster.resource("x.io", "v1", "boxes")
    error = refusal(lambda: cluster.update(boxes, ("default", "a"), {**old, "spec": {"size": 4}}))
    assert "sizes do not shrink" in error.message
    assert cluster.update(boxes, ("default", "a"), {**old, "spec": {"size": 6}})["spec"]["size"] == 6


def test_status_is_another_door(cluster: Cluster) -> None:
    old = created(cluster)
    boxes = cluster.resource("x.io", "v1", "boxes")
    through_main = cluster.update(boxes, ("default", "a"), {**old, "status": {"seen": True}})
    assert "status" not in through_main
    through_status = cluster.update(boxes, ("default", "a"), {**through_main, "status": {"seen": True}}, "status")
    assert through_status["status"] == {"seen": True}


def test_a_definition_whose_rule_is_no_cel_is_refused() -> None:
    schema = {"type": "object", "x-kubernetes-validations": [{"rule": "self.("}]}
    assert refusal(lambda: install(Cluster(now=lambda: 0.0), definition(schema))).code == 422


def test_groups_of_kubernetes_need_its_approval() -> None:
    cluster, crd = Cluster(now=lambda: 0.0), definition(group="boxes.k8s.io")
    assert "api-approved" in refusal(lambda: install(cluster, crd)).message
    install(cluster, definition(group="boxes.x-k8s.io"))
