"""What a gRPC port serves, and the transports that can serve it.

`lean` is our own HTTP/2 (`picker/wire`) on the event loop, `grpcio` is Google's library. Both carry the same streams
(`streams.py`) and the same health (`health.py`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args

from picker.server.health import Health
from picker.server.streams import AccessLogs, Streams

Transport = Literal["lean", "grpcio"]
TRANSPORTS: tuple[Transport, ...] = get_args(Transport)
DEFAULT: Transport = "lean"


@dataclass(frozen=True, slots=True)
class Limits:
    """Largest gRPC messages, in bytes; Envoy's are bounded by its own buffer limits. Connections open at once, of
    each port: an Envoy has one or two per thread. `grpcio` knows no such limit."""

    receive: int = 64 << 20
    send: int = 64 << 20
    connections: int = 2048


@dataclass(frozen=True, slots=True)
class Door:
    """Where a server listens; port 0 is any free one.

    TLS unless `plain`: with the pair in the folder `certificate`, self-signed without one; `reload`: read it again when
    it changes.
    """

    host: str
    port: int
    plain: bool = True
    certificate: Path | None = None
    reload: bool = False


@dataclass(frozen=True, slots=True)
class Ears:
    """Who hears the ext_proc streams (those of `pool`, if it has the port to itself) and the access logs of a port."""

    streams: Streams
    logs: AccessLogs
    pool: str = ""


class Server(Protocol):
    """A gRPC server that has its port."""

    port: int
    refused: int
    """Connections that there was no room for."""

    async def start(self) -> None:
        """Begin to serve."""
        ...

    async def stop(self, grace_s: float) -> None:
        """No new streams; ends when the last running one does, at the latest after `grace_s` seconds."""
        ...


async def open_server(
    transport: Transport, door: Door, health: Health, ears: Ears | None = None, limits: Limits = Limits()
) -> Server:
    """A server for health, and for all the rest if there are ears for it.

    Raises OSError for a port that cannot be had, OSError or ValueError for a certificate that cannot be used.
    """
    # Imported here: each brings a library that the other can do without.
    if transport == "lean":
        from picker.server.lean_server import lean_server

        return await lean_server(door, health, ears, limits)
    from picker.server.grpcio_server import grpcio_server

    return grpcio_server(door, health, ears, limits)
