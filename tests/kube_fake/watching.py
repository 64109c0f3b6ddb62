"""Lists and watches as a client sees them: pages, initial events, bookmarks, time-outs, ERROR events."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

from .cluster import Cluster
from .errors import ApiError, Cause, invalid, too_large_version
from .kinds import Resource
from .selectors import Selector, both, field_selector, label_selector
from .store import Obj

INITIAL_EVENTS_END = "k8s.io/initial-events-end"


@dataclass(frozen=True)
class Query:
    """What of a resource is asked for."""

    resource: Resource
    namespace: str
    selector: Selector
    version: str = ""
    match: str = ""
    limit: int = 0
    token: str = ""
    bookmarks: bool = False
    initial_events: bool = False
    timeout_s: float = 1800.0


def read_query(resource: Resource, namespace: str, name: str, params: Mapping[str, str]) -> Query:
    """Raises ApiError 400, 422."""
    selector = both(
        label_selector(params.get("labelSelector", "")),
        field_selector(params.get("fieldSelector", ""), resource.plural),
    )
    if name:
        selector = both(selector, lambda obj: obj["metadata"]["name"] == name)
    version = params.get("resourceVersion", "")
    query = Query(
        resource,
        namespace,
        selector,
        version,
        params.get("resourceVersionMatch", ""),
        _number(params, "limit", 0),
        params.get("continue", ""),
        params.get("allowWatchBookmarks") in ("true", "1"),
        params.get("sendInitialEvents") in ("true", "1"),
        _number(params, "timeoutSeconds", 0) or 1800,
    )
    if version and not version.isdecimal():
        raise _refused("resourceVersion", f'Invalid value: "{version}"')
    watching = params.get("watch") in ("true", "1")
    if "sendInitialEvents" in params and query.match != "NotOlderThan":
        raise _refused(
            "resourceVersionMatch", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        )
    if watching and query.match and "sendInitialEvents" not in params:
        raise _refused(
            "resourceVersionMatch", "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        )
    if not watching and query.match and not version:
        raise _refused("resourceVersionMatch", "resourceVersionMatch is forbidden unless resourceVersion is provided")
    return query


def listed(cluster: Cluster, query: Query) -> dict[str, Any]:
    """The List object. Raises ApiError 410 (an old page), 504 (a version of the future)."""
    resource = query.resource
    if query.token:
        page = cluster.store.next_page(query.token, query.limit)
    else:
        if query.version and int(query.version) > cluster.store.version:
            raise too_large_version(int(query.version), cluster.store.version)
        page = cluster.store.page(resource.store, query.namespace, query.selector, query.limit)
    meta: dict[str, Any] = {"resourceVersion": str(page.version)}
    if page.token:
        meta |= {"continue": page.token, "remainingItemCount": page.remaining}
    items = page.objects
    if resource.schema is None:  # items of typed lists carry no kind of their own
        items = [{name: part for name, part in obj.items() if name not in ("apiVersion", "kind")} for obj in items]
    return {"apiVersion": resource.api_version, "kind": f"{resource.kind}List", "metadata": meta, "items": items}


async def watched(cluster: Cluster, query: Query, bookmark_every_s: float) -> AsyncGenerator[dict[str, Any]]:
    """Events as a watch sends them, until its time-out; an ERROR event ends one whose version is too old."""
    loop = asyncio.get_running_loop()
    ends, bookmark_at = loop.time() + query.timeout_s, loop.time() + bookmark_every_s
    changed = asyncio.Event()
    cluster.store.listeners.add(changed.set)
    try:
        at = int(query.version or 0)
        if query.initial_events or at == 0:
            at = cluster.store.version
            for obj in list(cluster.store.all(query.resource.store, query.namespace)):
                if query.selector(obj):
                    yield _event("ADDED", obj)
            if query.initial_events and query.bookmarks:
                yield _bookmark(query.resource, at, {INITIAL_EVENTS_END: "true"})
        while True:
            changed.clear()
            newest = cluster.store.version
            for event in cluster.store.since(query.resource.store, at):
                told = event.seen_through(query.selector)
                if told and query.namespace in ("", event.obj["metadata"].get("namespace", "")):
                    yield _event(*told)
            at = newest
            now = loop.time()
            over = now >= ends
            if query.bookmarks and (over or now >= bookmark_at):
                bookmark_at = now + bookmark_every_s
                yield _bookmark(query.resource, at, {})
            if over:
                return
            try:
                async with asyncio.timeout_at(min(ends, bookmark_at)):
                    await changed.wait()
            except TimeoutError:
                pass
    except ApiError as error:
        yield _event("ERROR", error.status())
    finally:
        cluster.store.listeners.discard(changed.set)


def _event(kind: str, obj: Obj) -> dict[str, Any]:
    return {"type": kind, "object": obj}


def _bookmark(resource: Resource, version: int, annotations: dict[str, str]) -> dict[str, Any]:
    meta: dict[str, Any] = {"resourceVersion": str(version), "creationTimestamp": None}
    if annotations:
        meta["annotations"] = annotations
    return _event("BOOKMARK", {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta})


def _number(params: Mapping[str, str], name: str, default: int) -> int:
    text = params.get(name) or str(default)
    if not text.isdecimal():
        raise _refused(name, f'Invalid value: "{text}"')
    return int(text)


def _refused(name: str, why: str) -> ApiError:
    return invalid("ListOptions", "", [Cause(name, "FieldValueInvalid", why)])
