"""CustomResourceDefinitions: what a server refuses in them, and what it says of one that it serves."""

from typing import Any

from . import schema
from .errors import Cause
from .store import Obj


def faults(crd: Obj) -> list[Cause]:
    """Name, approval of protected groups, and CEL rules of a CustomResourceDefinition."""
    spec = crd.get("spec", {})
    group, plural = str(spec.get("group", "")), spec.get("names", {}).get("plural")
    wrong = []
    if crd["metadata"]["name"] != f"{plural}.{group}":
        wrong.append(
            Cause("metadata.name", "FieldValueInvalid", f'must be spec.names.plural+"."+spec.group: {plural}.{group}')
        )
    protected = f".{group}".endswith((".k8s.io", ".kubernetes.io"))
    annotation = "api-approved.kubernetes.io"
    if protected and annotation not in crd["metadata"].get("annotations", {}):
        wrong.append(Cause(f"metadata.annotations[{annotation}]", "FieldValueRequired", "protected groups need it"))
    if sum(bool(version.get("storage")) for version in spec.get("versions", ())) != 1:
        wrong.append(
            Cause("spec.versions", "FieldValueInvalid", "must have exactly one version marked as storage version")
        )
    for version in spec.get("versions", ()):
        wrong += schema.check_rules(version.get("schema", {}).get("openAPIV3Schema", {}))
    return wrong


def established(crd: Obj, now: str) -> dict[str, Any]:
    """As it is once its names are accepted and it is served, which here is at once."""
    words = {"lastTransitionTime": now, "status": "True", "message": ""}
    conditions = [{"type": name, "reason": name, **words} for name in ("NamesAccepted", "Established")]
    versions = [version["name"] for version in crd["spec"].get("versions", ()) if version.get("storage")]
    names = crd["spec"].get("names", {})
    return {**crd, "status": {"acceptedNames": names, "conditions": conditions, "storedVersions": versions}}
