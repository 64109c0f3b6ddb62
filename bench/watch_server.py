"""The API server of `bench.watch_cost`, a process of its own: one pool, and pods that change at a steady rate."""

import asyncio
import json
import time
from multiprocessing.connection import Connection
from typing import Any

from aiohttp import web

_POOL = json.dumps(
    {
        "metadata": {"name": "p", "namespace": "ns", "resourceVersion": "1"},
        "spec": {"selector": {"matchLabels": {"app": "vllm"}}, "targetPorts": [{"number": 8000}]},
    }
).encode()


def pod(number: int, version: int, *, ready: bool = True) -> bytes:
    """A pod as the API server writes it."""
    name = f"vllm-llama-7d9c5b6f4-{number:05d}"
    fields: dict[str, Any] = {f"f:field-{at}": {".": {}, "f:name": {}, "f:value": {}} for at in range(60)}
    env = [{"name": f"VLLM_SETTING_{at}", "value": f"value-{at}"} for at in range(40)]
    conditions = [
        {"type": kind, "status": str(ready or kind != "Ready"), "lastTransitionTime": "2026-01-01T00:00:00Z"}
        for kind in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    ]
    found = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "ns",
            "uid": f"5e8f8a4e-0000-4000-8000-{number:012d}",
            "resourceVersion": str(version),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "vllm", "pod-template-hash": "7d9c5b6f4", "picker.dev/hardware": "H100"},
            "managedFields": [{"manager": who, "fieldsV1": fields} for who in ("kube-controller", "kubelet")],
        },
        "spec": {"containers": [{"name": "vllm", "image": "vllm/vllm-openai:v0.10", "env": env}]},
        "status": {
            "phase": "Running",
            "podIP": f"10.{number >> 14}.{number >> 7 & 127}.{1 + (number & 127)}",
            "conditions": conditions,
        },
    }
    return json.dumps(found, separators=(",", ":")).encode()


class Server:
    """An API server that knows one pool and its pods. `rate` events/s of `kind` follow each list."""

    def __init__(self, pods: int, rate: float, kind: str) -> None:
        self._pods = [pod(number, 1) for number in range(pods)]
        self._rate, self._kind = rate, kind
        self.go = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        collection = request.path.rpartition("/")[2]
        if query.get("watch"):
            return await self._watch(request, collection == "pods")
        first = int(query.get("continue", "0"))
        last = first + int(query.get("limit", "100000"))
        items = {"pods": self._pods, "inferencepools": [_POOL]}.get(collection, [])
        meta = {"resourceVersion": "1"} | ({"continue": str(last)} if last < len(items) else {})
        head = b'{"metadata":%s,"items":[' % json.dumps(meta).encode()
        return web.Response(body=head + b",".join(items[first:last]) + b"]}")

    async def _watch(self, request: web.Request, pods: bool) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        if not pods:
            await asyncio.Event().wait()
        await self.go.wait()
        began, sent = time.monotonic(), 0
        while True:
            for number in range(sent, int((time.monotonic() - began) * self._rate)):
                lap, place = divmod(number, len(self._pods))
                changed = pod(place, 2 + number, ready=self._kind == "heartbeats" or lap % 2 == 1)
                await response.write(b'{"type":"MODIFIED","object":%s}\n' % changed)
                sent += 1
            await asyncio.sleep(0.005)


def serve(pipe: Connection, pods: int, rate: float, kind: str) -> None:
    """The server's process: says its port, waits for a word, then lets the events flow."""

    async def run() -> None:
        server = Server(pods, rate, kind)
        app = web.Application()
        app.router.add_get("/{path:.*}", server.answer)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        pipe.send(runner.addresses[0][1])
        await asyncio.to_thread(pipe.recv)
        server.go.set()
        await asyncio.to_thread(pipe.recv)
        await runner.cleanup()

    asyncio.run(run())
