"""A pool in a fake cluster, and a source that watches it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from picker.pool.directory import Directory
from picker.pool.kube.access import NEW_GROUP, OLD_GROUP
from picker.pool.kube.scope import POOL_GROUP, KubeScope
from picker.server.kubernetes.source import KubernetesSource
from tests.kube_fake import Cluster

CRDS = Path(__file__).parents[3] / "crds"
SCOPE = KubeScope("ns", pool="p")


class Watched:
    """A source at work; `seen` are the directories that it published."""

    def __init__(self, scope: KubeScope, clock: Callable[[], float]) -> None:
        self.seen: list[Directory] = []
        self.source = KubernetesSource(scope, self.seen.append, draw=lambda: 0.99, clock=clock)

    @property
    def last(self) -> Directory:
        return self.seen[-1]

    @property
    def names(self) -> list[str]:
        return sorted(endpoint.name for endpoint in self.last.endpoints) if self.seen else []

    @property
    def failures(self) -> int:
        """Of the watch of pods."""
        return self.source.counts["pods"].failures if "pods" in self.source.counts else 0

    async def until(self, *names: str) -> None:
        """Wait until exactly these endpoints are published."""
        await until(lambda: self.seen and self.names == sorted(names))


@contextlib.asynccontextmanager
async def watching(scope: KubeScope = SCOPE, clock: Callable[[], float] = time.monotonic) -> AsyncIterator[Watched]:
    watched = Watched(scope, clock)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(watched.source.run())
        yield watched
        task.cancel()


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.01)


def install_crds(cluster: Cluster, *parts: str) -> None:
    """The custom resources whose file names hold one of these parts; all of them without any."""
    for path in sorted(CRDS.glob("*.yaml")):
        if not parts or any(part in path.name for part in parts):
            cluster.put(yaml.safe_load(path.read_text()))


def pod(
    name: str, host: int, *, ready: bool = True, labels: dict[str, str] | None = None, **meta: str
) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": str(ready)}]
    metadata = {"name": name, "namespace": "ns", "labels": labels or {"app": "vllm"}, **meta}
    status = {"podIP": f"10.0.0.{host}", "conditions": conditions}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {}, "status": status}


def pool(name: str = "p", ports: Iterable[int] = (8000,), labels: dict[str, str] | None = None) -> dict[str, Any]:
    spec = {
        "selector": {"matchLabels": labels or {"app": "vllm"}},
        "targetPorts": [{"number": port} for port in ports],
        "endpointPickerRef": {"name": "picker", "port": {"number": 9002}},
    }
    return _custom(f"{POOL_GROUP}/v1", "InferencePool", name, spec)


def objective(name: str, priority: int, group: str = NEW_GROUP) -> dict[str, Any]:
    spec = {"poolRef": {"name": "p"}, "priority": priority}
    return _custom(f"{group}/v1alpha2", "InferenceObjective", name, spec)


def rewrite(name: str, target: str, group: str = OLD_GROUP) -> dict[str, Any]:
    spec = {"poolRef": {"name": "p"}, "rules": [{"targets": [{"modelRewrite": target}]}]}
    return _custom(f"{group}/v1alpha2", "InferenceModelRewrite", name, spec)


def _custom(version: str, kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": "ns"}, "spec": spec}
