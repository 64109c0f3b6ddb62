"""Which resources there are, and the discovery documents that say so."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

IN_ALL = {"pods", "services", "deployments", "replicasets", "statefulsets", "daemonsets", "jobs"}
"""What `kubectl get all` lists."""
VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


@dataclass(frozen=True)
class Resource:
    """One resource in one version. `schema`: the structural schema of a custom one, None of a built-in."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    status: bool = False
    short: tuple[str, ...] = ()
    schema: dict[str, Any] | None = None

    @property
    def store(self) -> tuple[str, str]:
        """What identifies the stored objects, in whatever version they are asked for."""
        return self.group, self.plural

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


def _built_in() -> Iterable[Resource]:
    core = "pods:Pod services:Service configmaps:ConfigMap secrets:Secret serviceaccounts:ServiceAccount events:Event"
    core += (
        " endpoints:Endpoints persistentvolumeclaims:PersistentVolumeClaim replicationcontrollers:ReplicationController"
    )
    short = {"pods": ("po",), "services": ("svc",), "configmaps": ("cm",), "serviceaccounts": ("sa",)}
    for plural, kind in (pair.split(":") for pair in core.split()):
        status = plural in ("pods", "services", "persistentvolumeclaims", "replicationcontrollers")
        yield Resource("", "v1", plural, kind, status=status, short=short.get(plural, ()))
    yield Resource("", "v1", "namespaces", "Namespace", namespaced=False, status=True, short=("ns",))
    yield Resource("", "v1", "nodes", "Node", namespaced=False, status=True, short=("no",))
    for plural, kind, brief in (
        ("deployments", "Deployment", "deploy"),
        ("statefulsets", "StatefulSet", "sts"),
        ("daemonsets", "DaemonSet", "ds"),
        ("replicasets", "ReplicaSet", "rs"),
    ):
        yield Resource("apps", "v1", plural, kind, status=True, short=(brief,))
    yield Resource("batch", "v1", "jobs", "Job", status=True)
    yield Resource("coordination.k8s.io", "v1", "leases", "Lease")
    yield Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
    yield Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", status=True, short=("pdb",))
    yield Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", short=("netpol",))
    yield Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", status=True)
    rbac = "rbac.authorization.k8s.io"
    for plural, kind in (("roles", "Role"), ("rolebindings", "RoleBinding")):
        yield Resource(rbac, "v1", plural, kind)
        yield Resource(rbac, "v1", f"cluster{plural}", f"Cluster{kind}", namespaced=False)
    yield Resource(
        "apiextensions.k8s.io",
        "v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        namespaced=False,
        status=True,
        short=("crd", "crds"),
    )


BUILT_IN = tuple(_built_in())
CRDS = BUILT_IN[-1]
NAMESPACES = next(resource for resource in BUILT_IN if resource.plural == "namespaces")


def custom(crd: dict[str, Any]) -> list[Resource]:
    """The resources that a CustomResourceDefinition serves, one a version."""
    spec = crd["spec"]
    names = spec["names"]
    return [
        Resource(
            spec["group"],
            version["name"],
            names["plural"],
            names["kind"],
            namespaced=spec.get("scope") == "Namespaced",
            status="status" in version.get("subresources", {}),
            short=tuple(names.get("shortNames", ())),
            schema=version.get("schema", {}).get("openAPIV3Schema", {}),
        )
        for version in spec["versions"]
        if version.get("served")
    ]


def groups(resources: Iterable[Resource]) -> dict[str, Any]:
    """The document at /apis."""
    versions: dict[str, list[str]] = {}
    for resource in resources:
        if resource.group and resource.version not in versions.setdefault(resource.group, []):
            versions[resource.group].append(resource.version)
    listed = []
    for group, each in versions.items():
        told = [{"groupVersion": f"{group}/{version}", "version": version} for version in each]
        listed.append({"name": group, "versions": told, "preferredVersion": told[0]})
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}


def resource_list(resources: Iterable[Resource], group: str, version: str) -> dict[str, Any] | None:
    """The document at /api/v1 or /apis/GROUP/VERSION; None where there is no such version."""
    told: list[dict[str, Any]] = []
    for resource in resources:
        if (resource.group, resource.version) != (group, version):
            continue
        entry = {
            "name": resource.plural,
            "singularName": resource.kind.lower(),
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": VERBS,
            "shortNames": list(resource.short),
            "categories": ["all"] if resource.plural in IN_ALL else [],
        }
        told.append(entry)
        if resource.status:
            verbs = ["get", "patch", "update"]
            told.append(
                {**entry, "name": f"{resource.plural}/status", "verbs": verbs, "shortNames": [], "categories": []}
            )
    if not told:
        return None
    api_version = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": told}
