"""Pools that Kubernetes keeps: the watch of each, which no fault ends."""

import asyncio
from collections.abc import Mapping

import structlog

from picker.pool.directory import Directory
from picker.pool.kube.scope import KubeScope
from picker.server.admin import Source
from picker.server.keepers import Kept
from picker.server.kubernetes.cluster import Cluster, NoCluster
from picker.server.kubernetes.mirror import WatchCount
from picker.server.kubernetes.source import KubernetesSource
from picker.telemetry.watch import WatchMetrics

log = structlog.get_logger(__name__)

AGAIN_S = 5.0
"""Between two attempts of a watch that ended by a fault of ours."""


async def connect() -> Cluster:
    """The API server of our surroundings. Raises OSError where there is none."""
    try:
        return await Cluster.connect()
    except NoCluster as error:
        raise OSError(str(error)) from error


class InCluster:
    """A pool that Kubernetes keeps."""

    def __init__(self, pool: Kept, scope: KubeScope, cluster: Cluster) -> None:
        self.synced = False
        self.pool_exists = False
        self._pool, self._scope, self._cluster = pool, scope, cluster
        self._source = KubernetesSource(scope, self._changed, cluster=cluster)

    @property
    def silent_s(self) -> float:
        return self._source.silent_s

    @property
    def counts(self) -> Mapping[str, WatchCount]:
        return self._source.counts

    def sources(self) -> list[Source]:
        """Metrics of the watch."""
        return [WatchMetrics(self)]

    async def watch(self) -> None:
        """Follow the cluster until cancelled; the pool stays as it is known while that fails."""
        while True:
            try:
                await self._source.run()
            except Exception as error:
                log.error("the watch failed, starting it again", pool=self._pool.name, exc_info=error)
            await asyncio.sleep(AGAIN_S)
            self._source = KubernetesSource(self._scope, self._changed, cluster=self._cluster)

    def _changed(self, directory: Directory) -> None:
        self.synced, self.pool_exists = True, directory.pool_exists
        self._pool.follow(directory)
