"""A cluster in which everything changes and fails at once: what is published at the end is what is there."""

import asyncio
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from watched_pool import install_crds, objective, pod, pool, until, watching

from picker.pool.kube import reflector
from tests.kube_fake import ApiError, Call, FakeApiServer, fake_api_server
from tests.kube_fake.kinds import Resource

STEPS = 80


class Chaos:
    """Random steps of one cluster; `expected` is the directory that follows from its objects."""

    def __init__(self, fake: FakeApiServer, seed: int) -> None:
        self.fake, self.random = fake, random.Random(seed)
        self.pods: dict[str, Mapping[str, Any]] = {}
        self.pool: dict[str, Any] | None = pool()
        self.objectives: dict[str, int] = {}
        self.is_up = True
        fake.cluster.put(self.pool)

    def expected(self) -> tuple[bool, dict[str, str], dict[str, int]]:
        if self.pool is None:
            return False, {}, {}
        labels, ports = self.pool["spec"]["selector"]["matchLabels"], self.pool["spec"]["targetPorts"]
        endpoints = {}
        for found in self.pods.values():
            ready = found["status"]["conditions"][0]["status"] == "True"
            if ready and labels.items() <= found["metadata"]["labels"].items():
                for port in ports:
                    uid = self.fake.cluster.get(*self._at(found))["metadata"]["uid"]
                    endpoints[f"{found['status']['podIP']}:{port['number']}"] = uid
        return True, endpoints, self.objectives

    async def step(self) -> None:
        draw = self.random
        await draw.choices(
            (self.put_pod, self.delete_pod, self.change_pool, self.priority, self.fail, self.outage),
            (40, 20, 6, 8, 20, 6),
        )[0]()
        await asyncio.sleep(draw.choice((0, 0, 0.001, 0.02)))

    async def put_pod(self) -> None:
        draw, name = self.random, f"pod-{self.random.randrange(12)}"
        host = int(name[4:]) if draw.random() < 0.7 else 100 + int(name[4:])
        found = pod(name, host + 1, ready=draw.random() < 0.8, labels={"app": draw.choice(("vllm", "vllm", "x"))})
        self.pods[name] = self.fake.cluster.put(found)

    async def delete_pod(self) -> None:
        if self.pods:
            self._delete(self.pods.pop(self.random.choice(sorted(self.pods))))

    async def change_pool(self) -> None:
        if self.pool is not None and self.random.random() < 0.4:
            self._delete(self.pool)
            self.pool = None
            return
        ports = self.random.choice(((8000,), (8000, 8001)))
        self.pool = pool(ports=ports, labels={"app": self.random.choice(("vllm", "vllm", "x"))})
        self.fake.cluster.put(self.pool)

    async def priority(self) -> None:
        name, priority = self.random.choice("ab"), self.random.randrange(-9, 9)
        self.fake.cluster.put(objective(name, priority))
        self.objectives[name] = priority

    async def fail(self) -> None:
        draw = self.random
        if draw.random() < 0.4:
            self.fake.cut_watches()
        elif draw.random() < 0.5:
            self.fake.cluster.store.compact()
        else:
            left, error = [draw.randrange(1, 4)], ApiError(draw.choice((410, 429, 500, 503)), "Chaos", "chaos")

            def fault(call: Call) -> ApiError | None:
                left[0] -= 1
                return error if left[0] >= 0 else None

            self.fake.fault = fault

    async def outage(self) -> None:
        await (self.fake.down() if self.is_up else self.fake.up())
        self.is_up = not self.is_up

    async def calm(self) -> None:
        self.fake.fault = lambda call: None
        if not self.is_up:
            await self.outage()

    def _at(self, found: Mapping[str, Any]) -> tuple[Resource, tuple[str, str]]:
        resource = self.fake.cluster.of_kind(found)
        return resource, ("ns", found["metadata"]["name"])

    def _delete(self, found: Mapping[str, Any]) -> None:
        self.fake.cluster.delete(*self._at(found), grace_s=0)


@pytest.mark.parametrize("seed", range(3))
async def test_after_any_storm_the_published_pool_is_the_clusters_own(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflector, "PAGE", 3)
    monkeypatch.setattr(reflector, "PAUSE_S", (0.01, 0.1))
    monkeypatch.setattr(reflector, "ABSENT_S", 0.1)
    async with fake_api_server() as fake:
        monkeypatch.setenv("KUBECONFIG", str(fake.kubeconfig(tmp_path / "config")))
        install_crds(fake.cluster)
        chaos = Chaos(fake, seed)
        async with watching() as watched:
            for _ in range(STEPS):
                await chaos.step()
            await chaos.calm()

            def is_true() -> bool:
                if not watched.seen:
                    return False
                last = watched.last
                endpoints = {endpoint.address: endpoint.uid for endpoint in last.endpoints}
                return (last.pool_exists, endpoints, dict(last.objectives)) == chaos.expected()

            await until(is_true)
