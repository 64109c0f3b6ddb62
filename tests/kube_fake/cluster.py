"""What a write does to a cluster: names, generations, status, finalizers, schemas, patches. Sans-I/O."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import yaml

from . import definitions, patches, schema
from .errors import Cause, already_exists, bad_request, conflict, invalid, not_found, unsupported_media
from .kinds import BUILT_IN, CRDS, NAMESPACES, Resource, custom
from .store import Key, Obj, Store

NAME = re.compile(r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
RBAC_NAME = re.compile(r"^[^/%]+$")
IMMUTABLE = {
    ("apps", "deployments"): ("selector",),
    ("apps", "statefulsets"): ("selector", "serviceName"),
    ("apps", "daemonsets"): ("selector",),
    ("batch", "jobs"): ("selector", "template"),
}
VERSION_REQUIRED = {"leases"}
"""Built-ins that refuse an update without a resourceVersion; custom resources do as well."""


@dataclass(frozen=True)
class How:
    """The query parameters of a write. `validation`: Strict, Warn or Ignore. Warnings are put into `warnings`."""

    dry_run: bool = False
    validation: str = "Ignore"
    manager: str = ""
    warnings: list[str] = field(default_factory=list)


@dataclass
class Cluster:
    """The objects of a cluster and the rules for writing them. `now` gives seconds since the epoch."""

    now: Callable[[], float]
    store: Store = field(default_factory=Store)
    resources: tuple[Resource, ...] = BUILT_IN
    _applied: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    _made: int = 0

    def __post_init__(self) -> None:
        for name in ("default", "kube-system"):
            self.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def resource(self, group: str, version: str, plural: str) -> Resource:
        """Raises ApiError 404."""
        for resource in self.resources:
            if (resource.group, resource.version, resource.plural) == (group, version, plural):
                return resource
        raise not_found("")

    def of_kind(self, obj: Obj) -> Resource:
        """The resource of an object, by its apiVersion and kind. Raises ApiError 404."""
        for resource in self.resources:
            if (resource.api_version, resource.kind) == (obj.get("apiVersion"), obj.get("kind")):
                return resource
        raise not_found(f"{obj.get('apiVersion')} {obj.get('kind')}")

    def get(self, resource: Resource, key: Key) -> Obj:
        """Raises ApiError 404."""
        obj = self.store.get(resource.store, key)
        if obj is None:
            raise not_found(resource.qualified, key[1])
        return obj

    def put(self, obj: Obj) -> Obj:
        """For tests: store an object as it is, status and all, in a namespace that is made where there is none."""
        resource = self.of_kind(obj)
        key = self._key(resource, obj["metadata"].get("namespace", "default"), obj["metadata"]["name"])
        if key[0] and self.store.get(NAMESPACES.store, ("", key[0])) is None:
            self.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": key[0]}})
        old = self.store.get(resource.store, key)
        meta = {**obj["metadata"], **({"namespace": key[0]} if key[0] else {})}
        stamped = self._stamped(resource, {**obj, "metadata": meta}, old)
        given = {name: meta[name] for name in ("uid", "creationTimestamp", "deletionTimestamp") if name in meta}
        return self._write(resource, key, {**stamped, "metadata": {**stamped["metadata"], **given}}, How())

    def create(self, resource: Resource, namespace: str, obj: Obj, how: How = How()) -> Obj:
        """Raises ApiError 400, 404 (no such namespace), 409, 422."""
        meta = dict(obj.get("metadata") or {})
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = f"{meta['generateName']}{self._made:05x}"
        name = str(meta.get("name") or "")
        allowed = RBAC_NAME if resource.group == "rbac.authorization.k8s.io" else NAME
        if not allowed.match(name) or len(name) > 253:
            raise invalid(
                resource.kind, name, [Cause("metadata.name", "FieldValueInvalid", f'Invalid value: "{name}"')]
            )
        key = self._key(resource, namespace, name)
        if meta.get("namespace", namespace) != namespace and resource.namespaced:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        if key[0] and self.store.get(NAMESPACES.store, ("", key[0])) is None:
            raise not_found("namespaces", key[0])
        if self.store.get(resource.store, key) is not None:
            raise already_exists(resource.qualified, name)
        if meta.get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")
        if key[0]:
            meta["namespace"] = key[0]
        fresh = {name: part for name, part in obj.items() if name != "status" or not resource.status}
        if resource.plural == "pods":
            fresh["status"] = {"phase": "Pending"}
        return self._admit(resource, key, {**fresh, "metadata": meta}, None, how)

    def update(self, resource: Resource, key: Key, obj: Obj, sub: str = "", how: How = How()) -> Obj:
        """Raises ApiError 400, 404, 409 (another version than the one read), 422."""
        old = self.get(resource, key)
        meta = obj.get("metadata") or {}
        if meta.get("name") != key[1]:
            raise bad_request(
                f"the name of the object ({meta.get('name')}) does not match the name on the URL ({key[1]})"
            )
        version = meta.get("resourceVersion")
        if not version and (resource.schema is not None or resource.plural in VERSION_REQUIRED):
            cause = Cause("metadata.resourceVersion", "FieldValueInvalid", "must be specified for an update")
            raise invalid(resource.kind, key[1], [cause])
        if version and version != old["metadata"]["resourceVersion"]:
            raise conflict(resource.qualified, key[1])
        if meta.get("uid", old["metadata"]["uid"]) != old["metadata"]["uid"]:
            raise conflict(resource.qualified, key[1], "the UID in the precondition is not the UID of the object")
        return self._admit(resource, key, obj, old, how, sub)

    def patch(self, resource: Resource, key: Key, form: str, body: bytes, sub: str = "", how: How = How()) -> Obj:
        """Raises ApiError 400, 404, 409, 415, 422."""
        try:
            patch = yaml.load(body, yaml.CSafeLoader)
        except yaml.YAMLError as error:
            raise bad_request(f"the patch cannot be read: {error}") from None
        if form == patches.APPLY:
            return self._apply(resource, key, patch, sub, how)
        old = self.get(resource, key)
        if form == patches.MERGE or (form == patches.STRATEGIC and resource.schema is None):
            wanted = patches.merge(old, patch) if form == patches.MERGE else patches.strategic(old, patch)
        elif form == patches.JSON_PATCH:
            wanted = patches.json_patch(old, patch)
        else:
            raise unsupported_media(form)
        if not isinstance(wanted, dict):
            raise bad_request("the patch leaves no object")
        return self.update(resource, key, wanted, sub, how)

    def delete(
        self,
        resource: Resource,
        key: Key,
        *,
        grace_s: int | None = None,
        uid: str = "",
        version: str = "",
        how: How = How(),
    ) -> Obj:
        """What is left of the object: with finalizers, or a pod on a node in its grace period, it is only marked.

        Raises ApiError 404, 409.
        """
        old = self.get(resource, key)
        meta = old["metadata"]
        if uid not in ("", meta["uid"]) or version not in ("", meta["resourceVersion"]):
            raise conflict(resource.qualified, key[1], "the precondition of the deletion does not hold")
        on_node = _on_node(resource, old)
        if meta.get("finalizers") or (on_node and grace_s != 0):
            if "deletionTimestamp" in meta:
                return old
            seconds = 30 if grace_s is None and on_node else grace_s or 0
            marks = {"deletionTimestamp": self._time(seconds), "deletionGracePeriodSeconds": seconds}
            return self._write(resource, key, {**old, "metadata": {**meta, **marks}}, how)
        if resource is NAMESPACES:
            for inner in {each.store: each for each in self.resources if each.namespaced}.values():
                for obj in list(self.store.all(inner.store, key[1])):
                    self._write(inner, (key[1], obj["metadata"]["name"]), None, how)
        return self._write(resource, key, None, how)

    def _apply(self, resource: Resource, key: Key, applied: Any, sub: str, how: How) -> Obj:
        if not isinstance(applied, dict) or not how.manager:
            raise bad_request("an apply needs an object and the query parameter fieldManager")
        identity = (resource.store, key, how.manager, sub)
        old = self.store.get(resource.store, key)
        if old is None:
            written = self.create(resource, key[0], applied, how)
        else:
            wanted = patches.apply(old, applied, self._applied.get(identity))
            written = self.update(resource, key, wanted, sub, how)
        if not how.dry_run:
            self._applied[identity] = applied
        return written

    def _admit(self, resource: Resource, key: Key, obj: Obj, old: Obj | None, how: How, sub: str = "") -> Obj:
        """Every create and update: prune, default, keep what this request may not change, validate, store."""
        if (obj.get("apiVersion"), obj.get("kind")) != (resource.api_version, resource.kind):
            raise bad_request(f"the object is a {obj.get('apiVersion')} {obj.get('kind')}, not a {resource.kind}")
        wanted: dict[str, Any] = dict(obj)
        if resource.schema is not None:
            wanted, unknown = schema.pruned(wanted, resource.schema)
            if unknown and how.validation == "Strict":
                raise bad_request("strict decoding error: " + ", ".join(f'unknown field "{name}"' for name in unknown))
            if how.validation == "Warn":
                how.warnings.extend(f'unknown field "{name}"' for name in unknown)
            wanted = schema.with_defaults(wanted, resource.schema)
        if old is not None:
            kept = {name: old[name] for name in ("status",) if name in old}
            if sub == "status":
                wanted = {**old, **{name: wanted[name] for name in ("status",) if name in wanted}}
            elif resource.status:
                wanted = {**{name: part for name, part in wanted.items() if name != "status"}, **kept}
        wrong = schema.violations(wanted, resource.schema, old) if resource.schema is not None else []
        wrong += _frozen(resource, wanted, old)
        if resource is CRDS:
            wrong += definitions.faults(wanted)
            wanted = definitions.established(wanted, self._time())
        if wrong:
            raise invalid(resource.kind, key[1], wrong)
        return self._write(resource, key, self._stamped(resource, wanted, old), how)

    def _stamped(self, resource: Resource, obj: Obj, old: Obj | None) -> Obj:
        """With the metadata that only the server sets."""
        meta = {name: value for name, value in obj["metadata"].items() if name != "managedFields"}
        if old is None:
            self._made += 1
            uid = f"00000000-0000-4000-8000-{self._made:012x}"
            return {**obj, "metadata": {**meta, "uid": uid, "creationTimestamp": self._time(), "generation": 1}}
        was = old["metadata"]
        for name in ("uid", "creationTimestamp", "deletionTimestamp", "resourceVersion", "namespace"):
            meta.pop(name, None)
            if name in was:
                meta[name] = was[name]
        changed = _content(obj) != _content(old)
        return {**obj, "metadata": {**meta, "generation": was.get("generation", 1) + changed}}

    def _write(self, resource: Resource, key: Key, obj: Obj | None, how: How) -> Obj:
        old = self.store.get(resource.store, key)
        if obj is not None and obj["metadata"].get("deletionTimestamp") and not obj["metadata"].get("finalizers"):
            obj = obj if _on_node(resource, obj) else None
        if how.dry_run:
            return obj if obj is not None else (old or {})
        if obj is not None and obj == old:
            return obj
        written = self.store.write(resource.store, key, obj)
        if obj is None:
            for identity in [each for each in self._applied if each[:2] == (resource.store, key)]:
                del self._applied[identity]
        if resource is CRDS:
            self._serve_custom_resources(written, gone=obj is None)
        return written

    def _serve_custom_resources(self, crd: Obj, gone: bool) -> None:
        self.resources = BUILT_IN + tuple(each for crd in self.store.all(CRDS.store) for each in custom(dict(crd)))
        if gone:
            of = crd["spec"]["group"], crd["spec"]["names"]["plural"]
            for obj in list(self.store.all(of)):
                self.store.write(of, (obj["metadata"].get("namespace", ""), obj["metadata"]["name"]), None)

    def _key(self, resource: Resource, namespace: str, name: str) -> Key:
        return (namespace if resource.namespaced else ""), name

    def _time(self, later_s: float = 0.0) -> str:
        return datetime.fromtimestamp(self.now() + later_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _on_node(resource: Resource, obj: Obj) -> bool:
    """Whether this is a pod that only its kubelet, by a deletion without grace period, may remove."""
    return resource.plural == "pods" and bool(obj.get("spec", {}).get("nodeName"))


def _content(obj: Obj) -> dict[str, Any]:
    """What a generation counts changes of."""
    return {name: part for name, part in obj.items() if name not in ("metadata", "status")}


def _frozen(resource: Resource, obj: Obj, old: Obj | None) -> list[Cause]:
    if old is None:
        return []
    return [
        Cause(f"spec.{name}", "FieldValueInvalid", "field is immutable")
        for name in IMMUTABLE.get(resource.store, ())
        if obj.get("spec", {}).get(name) != old.get("spec", {}).get(name)
    ]
