"""One mirrored collection against an API server that answers as no API server should, then well."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import incluster_config
from watched_pool import pod, until

from picker.pool.kube.access import PODS
from picker.pool.kube.objects import Pod, read_pod
from picker.pool.kube.reflector import Change, Reflector
from picker.server.kubernetes import mirror as mirrors
from picker.server.kubernetes.cluster import Cluster
from picker.server.kubernetes.mirror import Mirror
from picker.server.tls import self_signed

Script = Callable[[web.Request], Awaitable[web.StreamResponse]]
"""What to answer to one call."""


def versioned(found: dict[str, Any], version: int) -> dict[str, Any]:
    return found | {"metadata": found["metadata"] | {"resourceVersion": str(version), "uid": found["metadata"]["name"]}}


A, B, C = (versioned(pod(name, host), host) for host, name in enumerate("abc", 1))
LISTED = json.dumps({"metadata": {"resourceVersion": "10"}, "items": [A, B]}).encode()
EVENTS = [
    json.dumps({"type": kind, "object": versioned(found, version)}).encode() + b"\n"
    for version, kind, found in ((11, "ADDED", C), (12, "DELETED", A))
]


class Scripted:
    """Serves LISTED and EVENTS, after it played the scripts: what to answer to the first lists and watches."""

    def __init__(self, lists: Iterable[Script] = (), watches: Iterable[Script] = ()) -> None:
        self.lists, self.watches = list(lists), list(watches)
        self.headers: dict[str, str] = {}
        self.asked: list[str] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.headers = dict(request.headers)
        watch = request.query.get("watch") == "true"
        version = request.query.get("resourceVersion", "")
        self.asked.append(version)
        script = self.watches if watch else self.lists
        if script:
            return await script.pop(0)(request)
        if not watch:
            return web.Response(body=LISTED)
        response = await stream(request, *EVENTS[int(version) - 10 :])
        await asyncio.sleep(60)
        return response


async def stream(request: web.Request, *chunks: bytes) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for chunk in chunks:
        await response.write(chunk)
    return response


def cut(request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort()


def answer(body: bytes = b"", status: int = 200, headers: dict[str, str] | None = None) -> Script:
    async def play(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, status=status, headers=headers)

    return play


def chunks(*parts: bytes, reset: bool = False) -> Script:
    async def play(request: web.Request) -> web.StreamResponse:
        response = await stream(request, *parts)
        await asyncio.sleep(0.01)
        if reset:
            cut(request)
        return response

    return play


async def silence(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(0.05)
    cut(request)
    return web.Response()


@contextlib.asynccontextmanager
async def serving(script: Script, ssl_context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    async def handler(request: web.Request) -> web.StreamResponse:
        return await script(request)

    app = web.Application()
    app.router.add_get("/{path:.*}", handler)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl_context).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def mirrored(cluster: Cluster) -> AsyncIterator[tuple[dict[str, Pod], Mirror[Pod]]]:
    held: dict[str, Pod] = {}

    def apply(changes: list[Change[Pod]]) -> None:
        for change in changes:
            held.pop(change.name, None)
            if change.value is not None:
                held[change.name] = change.value

    mirror = Mirror(cluster, PODS, "ns", Reflector(read_pod, lambda: 0.99), apply)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(mirror.run())
        yield held, mirror
        task.cancel()
    await cluster.close()


def cluster_at(port: int) -> Cluster:
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{port}"
    return Cluster(configuration)


@pytest.mark.parametrize(
    "bad",
    [
        answer(b"<html>a proxy's page</html>"),
        answer(LISTED[:-40]),
        answer(b"[]"),
        answer(b"x" * 5000),
        answer(status=302, headers={"Location": "http://169.254.169.254/"}),
        answer(status=503),
        chunks(LISTED[:100], reset=True),
        silence,
    ],
    ids=["html", "cut", "no list", "too large", "redirect", "unavailable", "reset", "silence"],
)
async def test_a_list_that_fails_is_asked_for_again(bad: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirrors, "MAX_PAGE_BYTES", 4000)
    script = Scripted([bad])
    async with serving(script) as port, mirrored(cluster_at(port)) as (held, _):
        await until(lambda: set(held) == {"b", "c"} and not script.lists)


@pytest.mark.parametrize(
    "bad",
    [
        chunks(b"garbage\n"),
        chunks(EVENTS[0][:50]),
        chunks(EVENTS[0][:50], reset=True),
        chunks(EVENTS[0], reset=True),
        chunks(EVENTS[0] + EVENTS[1][:30], reset=True),
        chunks(b"x" * 5000),
        chunks(b'{"type":"ERROR","object":{"code":410}}\n'),
        chunks(b'{"type":"ERROR","object":{"code":"?"}}\n'),
        answer(status=410),
        answer(status=429, headers={"Retry-After": "1"}),
        silence,
    ],
    ids=[
        *("garbage", "cut", "cut and reset", "one, then reset", "one and a half", "endless line", "gone", "odd error"),
        *("gone by status", "throttled", "silence"),
    ],
)
async def test_a_watch_that_fails_loses_and_doubles_nothing(bad: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirrors, "MAX_LINE", 4000)
    script = Scripted((), [bad])
    async with serving(script) as port, mirrored(cluster_at(port)) as (held, _):
        await until(lambda: set(held) == {"b", "c"} and not script.watches)


async def test_events_cut_anywhere_are_put_together_again() -> None:
    bytewise = chunks(*(bytes([byte]) for byte in b"".join(EVENTS)))
    async with serving(Scripted((), [bytewise])) as port, mirrored(cluster_at(port)) as (held, _):
        await until(lambda: set(held) == {"b", "c"})


async def test_a_broken_watch_goes_on_after_the_last_event_that_was_whole() -> None:
    script = Scripted((), [chunks(EVENTS[0] + EVENTS[1][:30], reset=True)])
    async with serving(script) as port, mirrored(cluster_at(port)) as (held, _):
        await until(lambda: set(held) == {"b", "c"})
        assert script.asked == ["", "10", "11"]


async def test_in_a_pod_the_service_account_speaks_and_the_clusters_own_authority_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = self_signed()
    (tmp_path / "key").write_bytes(key)
    (tmp_path / "ca").write_bytes(certificate)
    (tmp_path / "token").write_text("s3cret")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "ca", tmp_path / "key")
    script = Scripted()
    async with serving(script, ssl_context=context) as port:
        monkeypatch.delenv("KUBECONFIG", raising=False)
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(port))
        monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
        monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca"))
        async with mirrored(await Cluster.connect()) as (held, _):
            await until(lambda: set(held) == {"b", "c"})
        assert script.headers["Authorization"] == "bearer s3cret"
