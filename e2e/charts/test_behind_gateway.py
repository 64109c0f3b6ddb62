"""The pod behind a gateway as a process of this machine, asking the API server into which helm installed the chart."""

import asyncio
import json
from pathlib import Path

import aiohttp
import grpc.aio
from chart_rendering import CHART, NAME, PODS, RELEASE, at, merged, render
from cluster_tools import Space
from grpc_health.v1 import health_pb2, health_pb2_grpc

from picker.server.processes import Children
from picker.server.up.ports import HOST, free_ports
from picker.server.up.stack import command, until_ok

PATIENCE_S = 30.0
ENGINE = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "vllm-0", "labels": {"app": "vllm"}},
    # Nobody schedules it, so nobody but this test writes its status.
    "spec": {"schedulerName": "nobody", "containers": [{"name": "vllm", "image": "vllm"}]},
}
READY = {"podIP": "127.0.0.9", "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}


async def ready(port: int) -> None:
    """Wait until the probe of the kubelet would succeed."""
    async with grpc.aio.insecure_channel(f"{HOST}:{port}") as channel:
        probe = health_pb2_grpc.HealthStub(channel)
        while True:
            answer = await probe.Check(health_pb2.HealthCheckRequest(service="readiness"), wait_for_ready=True)
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return
            await asyncio.sleep(0.1)


async def test_the_pod_finds_its_pool_leads_and_is_ready(space: Space, tmp_path: Path) -> None:
    grpc_port, health, metrics, admin = free_ports(4)
    values = merged(
        PODS,
        at("router.epp", {"replicas": 2, "extProcPort": grpc_port, "grpcHealthPort": health}),
        at("router.epp.flags", {"admin-port": admin}),
        at("router.metricsPort", metrics),
    )
    space.helm("install", RELEASE, CHART, values=values)
    space.apply(ENGINE)
    space.kubectl("patch", "pod", "vllm-0", "--subresource=status", "--patch", json.dumps({"status": READY}))
    given = render(values, namespace=space.namespace).container("epp")["args"]
    arguments = [each.replace("/var/lib/picker", str(tmp_path)) for each in given]
    environment = {"KUBECONFIG": str(space.api.kubeconfig), "POD_NAME": f"{NAME}-0", "NAMESPACE": space.namespace}
    children = Children(tmp_path / "logs")
    try:
        picker = await children.start("picker", [*command("serve"), *arguments], env=environment)
        await until_ok(f"http://{HOST}:{metrics}/metrics", picker)
        await asyncio.wait_for(ready(health), PATIENCE_S)
        lease = space.get("lease", f"epp-{space.namespace}-{RELEASE}.llm-d.ai")
        assert lease["spec"]["holderIdentity"].startswith(NAME)
        async with aiohttp.ClientSession() as session, session.get(f"http://{HOST}:{admin}/pool") as answer:
            pool = await answer.json()
        assert [each["address"] for each in pool["endpoints"]] == ["127.0.0.9:8000"]
    finally:
        await children.stop()
