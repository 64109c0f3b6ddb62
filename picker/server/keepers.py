"""Who says which endpoints a pool has: the command line, a file, or Kubernetes."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path

import structlog

from picker.pool.directory import Directory
from picker.pool.kube.scope import KubeScope
from picker.pool.source import FileSource, parse_list
from picker.server.kubernetes.cluster import Cluster
from picker.server.kubernetes.source import KubernetesSource
from picker.server.options import ServeOptions
from picker.server.readiness import Watched
from picker.server.served_pool import ServedPool

log = structlog.get_logger(__name__)

AGAIN_S = 5.0
"""Between two attempts of a watch that ended by a fault of ours."""


class Named:
    """A pool whose endpoints were named to us: known from the start, by nobody who could fall silent."""

    synced = True
    pool_exists = True
    silent_s = 0.0


class InCluster:
    """A pool that Kubernetes keeps."""

    def __init__(self, pool: ServedPool, scope: KubeScope, cluster: Cluster) -> None:
        self.synced = False
        self.pool_exists = False
        self._pool, self._scope, self._cluster = pool, scope, cluster
        self._source = KubernetesSource(scope, self._changed, cluster=cluster)

    @property
    def silent_s(self) -> float:
        return self._source.silent_s

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


def keeper(
    pool: ServedPool, options: ServeOptions, cluster: Cluster | None
) -> tuple[Watched, Coroutine[object, object, None] | None]:
    """The keeper of this pool, and what has to run for it. Raises BadSource for endpoints that cannot be read."""
    if options.endpoints:
        pool.serve_endpoints(parse_list(options.endpoints))
        return Named(), None
    if cluster is None:
        file = FileSource(Path(options.endpoints_file.replace("{pool}", pool.name)))
        pool.serve_endpoints(file.load())
        watch = file.watch(pool.serve_endpoints, lambda reason: log.error("endpoints not reloaded", reason=reason))
        return Named(), watch
    in_cluster = InCluster(pool, options.scope(pool.name), cluster)
    return in_cluster, in_cluster.watch()
