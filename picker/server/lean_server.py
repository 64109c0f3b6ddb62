"""Ports of the lean transport: sockets, TLS, and the end of a server's connections."""

import asyncio
import contextlib
import socket
from typing import Any

from picker.server.health import Health
from picker.server.lean import Answer, Shell
from picker.server.lean_calls import ECHOED, answers
from picker.server.tls import h2_context
from picker.server.transport import Door, Ears, Limits
from picker.wire.echo import Echo
from picker.wire.frames import FRAME_BYTES
from picker.wire.limits import WireLimits

EVERYWHERE = ("0.0.0.0", "::", "[::]", "")
GOODBYE_S = 1.0
"""What the last words of a connection may take."""
BACKLOG = 1024


class LeanServer:
    """A server of our own on its port."""

    def __init__(self, answer: Answer, limits: Limits, echo: Echo | None = None) -> None:
        self.answer, self.longest, self.echo = answer, limits.send, echo
        self.limits = WireLimits(message_bytes=limits.receive)
        self.refused, self._room = 0, limits.connections
        self._shells: set[Shell] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._stopping = False

    def __len__(self) -> int:
        """Connections that are there."""
        return len(self._shells)

    async def open(self, door: Door) -> None:
        """Take the port. Raises OSError, ValueError."""
        loop, context = asyncio.get_running_loop(), None
        if not door.plain:
            context = h2_context(door.certificate, door.reload)
        how: dict[str, Any] = {"ssl": context, "backlog": BACKLOG, "start_serving": False}
        if door.host in EVERYWHERE and socket.has_dualstack_ipv6():
            self._listener = await loop.create_server(self._shell, sock=_everywhere(door.port), **how)
        else:
            self._listener = await loop.create_server(self._shell, door.host, door.port, **how)
        self.port: int = self._listener.sockets[0].getsockname()[1]

    async def start(self) -> None:
        """Begin to serve."""
        await self._listener.start_serving()

    async def stop(self, grace_s: float) -> None:
        """No new streams; ends when the last running one does, at the latest after `grace_s` seconds."""
        self._stopping = True
        self._listener.close()
        for shell in [*self._shells]:
            shell.drain()
        if not await self._emptied(grace_s):
            for shell in [*self._shells]:
                shell.shut()
        if not await self._emptied(GOODBYE_S):
            for shell in [*self._shells]:
                shell.abort()

    def came(self, shell: Shell) -> None:
        """A connection was made. Beyond the room there is it is told goodbye; beyond twice that, not even so."""
        self._shells.add(shell)
        self._empty.clear()
        crowded = len(self._shells) > self._room
        self.refused += crowded
        if len(self._shells) > 2 * self._room:
            shell.abort()
        elif crowded:
            shell.shut()
        elif self._stopping:
            shell.drain()

    def went(self, shell: Shell) -> None:
        """It is gone."""
        self._shells.discard(shell)
        if not self._shells:
            self._empty.set()

    def _shell(self) -> Shell:
        return Shell(self)

    async def _emptied(self, patience_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), patience_s)
        return self._empty.is_set()


def _everywhere(port: int) -> socket.socket:
    """A socket for IPv4 and IPv6 alike, as gRPC's own servers have it. Raises OSError."""
    both = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    try:
        both.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        both.bind(("::", port))
    except OSError:
        both.close()
        raise
    return both


async def lean_server(door: Door, health: Health, ears: Ears | None, limits: Limits) -> LeanServer:
    """As `transport.open_server`."""
    # What is echoed is a frame at most, and little more when it goes back: `limits.send` is looked at by calls alone.
    echo = Echo(ECHOED) if ears is not None and limits.send > 2 * FRAME_BYTES else None
    server = LeanServer(answers(health, ears), limits, echo)
    await server.open(door)
    return server
