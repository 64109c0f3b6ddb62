"""Routers that others built, started as their users start them, with their cache-aware policy."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.backends import HOST
from bench.load import Target
from picker.server.processes import Children
from picker.server.up.ports import free_ports

VENV = Path(__file__).parents[1] / ".cache" / "peers"


@dataclass(frozen=True, slots=True)
class Peer:
    """One router from PyPI, by the name of its package and command."""

    name: str

    @property
    def version(self) -> str | None:
        """The installed version, None where it is not installed."""
        if not (VENV / "bin" / self.name).exists():
            return None
        found = sorted(VENV.glob(f"lib/python3*/site-packages/{self.name.replace('-', '_')}-*.dist-info"))
        return found[-1].name.removesuffix(".dist-info").rpartition("-")[2] if found else None

    async def start(self, children: Children, backends: Sequence[str]) -> Target:
        """Start it over `backends` (`ip:port` each); it may need a while until it serves. Raises OSError."""
        port, metrics = free_ports(2)
        child = await children.start(
            self.name,
            [
                *(str(VENV / "bin" / self.name), "launch", "--host", HOST, "--port", str(port)),
                *("--worker-urls", *(f"http://{address}" for address in backends)),
                *("--policy", "cache_aware", "--worker-startup-check-interval", "1"),
                *("--prometheus-host", HOST, "--prometheus-port", str(metrics), "--log-level", "warn"),
            ],
        )
        return Target(self.name, port, child.pid)


PEERS = (Peer("sglang-router"), Peer("smg"))
