"""Who says which endpoints a pool has, where Kubernetes does not: the command line, or a file."""

from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Protocol

import structlog

from picker.pool.directory import Directory
from picker.pool.source import FileSource, parse_list
from picker.pool.view import Endpoint
from picker.server.admin import Source
from picker.server.options import ServeOptions
from picker.server.readiness import Watched

log = structlog.get_logger(__name__)


class Kept(Protocol):
    """A pool that somebody keeps."""

    @property
    def name(self) -> str: ...
    def serve_endpoints(self, endpoints: Sequence[Endpoint]) -> None: ...
    def follow(self, directory: Directory) -> None: ...


class Keeper(Watched, Protocol):
    """Who says which endpoints a pool has."""

    def sources(self) -> list[Source]: ...


class Named:
    """A pool whose endpoints were named to us: known from the start, by nobody who could fall silent."""

    synced = True
    pool_exists = True
    silent_s = 0.0

    def sources(self) -> list[Source]:
        """No metrics."""
        return []


def named(pool: Kept, options: ServeOptions) -> Coroutine[object, object, None] | None:
    """Serve the endpoints of the options; what has to run for it, if anything. Raises BadSource."""
    if options.endpoints:
        pool.serve_endpoints(parse_list(options.endpoints))
        return None
    file = FileSource(Path(options.endpoints_file.replace("{pool}", pool.name)))
    pool.serve_endpoints(file.load())
    return file.watch(pool.serve_endpoints, lambda reason: log.error("endpoints not reloaded", reason=reason))
