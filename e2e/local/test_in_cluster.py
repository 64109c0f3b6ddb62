"""Pickers whose pools a Kubernetes API server keeps: a fake one, with a real Envoy and simulated engines."""

import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import yaml
from gateway import GPU, Gateway, chat, new_words, until
from grpc_health.v1 import health_pb2, health_pb2_grpc

from picker.server.envoy import EnvoySpec
from picker.server.processes import Child, Children
from picker.server.up.ports import HOST, free_ports
from picker.server.up.stack import SimulatedEngines, Stack, command
from tests.kube_fake import FakeApiServer, fake_api_server

CRDS = Path(__file__).parents[2] / "crds"
SERVING = int(health_pb2.HealthCheckResponse.SERVING)


def inference_pool(name: str, ports: Sequence[int]) -> dict[str, Any]:
    """Pods with the label `pool: name`, on these ports."""
    spec = {
        "selector": {"matchLabels": {"pool": name}},
        "targetPorts": [{"number": port} for port in ports],
        "endpointPickerRef": {"name": "picker", "port": {"number": 9002}},
    }
    meta = {"name": name, "namespace": "models"}
    return {"apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool", "metadata": meta, "spec": spec}


def pod(pool: str, port: int) -> dict[str, Any]:
    """A ready pod on this host; of its pool's ports it serves one."""
    meta = {
        "name": f"{pool}-{port}",
        "namespace": "models",
        "labels": {"pool": pool},
        "annotations": {"llm-d.ai/active-ports": str(port)},
    }
    status = {"podIP": HOST, "conditions": [{"type": "Ready", "status": "True"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {}, "status": status}


@dataclass(slots=True)
class Replica:
    """A `picker serve` on ports of its own: gRPC, health, metrics, admin, then one for a pool."""

    child: Child
    ports: Sequence[int]

    async def status(self) -> int:
        """Its readiness; 0 while nobody answers."""
        try:
            async with grpc.aio.insecure_channel(f"{HOST}:{self.ports[1]}") as channel:
                check = health_pb2.HealthCheckRequest(service="readiness")
                return int((await health_pb2_grpc.HealthStub(channel).Check(check, timeout=5)).status)
        except grpc.aio.AioRpcError:
            return 0

    async def is_ready(self) -> bool:
        return await self.status() == SERVING

    async def is_listening(self) -> bool:
        return await self.status() != 0

    async def is_unready(self) -> bool:
        return await self.status() not in (0, SERVING)

    async def stop(self) -> None:
        self.child.signal(signal.SIGTERM)
        assert await asyncio.wait_for(self.child.process.wait(), 60) == 0


@dataclass(slots=True)
class InCluster:
    """A fake API server, and what runs against it."""

    fake: FakeApiServer
    stack: Stack
    session: aiohttp.ClientSession
    replicas: list[Replica] = field(default_factory=list)

    async def replica(self, *argv: str) -> Replica:
        """Start a picker; returns when it listens."""
        ports = free_ports(5)
        names = ("grpc", "grpc-health", "metrics", "admin")
        listen = [f"--{name}-port={port}" for name, port in zip(names, ports, strict=False)]
        config = self.fake.kubeconfig(self.stack.folder / "kubeconfig")
        child = await self.stack.children.start(
            f"picker-{len(self.replicas)}",
            [*command("serve"), "--host", HOST, *listen, "--secure-serving=false", "--drain-pause=0s"]
            + [part.replace("PORT", str(ports[4])) for part in ("--pool-namespace=models", *argv)],
            {**os.environ, "KUBECONFIG": str(config)},
        )
        self.replicas.append(Replica(child, ports))
        await until(self.replicas[-1].is_listening)
        return self.replicas[-1]

    async def envoy(self, *ports: int, engines: Sequence[str], pool: str = "") -> Gateway:
        """An Envoy that asks the pickers on these ports."""
        listener, admin = free_ports(2)
        self.stack.url, self.stack.envoy_admin = f"http://{HOST}:{listener}", f"http://{HOST}:{admin}"
        await self.stack.launch_envoy(EnvoySpec(listener, admin, ports, tuple(engines), pool=pool))
        return Gateway(self.stack, self.session)


@contextlib.asynccontextmanager
async def in_cluster(engines: int = 0) -> AsyncIterator[InCluster]:
    with tempfile.TemporaryDirectory(prefix="picker-e2e-") as folder:
        children = Children(Path(folder) / "logs")
        stack = Stack(children, Path(folder))
        try:
            async with fake_api_server() as fake, aiohttp.ClientSession() as session:
                for file in sorted(CRDS.glob("*.yaml")):
                    fake.cluster.put(yaml.safe_load(file.read_text()))
                if engines:
                    await stack.start_simulated(SimulatedEngines([GPU] * engines, 10.0))
                yield InCluster(fake, stack, session)
        except BaseException:
            for child in children.all:
                print(f"--- {child.name}, exit status {child.process.returncode}\n{child.tail(30)}")
            raise
        finally:
            await children.stop()


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


async def test_a_picker_is_ready_once_its_pool_is_there() -> None:
    async with in_cluster() as cluster:
        replica = await cluster.replica("--pool-name=chat")
        assert await replica.is_unready()
        cluster.fake.cluster.put(inference_pool("chat", [8000]))
        await until(replica.is_ready)


async def test_of_two_replicas_one_is_ready_and_the_other_follows_at_once_when_it_stops() -> None:
    async with in_cluster() as cluster:
        cluster.fake.cluster.put(inference_pool("chat", [8000]))
        first = await cluster.replica("--pool-name=chat", "--ha-enable-leader-election")
        await until(first.is_ready)
        second = await cluster.replica("--pool-name=chat", "--ha-enable-leader-election")
        assert await second.is_unready()
        await first.stop()
        # It need not wait for the Lease to run out.
        assert '"lease released"' in first.child.log.read_text()
        await until(second.is_ready)


async def test_while_the_lead_changes_hands_no_request_is_lost() -> None:
    async with in_cluster(engines=1) as cluster:
        address = cluster.stack.engines[0].address
        cluster.fake.cluster.put(inference_pool("chat", [port_of(address)]))
        cluster.fake.cluster.put(pod("chat", port_of(address)))
        argv = ("--pool-name=chat", "--ha-enable-leader-election", "--drain-pause=5s")
        first = await cluster.replica(*argv)
        await until(first.is_ready)
        second = await cluster.replica(*argv)
        running = await cluster.envoy(first.ports[0], second.ports[0], engines=[address])
        statuses: list[int] = []

        async def ask_on() -> None:
            while True:
                statuses.append((await running.ask(chat(new_words()))).status)

        asking = asyncio.create_task(ask_on())
        await first.stop()
        await until(second.is_ready)
        asked = len(statuses)

        async def goes_on() -> bool:
            return len(statuses) > asked + 5

        await until(goes_on)
        asking.cancel()
        assert set(statuses) == {200}


async def test_without_its_api_server_a_picker_serves_what_it_knows_and_is_unready_only_if_told_to_be() -> None:
    async with in_cluster(engines=1) as cluster:
        address = cluster.stack.engines[0].address
        cluster.fake.cluster.put(inference_pool("chat", [port_of(address)]))
        cluster.fake.cluster.put(pod("chat", port_of(address)))
        patient = await cluster.replica("--pool-name=chat")
        strict = await cluster.replica("--pool-name=chat", "--unready-after-silence=3s")
        await until(patient.is_ready)
        running = await cluster.envoy(patient.ports[0], engines=[address])
        assert (await running.ask(chat(new_words()))).ok
        await cluster.fake.down()
        await until(strict.is_unready)
        assert await patient.is_ready()
        assert (await running.ask(chat(new_words()))).ok
        await cluster.fake.up()
        await until(strict.is_ready)


async def test_two_pools_of_one_picker_are_told_apart_by_metadata_and_by_port() -> None:
    async with in_cluster(engines=2) as cluster:
        engines = [engine.address for engine in cluster.stack.engines]
        for name, address in zip(("chat", "embed"), engines, strict=True):
            cluster.fake.cluster.put(inference_pool(name, [port_of(address)]))
            cluster.fake.cluster.put(pod(name, port_of(address)))
        replica = await cluster.replica("--pool-name=chat,embed:PORT")
        await until(replica.is_ready)
        served = []
        for port, pool in ((replica.ports[0], "chat"), (replica.ports[4], ""), (replica.ports[0], "")):
            running = await cluster.envoy(port, engines=engines, pool=pool)
            served.append([(await running.ask(chat(new_words()))).status for _ in range(4)])
        assert served == [[200] * 4, [200] * 4, [404] * 4]
        picks = {}
        for pool in ("chat", "embed"):
            rows = (await running.get(f"http://{HOST}:{replica.ports[3]}/pool?pool={pool}"))["endpoints"]
            picks[pool] = [(row["address"], row["picks"]) for row in rows]
        assert picks == {"chat": [(engines[0], 4)], "embed": [(engines[1], 4)]}
        async with cluster.session.get(f"http://{HOST}:{replica.ports[2]}/metrics") as response:
            page = await response.text()
        for pool in picks:
            assert f'llm_d_epp_request_total{{model_name="sim",name="{pool}",target_model_name="sim"}} 4.0' in page
