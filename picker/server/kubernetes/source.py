"""A pool kept by Kubernetes, as a stream of directories."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

import structlog

from picker.pool.directory import Directory
from picker.pool.kube.access import OBJECTIVES, PODS, REWRITES, Resource, pools
from picker.pool.kube.assembly import Assembly
from picker.pool.kube.objects import Pod, read_objective, read_pod, read_pool, read_rewrite
from picker.pool.kube.reflector import Change, Reflector
from picker.pool.kube.scope import KubeScope, label_selector
from picker.server.kubernetes.cluster import Cluster
from picker.server.kubernetes.mirror import Mirror, WatchCount

__all__ = ["KubeScope", "KubernetesSource"]

log = structlog.get_logger(__name__)

T = TypeVar("T")

COALESCE_S = 0.1
LONGEST_S = 1.0
SHARE = 0.01
"""Changes that come together are published together: no sooner after the last time than 0.1 s, and later where a
publication costs so much that it would take more than this share of a core; 1 s at most."""
PROBE_S = 10.0
"""A server that has said nothing for so long is asked for its version: where nothing changes a watch says nothing."""


class KubernetesSource:
    """Watches one pool and calls `on_change` with each new `Directory`, first when everything was listed once.

    What was listed is served from memory for as long as the API server is away. `cluster` may be shared by several
    sources; without one `run` connects by itself.
    """

    def __init__(
        self,
        scope: KubeScope,
        on_change: Callable[[Directory], None],
        *,
        cluster: Cluster | None = None,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.synced = False
        """Everything was listed once; it stays true."""
        self._scope, self._on_change = scope, on_change
        self._cluster, self._clock, self._draw = cluster, clock, draw
        self._assembly = Assembly(scope)
        self._answered_at = clock()
        self._mirrors: list[Mirror[Any]] = []
        self._pods: Mirror[Pod] | None = None
        self._selected: Mapping[str, str] | None = None
        self._dirty = asyncio.Event()
        self._reselect = asyncio.Event()

    @property
    def silent_s(self) -> float:
        """Seconds since the API server last said anything; some more than PROBE_S means that it is away."""
        return self._clock() - max([self._answered_at, *(mirror.answered_at for mirror in self._mirrors)])

    @property
    def counts(self) -> Mapping[str, WatchCount]:
        """How the watch of each collection went, by `plural.group`."""
        return {str(mirror.resource): mirror.count for mirror in self._mirrors}

    async def run(self) -> None:
        """Watch until cancelled. Raises NoCluster where there is no configuration to begin with."""
        cluster = self._cluster or await Cluster.connect()
        try:
            async with asyncio.TaskGroup() as tasks:
                for work in self._works(cluster):
                    tasks.create_task(work)
        finally:
            if self._cluster is None:
                await cluster.close()

    def _works(self, cluster: Cluster) -> Iterator[Coroutine[object, object, None]]:
        """All that runs side by side: a mirror for each collection, and the publisher."""
        scope, assembly = self._scope, self._assembly
        if scope.pool:
            pool = self._mirror(cluster, pools(scope.group), read_pool, assembly.pool)
            pool.selector = {"fieldSelector": f"metadata.name={scope.pool}"}
            yield pool.run()
            for source, (objectives, rewrites) in enumerate(zip(OBJECTIVES, REWRITES, strict=True)):
                yield self._mirror(
                    cluster, objectives, read_objective, partial(assembly.objective, source=source)
                ).run()
                yield self._mirror(cluster, rewrites, read_rewrite, partial(assembly.rewrite, source=source)).run()
        self._pods = self._mirror(cluster, PODS, read_pod, assembly.pod)
        yield self._follow_pods(self._pods)
        yield self._publish()
        yield self._probe(cluster)

    def _mirror(
        self, cluster: Cluster, resource: Resource, read: Callable[[bytes], T], take: Callable[[Change[T]], None]
    ) -> Mirror[T]:
        def apply(changes: list[Change[T]]) -> None:
            for change in changes:
                take(change)
            self._settled()

        reflector = Reflector(read, self._draw, needed=resource.needed)
        mirror = Mirror(cluster, resource, self._scope.namespace, reflector, apply, self._clock)
        self._mirrors.append(mirror)
        return mirror

    async def _follow_pods(self, pods: Mirror[Pod]) -> None:
        """Mirror the pods that the pool selects; where it selects others, those."""
        while True:
            self._reselect.clear()
            self._selected = self._assembly.selector
            if self._selected is None:
                pods.reflector.forget()
                pods.settle()
                await self._reselect.wait()
                continue
            pods.selector = {"labelSelector": label_selector(self._selected)}
            pods.reflector.relist()
            async with asyncio.TaskGroup() as tasks:
                mirroring = tasks.create_task(pods.run())
                await self._reselect.wait()
                mirroring.cancel()

    def _settled(self) -> None:
        """Some collection has nothing more to say for now."""
        selector = self._assembly.selector
        if selector != self._selected:
            self._reselect.set()
        if not self.synced:
            # The pods of no pool need not be waited for.
            awaited = (mirror for mirror in self._mirrors if mirror is not self._pods or selector is not None)
            self.synced = all(mirror.reflector.synced for mirror in awaited)
            if self.synced:
                self._dirty.set()
        if self._assembly.changed:
            self._dirty.set()

    async def _publish(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            if not self.synced:
                continue
            began = self._clock()
            try:
                self._on_change(self._assembly.directory())
            except Exception as error:
                log.error("a change of the pool could not be applied", exc_info=error)
            await asyncio.sleep(min(LONGEST_S, max(COALESCE_S, (self._clock() - began) / SHARE)))

    async def _probe(self, cluster: Cluster) -> None:
        while True:
            await asyncio.sleep(PROBE_S)
            if self.silent_s < PROBE_S:
                continue
            with contextlib.suppress(Exception):
                # Whatever it answers, it is there. That it does not, the mirrors say.
                async with cluster.request("GET", "/version", timeout_s=PROBE_S):
                    self._answered_at = self._clock()
