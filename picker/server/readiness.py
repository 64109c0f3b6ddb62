"""When a picker says that it is ready. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


class Watched(Protocol):
    """The watch of one pool: everything listed once; the pool is there; seconds since its keeper last answered."""

    @property
    def synced(self) -> bool: ...
    @property
    def pool_exists(self) -> bool: ...
    @property
    def silent_s(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Readiness:
    """`most_silence_s`: how long the API server may be silent; 0 is for ever, since picks need it not."""

    most_silence_s: float = 0.0

    def missing(self, pools: Iterable[Watched], *, leading: bool, draining: bool) -> str:
        """What a picker lacks to be ready; empty if it is. Of several pools one has to exist."""
        watched = list(pools)
        if draining:
            return "it drains"
        if not leading:
            return "another replica leads"
        if not all(pool.synced for pool in watched):
            return "the pool is not known yet"
        if watched and not any(pool.pool_exists for pool in watched):
            return "there is no such pool"
        if self.most_silence_s and any(pool.silent_s > self.most_silence_s for pool in watched):
            return "the API server is silent"
        return ""
