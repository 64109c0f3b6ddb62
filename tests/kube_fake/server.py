"""The HTTP shell: paths to calls, bodies to objects, objects to JSON, watches to chunked lines."""

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from . import kinds, openapi, patches, protobuf
from .cluster import Cluster, How
from .errors import ApiError, bad_request, forbidden, not_found, unsupported_media
from .kinds import Resource
from .watching import Query, listed, read_query, watched

VERSION = {"major": "1", "minor": "35", "gitVersion": "v1.35.0+fake", "platform": "linux/amd64"}
CALLS_KEPT = 10_000


@dataclass(frozen=True)
class Call:
    """One request as authorisation sees it."""

    verb: str
    group: str
    resource: str
    namespace: str = ""
    name: str = ""


@dataclass
class FakeApiServer:
    """An API server on 127.0.0.1. `authorize` may refuse calls (403); `fault` may return an error to answer with.

    No OpenAPI schemas, no admission, no garbage collection, no controllers, no ownership among server-side appliers.
    """

    cluster: Cluster = field(default_factory=lambda: Cluster(time.time))
    bookmark_every_s: float = 60.0
    authorize: Callable[[Call], bool] = lambda call: True
    fault: Callable[[Call], ApiError | None] = lambda call: None
    calls: deque[Call] = field(default_factory=lambda: deque(maxlen=CALLS_KEPT))
    port: int = 0
    _runner: web.AppRunner | None = None
    _watches: set[asyncio.Transport] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig that leads here."""
        name = "fake"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": self.url}}],
            "users": [{"name": name, "user": {}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
            "current-context": name,
        }
        path.write_text(yaml.safe_dump(config))
        return path

    async def up(self) -> None:
        """Listen, after `down` on the same port as before."""
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    async def down(self) -> None:
        """Stop listening and cut every connection; the objects stay."""
        self.cut_watches()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def cut_watches(self) -> None:
        """Break the connections of all watches off, without a last word."""
        for transport in self._watches:
            transport.abort()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except ApiError as error:
            return web.json_response(error.status(), status=error.code)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        parts = [part for part in request.path.split("/") if part]
        if parts in (["healthz"], ["livez"], ["readyz"]):
            return web.Response(text="ok")
        if (document := self._discovery(parts)) is not None:
            return web.json_response(document)
        resource, namespace, name, sub = self._read_path(parts)
        call = Call(_verb(request, name), resource.group, resource.plural + (f"/{sub}" if sub else ""), namespace, name)
        self.calls.append(call)
        if not self.authorize(call):
            raise forbidden(call.verb, call.resource, call.group)
        if (fault := self.fault(call)) is not None:
            raise fault
        if sub not in ("", "status") or (sub and not resource.status):
            raise not_found("")
        if call.verb == "watch":
            return await self._watch(request, read_query(resource, namespace, name, request.query))
        if call.verb == "list":
            return web.json_response(listed(self.cluster, read_query(resource, namespace, "", request.query)))
        if call.verb == "get":
            return web.json_response(self.cluster.get(resource, _key(resource, namespace, name)))
        return await self._write(request, call, resource, sub)

    async def _write(self, request: web.Request, call: Call, resource: Resource, sub: str) -> web.Response:
        params = request.query
        how = How(params.get("dryRun") == "All", params.get("fieldValidation", "Warn"), params.get("fieldManager", ""))
        key = _key(resource, call.namespace, call.name)
        body = await request.read()
        form = request.content_type
        if call.verb == "create":
            written = self.cluster.create(resource, call.namespace, _object(form, body, resource), how)
            return _json(written, 201, how)
        if call.verb == "update":
            return _json(self.cluster.update(resource, key, _object(form, body, resource), sub, how), 200, how)
        if call.verb == "patch":
            created = form == patches.APPLY and self.cluster.store.get(resource.store, key) is None
            written = self.cluster.patch(resource, key, form, body, sub, how)
            return _json(written, 201 if created else 200, how)
        options = _delete_options(form, body)
        if call.verb == "delete":
            return web.json_response(self._deleted(resource, key, options, params.get("gracePeriodSeconds"), how))
        query = read_query(resource, call.namespace, "", params)
        gone = self.cluster.store.page(resource.store, call.namespace, query.selector, 0).objects
        for obj in gone:
            self._deleted(
                resource, _key(resource, obj["metadata"].get("namespace", ""), obj["metadata"]["name"]), {}, None, how
            )
        return web.json_response({**listed(self.cluster, query), "items": gone})

    def _deleted(self, resource: Resource, key: tuple[str, str], options: Any, grace: str | None, how: How) -> Any:
        preconditions = options.get("preconditions") or {}
        seconds = options.get("gracePeriodSeconds", int(grace) if grace and grace.isdecimal() else None)
        uid, version = str(preconditions.get("uid") or ""), str(preconditions.get("resourceVersion") or "")
        dry = bool(options.get("dryRun")) or how.dry_run
        left = self.cluster.delete(resource, key, grace_s=seconds, uid=uid, version=version, how=How(dry))
        if "deletionTimestamp" in left["metadata"] and self.cluster.store.get(resource.store, key) is not None:
            return left
        details = {"name": key[1], "group": resource.group, "kind": resource.plural, "uid": left["metadata"]["uid"]}
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}

    async def _watch(self, request: web.Request, query: Query) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Cache-Control": "no-cache"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        transport = request.transport
        if transport is None:
            return response
        self._watches.add(transport)
        try:
            async with contextlib.aclosing(watched(self.cluster, query, self.bookmark_every_s)) as events:
                async for event in events:
                    await response.write(json.dumps(event, separators=(",", ":")).encode() + b"\n")
            await response.write_eof()
        except ConnectionError:
            pass  # the watcher has gone
        finally:
            self._watches.discard(transport)
        return response

    def _discovery(self, parts: list[str]) -> dict[str, Any] | None:
        if parts == ["version"]:
            return VERSION
        if parts == ["api"]:
            return {"kind": "APIVersions", "apiVersion": "v1", "versions": ["v1"]}
        if parts == ["openapi", "v3"]:
            return openapi.index(self.cluster.resources)
        if parts[:2] == ["openapi", "v3"]:
            return openapi.document(self.cluster.resources, "/".join(parts[2:]))
        if parts == ["apis"]:
            return kinds.groups(self.cluster.resources)
        if len(parts) == 2 and parts[0] == "apis":
            found = [group for group in kinds.groups(self.cluster.resources)["groups"] if group["name"] == parts[1]]
            return {"kind": "APIGroup", "apiVersion": "v1", **found[0]} if found else None
        if parts[:1] == ["api"] and len(parts) == 2:
            return kinds.resource_list(self.cluster.resources, "", parts[1])
        if parts[:1] == ["apis"] and len(parts) == 3:
            return kinds.resource_list(self.cluster.resources, parts[1], parts[2])
        return None

    def _read_path(self, parts: list[str]) -> tuple[Resource, str, str, str]:
        """Resource, namespace, name, subresource. Raises ApiError 404."""
        if parts[:1] == ["api"] and len(parts) > 2:
            group, version, rest = "", parts[1], parts[2:]
        elif parts[:1] == ["apis"] and len(parts) > 3:
            group, version, rest = parts[1], parts[2], parts[3:]
        else:
            raise not_found("")
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
            namespace, rest = rest[1], rest[2:]
        plural, name, sub, *more = [*rest, "", "", ""][: max(3, len(rest))]
        resource = self.cluster.resource(group, version, plural)
        if any(more) or (namespace and not resource.namespaced):
            raise not_found("")
        return resource, namespace, name, sub


def _key(resource: Resource, namespace: str, name: str) -> tuple[str, str]:
    return (namespace if resource.namespaced else ""), name


def _verb(request: web.Request, name: str) -> str:
    if request.method in ("GET", "HEAD"):
        if request.query.get("watch") in ("true", "1"):
            return "watch"
        return "get" if name else "list"
    if request.method == "DELETE":
        return "delete" if name else "deletecollection"
    verb = {"POST": "create", "PUT": "update", "PATCH": "patch"}.get(request.method)
    if verb is None or (verb == "create") is bool(name):
        raise ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    return verb


def _object(form: str, body: bytes, resource: Resource) -> dict[str, Any]:
    """A request's body as an object that names its kind. Raises ApiError 400, 415."""
    if form == protobuf.CONTENT_TYPE:
        obj: Any = protobuf.decode(body)
    elif form in ("application/json", "application/octet-stream", "text/plain"):
        try:
            obj = json.loads(body)
        except ValueError as error:
            raise bad_request(f"the body is no JSON: {error}") from None
    elif form == "application/yaml":
        obj = yaml.load(body, yaml.CSafeLoader)
    else:
        raise unsupported_media(form)
    if not isinstance(obj, dict) or not isinstance(obj.get("metadata"), dict):
        raise bad_request("the body is no object with metadata")
    return {"apiVersion": resource.api_version, "kind": resource.kind, **obj}


def _delete_options(form: str, body: bytes) -> dict[str, Any]:
    if not body or form == protobuf.CONTENT_TYPE:
        return {}
    try:
        options = json.loads(body)
    except ValueError as error:
        raise bad_request(f"the body is no JSON: {error}") from None
    return options if isinstance(options, dict) else {}


def _json(obj: Any, status: int, how: How) -> web.Response:
    response = web.json_response(obj, status=status)
    for warning in how.warnings:
        response.headers.add("Warning", f'299 - "{warning}"')
    return response


@contextlib.asynccontextmanager
async def fake_api_server(**options: Any) -> AsyncIterator[FakeApiServer]:
    """A fake that listens, for as long as the context lasts."""
    fake = FakeApiServer(**options)
    await fake.up()
    try:
        yield fake
    finally:
        await fake.down()


async def serve_until_cancelled(port: int, kubeconfig: Path) -> None:
    async with fake_api_server(port=port) as fake:
        fake.kubeconfig(kubeconfig)
        print(f"{fake.url}, KUBECONFIG={kubeconfig}", flush=True)
        await asyncio.Event().wait()
