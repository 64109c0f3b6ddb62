"""A pool watched over HTTP: what is published while objects change, the server fails, and permissions lack."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from watched_pool import install_crds, objective, pod, pool, rewrite, until, watching

from picker.pool.directory import Directory
from picker.pool.kube import reflector
from picker.pool.kube.access import OLD_GROUP, Rule, rules
from picker.pool.kube.scope import KubeScope
from picker.server.kubernetes import source
from picker.server.kubernetes.cluster import NoCluster
from picker.server.kubernetes.source import KubernetesSource
from tests.kube_fake import ApiError, Call, FakeApiServer, fake_api_server


@pytest.fixture
async def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeApiServer]:
    """A cluster with the custom resources and the pool p of two pods."""
    async with fake_api_server() as server:
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "config")))
        install_crds(server.cluster)
        server.cluster.put(pool())
        server.cluster.put(pod("a", 1))
        server.cluster.put(pod("b", 2))
        yield server


def remove(server: FakeApiServer, found: dict[str, Any]) -> None:
    resource = server.cluster.of_kind(found)
    server.cluster.delete(resource, (found["metadata"]["namespace"], found["metadata"]["name"]), grace_s=0)


async def test_the_first_directory_has_everything_that_was_listed(fake: FakeApiServer) -> None:
    fake.cluster.put(objective("chat", 5))
    fake.cluster.put(objective("batch", -1, OLD_GROUP))
    fake.cluster.put(rewrite("r", "lora"))
    async with watching() as watched:
        await until(lambda: watched.seen)
        assert watched.source.synced
        assert (watched.names, watched.last.app_protocol) == (["a", "b"], "http")
        assert watched.last.objectives == {"chat": 5, "batch": -1}
        assert [rule.targets[0].model for rule in watched.last.rewrites] == ["lora"]
        assert all(endpoint.uid for endpoint in watched.last.endpoints)


async def test_pods_join_when_they_are_ready_and_leave_when_they_are_not_or_go_away(fake: FakeApiServer) -> None:
    async with watching() as watched:
        await watched.until("a", "b")
        fake.cluster.put(pod("c", 3, ready=False))
        fake.cluster.put(pod("d", 4))
        await watched.until("a", "b", "d")
        fake.cluster.put(pod("c", 3))
        fake.cluster.put(pod("a", 1, ready=False))
        await watched.until("b", "c", "d")
        fake.cluster.put(pod("b", 2, deletionTimestamp="2026-01-01T00:00:00Z"))
        remove(fake, pod("c", 3))
        await watched.until("d")
        fake.cluster.put(pod("d", 4, labels={"app": "other"}))
        await watched.until()


async def test_another_selector_and_other_ports_are_followed(fake: FakeApiServer) -> None:
    fake.cluster.put(pod("c", 3, labels={"app": "sglang"}))
    async with watching() as watched:
        await watched.until("a", "b")
        fake.cluster.put(pool(labels={"app": "sglang"}, ports=(8000, 8001)))
        await watched.until("c-rank-0", "c-rank-1")
        fake.cluster.put(pool())
        await watched.until("a", "b")
        fake.cluster.put(pod("e", 5))
        await watched.until("a", "b", "e")


async def test_a_deleted_pool_is_empty_until_it_is_back(fake: FakeApiServer) -> None:
    async with watching() as watched:
        await watched.until("a", "b")
        remove(fake, pool())
        await until(lambda: not watched.last.pool_exists)
        assert watched.last.endpoints == ()
        remove(fake, pod("a", 1))
        fake.cluster.put(pool())
        await watched.until("b")
        assert all("a" not in [e.name for e in seen.endpoints] for seen in watched.seen[2:])


async def test_a_pool_that_is_not_there_yet_is_known_not_to_be(fake: FakeApiServer) -> None:
    async with watching(KubeScope("ns", pool="later")) as watched:
        await until(lambda: watched.source.synced and watched.seen)
        assert not watched.last.pool_exists
        fake.cluster.put(pool("later"))
        await watched.until("a", "b")


async def test_while_the_api_server_is_away_the_pool_is_served_from_memory_and_nothing_is_lost(
    fake: FakeApiServer,
) -> None:
    async with watching() as watched:
        await watched.until("a", "b")
        await fake.down()
        fake.cluster.put(pod("c", 3))
        remove(fake, pod("a", 1))
        await until(lambda: watched.failures >= 2)
        silent_s = watched.source.silent_s
        assert watched.names == ["a", "b"]
        assert silent_s > 0
        await fake.up()
        await watched.until("b", "c")
        assert watched.source.silent_s < silent_s
        assert watched.source.counts["pods"].lists == 1


async def test_a_server_with_nothing_to_say_is_not_silent_and_one_that_is_away_is(
    fake: FakeApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "PROBE_S", 0.01)
    now = [1000.0]
    async with watching(clock=lambda: now[0]) as watched:
        await watched.until("a", "b")
        now[0] += 600
        await until(lambda: watched.source.silent_s == 0)
        await fake.down()
        now[0] += 600
        await until(lambda: watched.failures >= 2)
        assert watched.source.silent_s == 600


async def test_what_the_server_has_forgotten_meanwhile_is_listed_anew(fake: FakeApiServer) -> None:
    async with watching() as watched:
        await watched.until("a", "b")
        await fake.down()
        remove(fake, pod("a", 1))
        fake.cluster.put(pod("c", 3))
        fake.cluster.store.compact()
        await fake.up()
        await watched.until("b", "c")
        assert watched.source.counts["pods"].lists == 2


async def test_streams_that_break_off_again_and_again_lose_no_event(fake: FakeApiServer) -> None:
    async with watching() as watched:
        await watched.until("a", "b")
        for number in range(3, 9):
            fake.cluster.put(pod(f"n{number}", number))
            fake.cut_watches()
            await asyncio.sleep(0.02)
        remove(fake, pod("a", 1))
        await watched.until("b", *(f"n{number}" for number in range(3, 9)))


async def test_a_large_pool_is_listed_in_pages(fake: FakeApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflector, "PAGE", 2)
    for number in range(3, 8):
        fake.cluster.put(pod(f"n{number}", number))
    async with watching() as watched:
        await watched.until("a", "b", *(f"n{number}" for number in range(3, 8)))
        assert watched.source.counts["pods"].lists == 4


async def test_many_changes_at_once_are_published_together(fake: FakeApiServer) -> None:
    async with watching() as watched:
        await watched.until("a", "b")
        for number in range(3, 203):
            fake.cluster.put(pod(f"n{number}", number))
        await until(lambda: len(watched.last.endpoints) == 202)
        assert len(watched.seen) <= 10


async def test_kinds_that_are_not_installed_are_done_without(
    fake: FakeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fake_api_server() as bare:
        monkeypatch.setenv("KUBECONFIG", str(bare.kubeconfig(tmp_path / "bare")))
        install_crds(bare.cluster, "k8s.io_inferencepools")
        bare.cluster.put(pool())
        bare.cluster.put(pod("a", 1))
        async with watching() as watched:
            await watched.until("a")
            assert (watched.last.objectives, watched.last.rewrites) == ({}, ())


async def test_a_cluster_without_inference_pools_has_no_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fake_api_server() as bare:
        monkeypatch.setenv("KUBECONFIG", str(bare.kubeconfig(tmp_path / "bare")))
        async with watching() as watched:
            await until(lambda: watched.seen)
            assert (watched.source.synced, watched.last.pool_exists) == (True, False)


def allowed_by(scope: KubeScope) -> tuple[set[tuple[str, str, str]], Callable[[Call], bool]]:
    granted = {(rule.group, rule.resource, verb) for rule in rules(scope) for verb in rule.verbs}
    return granted, lambda call: (call.group, call.resource, call.verb) in granted


@pytest.mark.parametrize(
    "scope", [KubeScope("ns", pool="p"), KubeScope("ns", selector={"app": "vllm"}, target_ports=(8000,))]
)
async def test_the_watch_needs_all_that_its_role_allows_and_nothing_else(fake: FakeApiServer, scope: KubeScope) -> None:
    granted, fake.authorize = allowed_by(scope)
    fake.calls.clear()
    async with watching(scope) as watched:
        await watched.until("a", "b")
        await until(lambda: {(call.group, call.resource, call.verb) for call in fake.calls} == granted)
        assert {call.namespace for call in fake.calls} == {"ns"}


async def test_without_leave_to_see_objectives_and_rewrites_the_pool_is_served_all_the_same(
    fake: FakeApiServer,
) -> None:
    fake.authorize = lambda call: call.resource in ("pods", "inferencepools")
    with capture_logs() as logs:
        async with watching() as watched:
            await watched.until("a", "b")
    said = [(line["log_level"], line["verb"], line["kind"]) for line in logs if line["event"].startswith("cannot")]
    assert sorted(said) == [
        ("info", "list", f"{kind}.{group}")
        for kind in ("inferencemodelrewrites", "inferenceobjectives")
        for group in ("inference.networking.x-k8s.io", "llm-d.ai")
    ]


async def test_without_leave_to_see_pods_the_source_waits_and_says_once_which_right_it_lacks(
    fake: FakeApiServer,
) -> None:
    fake.authorize = lambda call: call.resource != "pods"
    with capture_logs() as logs:
        async with watching() as watched:
            await until(lambda: watched.failures >= 3)
            assert not watched.source.synced
            fake.authorize = lambda call: True
            await watched.until("a", "b")
    (said,) = [line for line in logs if line["log_level"] == "warning"]
    assert (said["verb"], said["kind"], said["namespace"]) == ("list", "pods", "ns")
    assert said["reason"].startswith("403: pods is forbidden")


@pytest.mark.parametrize(("code", "reason"), [(500, "InternalError"), (429, "TooManyRequests"), (401, "Unauthorized")])
async def test_an_api_server_that_refuses_for_a_while_is_asked_again(
    fake: FakeApiServer, code: int, reason: str
) -> None:
    left = [2]

    def fault(call: Call) -> ApiError | None:
        left[0] -= call.resource == "pods"
        return ApiError(code, reason, "not now") if call.resource == "pods" and left[0] >= 0 else None

    fake.fault = fault
    async with watching() as watched:
        await watched.until("a", "b")


async def test_a_pod_that_cannot_be_read_is_said_once_and_costs_nobody_else(fake: FakeApiServer) -> None:
    broken = pod("broken", 9)
    broken["status"]["podIP"] = "evil.example"
    with capture_logs() as logs:
        async with watching() as watched:
            await watched.until("a", "b")
            for _ in range(3):
                fake.cluster.put(broken)
            fake.cluster.put(pod("c", 3))
            await watched.until("a", "b", "c")
            assert watched.source.counts["pods"].bad == 1
    assert [line["name"] for line in logs if line["event"] == "object skipped"] == ["broken"]


async def test_a_reader_that_fails_does_not_end_the_watch(fake: FakeApiServer) -> None:
    seen = []

    def fail_at_first(directory: Directory) -> None:
        seen.append(directory)
        if len(seen) == 1:
            raise RuntimeError("not ready for this")

    task = asyncio.create_task(KubernetesSource(KubeScope("ns", pool="p"), fail_at_first).run())
    await until(lambda: seen)
    fake.cluster.put(pod("c", 3))
    await until(lambda: len(seen) == 2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(seen[1].endpoints) == 3


def test_before_it_runs_it_knows_nothing_and_has_heard_nothing() -> None:
    now = [5.0]
    idle = KubernetesSource(KubeScope("ns", pool="p"), print, clock=lambda: now[0])
    now[0] = 8.0
    assert (idle.synced, idle.silent_s, dict(idle.counts)) == (False, 3.0, {})


async def test_two_pools_of_one_process_are_watched_apart(fake: FakeApiServer) -> None:
    fake.cluster.put(pool("q", labels={"app": "sglang"}))
    fake.cluster.put(pod("s", 7, labels={"app": "sglang"}))
    async with watching() as first, watching(KubeScope("ns", pool="q")) as second:
        await first.until("a", "b")
        await second.until("s")


async def test_without_any_configuration_it_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    with pytest.raises(NoCluster, match="nowhere"):
        await KubernetesSource(KubeScope("ns", pool="p"), lambda _: None).run()


def test_a_rule_is_data_that_a_role_can_be_compared_with() -> None:
    assert Rule("", "pods", ("list", "watch")) in list(rules(KubeScope("ns", pool="p")))
