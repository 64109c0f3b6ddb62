"""The keepers of a process's pools: named on the command line, in a file, or objects of Kubernetes."""

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from picker.server.background import background
from picker.server.keepers import Keeper, Kept, Named, named
from picker.server.options import ServeOptions

if TYPE_CHECKING:
    from picker.server.kubernetes.cluster import Cluster


async def watch_pools(
    pools: Sequence[Kept], options: ServeOptions, cleanup: contextlib.AsyncExitStack
) -> "tuple[list[Keeper], Cluster | None]":
    """Learn which endpoints there are, now and from now on: a keeper for each pool, and the cluster that says so, if
    one does. Raises BadSource, OSError."""
    if not options.in_cluster:
        for pool in pools:
            if (watch := named(pool, options)) is not None:
                background(cleanup, watch)
        return [Named() for _ in pools], None
    # Imported here: the client of Kubernetes takes a second and 40 MB, of which nobody else has anything.
    from picker.server.in_cluster import InCluster, connect

    cluster = await connect()
    cleanup.push_async_callback(cluster.close)
    keepers = [InCluster(pool, options.scope(pool.name), cluster) for pool in pools]
    for keeper in keepers:
        background(cleanup, keeper.watch())
    return [*keepers], cluster
