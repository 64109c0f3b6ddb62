"""Endpoints, and the immutable view of all of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

HARDWARE_LABELS = ("picker.dev/hardware", "nvidia.com/gpu.product")
"""Labels that name an endpoint's hardware, the first one present counts."""

EngineKind = Literal["vllm", "sglang", "trtllm-serve", "triton-tensorrt-llm", "triton"]
Slots = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One serving port of one pod. `address` is `ip:port` and is what Envoy is told.

    `metrics_address` and `kv_events` are where the engine is watched: `host:port` for /metrics, a ZMQ
    endpoint (`tcp://host:port`) for KV events and their replay; None where the engine has none. `uid` is new for each
    pod, whatever its name and address; empty where nobody gives one.
    """

    address: str
    name: str = ""
    engine: EngineKind = "vllm"
    labels: Mapping[str, str] = field(default_factory=dict)
    metrics_address: str | None = None
    kv_events: str | None = None
    kv_replay: str | None = None
    uid: str = ""

    @property
    def ip(self) -> str:
        """The address without its port; brackets of an IPv6 literal are kept."""
        return self.address.rpartition(":")[0]

    @property
    def hardware(self) -> str:
        """Class of its hardware as its labels tell it; empty where they do not."""
        return next((self.labels[label] for label in HARDWARE_LABELS if label in self.labels), "")


@dataclass(frozen=True)
class PoolView:
    """All ready endpoints at one moment.

    `slots[i]` is the row of `endpoints[i]` in every per-endpoint table; a slot outlives view changes for as long as
    its endpoint stays, and is reused only after its tables were cleared.
    """

    endpoints: tuple[Endpoint, ...] = ()
    slots: Slots = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    version: int = 0
    by_address: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def by_ip(self) -> Mapping[str, list[int]]:
        """Positions of each IP. Made when first asked for: most pools are never asked."""
        positions: dict[str, list[int]] = {}
        for position, endpoint in enumerate(self.endpoints):
            positions.setdefault(endpoint.ip, []).append(position)
        return positions

    def subset(self, wanted: Iterable[str]) -> NDArray[np.intp]:
        """Positions (into `endpoints`) named by `ip:port` or by bare `ip`, in view order; may be empty."""
        found: set[int] = set()
        for name in wanted:
            position = self.by_address.get(name)
            if position is not None:
                found.add(position)
            else:
                found.update(self.by_ip.get(name, ()))
        return np.array(sorted(found), dtype=np.intp)


@dataclass(frozen=True, slots=True)
class PoolChange:
    """What one replacement did: slots in `removed` must be cleared before `view` is used again."""

    view: PoolView
    added: tuple[tuple[int, Endpoint], ...] = ()
    removed: tuple[tuple[int, Endpoint], ...] = ()


class Pool:
    """Gives each endpoint a stable slot and turns endpoint lists into views."""

    def __init__(self) -> None:
        self.view = PoolView()
        self._slots: dict[str, int] = {}
        self._free: list[int] = []
        self._next = 0

    @property
    def capacity(self) -> int:
        """Slots ever handed out: tables indexed by slot need at least this many rows."""
        return self._next

    def replace(self, endpoints: Iterable[Endpoint]) -> PoolChange:
        """Publish exactly these endpoints. A later duplicate address is ignored.

        An endpoint whose address stays but whose name or uid changed is a new pod on a reused IP: removed and added.
        """
        wanted: dict[str, Endpoint] = {}
        for endpoint in endpoints:
            wanted.setdefault(endpoint.address, endpoint)
        removed = tuple(
            (self._slots[endpoint.address], endpoint)
            for endpoint in self.view.endpoints
            if (new := wanted.get(endpoint.address)) is not endpoint
            and (new is None or (new.name, new.uid) != (endpoint.name, endpoint.uid))
        )
        # Freed slots join the pool only after this change, so that no new endpoint takes a row not yet cleared.
        for _, endpoint in removed:
            del self._slots[endpoint.address]
        added = []
        for address, endpoint in wanted.items():
            if address not in self._slots:
                self._slots[address] = self._take()
                added.append((self._slots[address], endpoint))
        self._free.extend(slot for slot, _ in removed)
        self.view = PoolView(
            endpoints=tuple(wanted.values()),
            slots=np.fromiter(map(self._slots.__getitem__, wanted), dtype=np.intp, count=len(wanted)),
            version=self.view.version + 1,
            by_address=dict(zip(wanted, range(len(wanted)), strict=True)),
        )
        return PoolChange(self.view, tuple(added), removed)

    def _take(self) -> int:
        if self._free:
            return self._free.pop()
        self._next += 1
        return self._next - 1
