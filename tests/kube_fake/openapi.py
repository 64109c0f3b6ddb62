"""The OpenAPI documents, as far as kubectl and helm read them: who validates fields is the server, not they."""

from collections.abc import Iterable
from typing import Any

from .kinds import Resource

_FIELD_VALIDATION = {"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}


def index(resources: Iterable[Resource]) -> dict[str, Any]:
    """The document at /openapi/v3."""
    paths = {_root(resource) for resource in resources}
    return {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}"} for path in sorted(paths)}}


def document(resources: Iterable[Resource], path: str) -> dict[str, Any] | None:
    """The document of one group and version, by its path in the index; None where there is none."""
    mine = [resource for resource in resources if _root(resource) == path]
    if not mine:
        return None
    paths = {}
    for resource in mine:
        place = f"namespaces/{{namespace}}/{resource.plural}" if resource.namespaced else resource.plural
        kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
        patch = {"parameters": [_FIELD_VALIDATION], "responses": {}, "x-kubernetes-group-version-kind": kind}
        paths[f"/{path}/{place}/{{name}}"] = {"patch": patch}
    info = {"title": "Kubernetes", "version": "fake"}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": {}}}


def _root(resource: Resource) -> str:
    return f"apis/{resource.group}/{resource.version}" if resource.group else f"api/{resource.version}"
