"""The rendered Deployment's own arguments start the real picker; with the rendered Role alone it becomes ready.

In the fake API server whatever no rule allows is forbidden, and what was asked for is written down.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from api_servers import ROOT
from chart_rendering import NAMESPACE, PODS, RELEASE, STANDALONE, Rendered, at, merged, render
from grpc_health.v1 import health_pb2, health_pb2_grpc

from picker.server.up.ports import HOST, free_ports
from tests.kube_fake import Call, FakeApiServer, fake_api_server

PATIENCE_S = 60.0
TWO = merged(PODS, at("router.epp.replicas", 2))
READY = health_pb2.HealthCheckResponse.SERVING
POOL = {
    "apiVersion": "inference.networking.k8s.io/v1",
    "kind": "InferencePool",
    "metadata": {"name": RELEASE, "namespace": NAMESPACE},
    "spec": {"selector": {"matchLabels": {"app": "vllm"}}, "targetPorts": [{"number": 8000}]},
}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "engine", "namespace": NAMESPACE, "labels": {"app": "vllm"}},
    "status": {"podIP": "127.0.0.9", "conditions": [{"type": "Ready", "status": "True"}]},
}

Right = tuple[str, str, str]
"""(verb, API group, resource)."""


def rights(rendered: Rendered) -> set[Right]:
    """All that the Role allows."""
    return {
        (verb, group, resource)
        for rule in rendered.one("Role")["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def right(call: Call) -> Right:
    return call.verb, call.group, call.resource


@asynccontextmanager
async def cluster(allowed: set[Right]) -> AsyncIterator[FakeApiServer]:
    """An API server with the custom resources, a pool and an engine's pod, that allows this and no more."""
    async with fake_api_server() as fake:
        for path in sorted((ROOT / "crds").glob("*.yaml")):
            fake.cluster.put(yaml.safe_load(path.read_text()))
        fake.cluster.put(POOL)
        fake.cluster.put(POD)
        fake.authorize = lambda call: call.namespace == NAMESPACE and right(call) in allowed
        yield fake


@asynccontextmanager
async def picker(rendered: Rendered, kubeconfig: Path) -> AsyncIterator[int]:
    """The picker that the Deployment describes, on free ports; gives its health port."""
    ports = free_ports(4)
    moved = {"--grpc-port": 0, "--grpc-health-port": 1, "--metrics-port": 2, "--admin-port": 3, "--drain-pause": None}
    container = rendered.container("epp")
    args = [arg for arg in container["args"] if arg.partition("=")[0] not in {*moved, "--state-dir", "--config-file"}]
    args += [f"{flag}={ports[place]}" for flag, place in moved.items() if place is not None]
    given: dict[str, Any] = {"KUBECONFIG": str(kubeconfig), "NAMESPACE": NAMESPACE, "POD_NAME": "picker-0"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "picker.server.cli", "serve", "--drain-pause=0", *args), env={**os.environ, **given}
    )
    try:
        yield ports[1]
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 30)


async def until_ready(health_port: int, service: str) -> None:
    """Ask as the kubelet does by the readiness probe."""
    async with asyncio.timeout(PATIENCE_S), grpc.aio.insecure_channel(f"{HOST}:{health_port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while True:
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
                if answer.status == READY:
                    return
            except grpc.aio.AioRpcError:
                pass
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("values", [PODS, TWO, STANDALONE], ids=["gateway", "leader", "standalone"])
async def test_the_picker_is_ready_with_the_role_and_uses_all_of_it(values: dict[str, Any], tmp_path: Path) -> None:
    rendered = render(values)
    allowed = rights(rendered)
    service = rendered.container("epp")["readinessProbe"]["grpc"]["service"]
    async with cluster(allowed) as fake, picker(rendered, fake.kubeconfig(tmp_path / "kubeconfig")) as health_port:
        await until_ready(health_port, service)
        asked = {right(call) for call in fake.calls}
        # A Lease is renewed a while after it was taken.
        async with asyncio.timeout(PATIENCE_S):
            while allowed - asked:
                await asyncio.sleep(0.1)
                asked = {right(call) for call in fake.calls}
    assert asked == allowed
