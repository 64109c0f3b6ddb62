"""The watch of a pool: what it says reaches the pool, and no fault of it ends anything."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from picker.pool.directory import Directory
from picker.pool.kube.scope import KubeScope
from picker.pool.view import Endpoint
from picker.server import in_cluster
from picker.server.in_cluster import InCluster

TWO = Directory((Endpoint("10.0.0.1:8000"), Endpoint("10.0.0.2:8000")))
GONE = Directory(pool_exists=False)
CLUSTER: Any = object()
"""Passed on to the source, which asks nothing of it here."""


class Pool:
    """A pool that remembers what it was told to follow."""

    name = "chat"

    def __init__(self) -> None:
        self.followed: list[Directory] = []

    def serve_endpoints(self, endpoints: Sequence[Endpoint]) -> None:
        raise AssertionError("a watch tells of directories")

    def follow(self, directory: Directory) -> None:
        self.followed.append(directory)


def sources(*lives: Directory | Exception) -> Any:
    """Sources of which each publishes one directory and goes on for ever, or fails."""
    left = list(lives)

    class Source:
        silent_s = 0.0

        def __init__(self, scope: KubeScope, on_change: Any, *, cluster: object) -> None:
            self._on_change = on_change

        async def run(self) -> None:
            life = left.pop(0)
            if isinstance(life, Exception):
                raise life
            self._on_change(life)
            if left:
                raise RuntimeError("it is over")
            await asyncio.Event().wait()

    return Source


async def watched(monkeypatch: pytest.MonkeyPatch, *lives: Directory | Exception) -> tuple[InCluster, Pool]:
    """A pool after so many lives of its watch."""
    monkeypatch.setattr(in_cluster, "KubernetesSource", sources(*lives))
    monkeypatch.setattr(in_cluster, "AGAIN_S", 0.0)
    pool = Pool()
    watch = InCluster(pool, KubeScope("models", pool="chat"), CLUSTER)
    task = asyncio.create_task(watch.watch())
    async with asyncio.timeout(10):
        while len(pool.followed) < sum(isinstance(life, Directory) for life in lives):
            await asyncio.sleep(0)
    task.cancel()
    return watch, pool


async def test_a_pool_that_nobody_has_told_of_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, _ = await watched(monkeypatch)
    assert not watch.synced


async def test_what_the_watch_says_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, pool = await watched(monkeypatch, TWO)
    assert (watch.synced, watch.pool_exists, pool.followed) == (True, True, [TWO])


async def test_a_watch_that_fails_is_started_again_and_what_was_known_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    with capture_logs() as logs:
        watch, pool = await watched(monkeypatch, ZeroDivisionError(), TWO, ValueError(), GONE)
    assert pool.followed == [TWO, GONE]
    assert (watch.synced, watch.pool_exists) == (True, False)
    assert {line["event"] for line in logs} == {"the watch failed, starting it again"}
