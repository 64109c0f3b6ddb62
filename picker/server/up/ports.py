"""Free local ports, below those that the system gives to outgoing connections: none of these takes one meanwhile.

A port is given out some time before it is listened on. Processes that look for ports side by side do not give out the
same one: each has blocks of its own, which are its own while it holds their first port.
"""

import random
import socket
from collections import deque

HOST = "127.0.0.1"
LOWEST, HIGHEST = 10_240, 32_767
BLOCK = 256


class _Ports:
    """What this process may give out. Of its blocks the last two are held: ports of earlier ones are in use by now."""

    def __init__(self) -> None:
        self._held: deque[socket.socket] = deque(maxlen=2)
        self._left = range(0)

    def take(self, count: int) -> int:
        """The first of `count` free ports in a row."""
        while len(self._left) >= count or self._next_block(count):
            wanted = self._left[:count]
            busy = [port for port in wanted if not _free(port)]
            self._left = range(busy[-1] + 1 if busy else wanted.stop, self._left.stop)
            if not busy:
                return wanted.start
        raise OSError(f"no {count} free ports in a row")

    def _next_block(self, count: int) -> bool:
        firsts = range(LOWEST, HIGHEST + 2 - BLOCK, BLOCK)
        for first in random.sample(firsts, len(firsts)) if count < BLOCK else ():
            holder = socket.socket()
            if _binds(holder, first):
                self._held.append(holder)
                self._left = range(first + 1, first + BLOCK)
                return True
            holder.close()
        return False


_ports = _Ports()


def free_ports(count: int) -> list[int]:
    """`count` distinct ports that were free a moment ago. Raises OSError when there are not so many."""
    return [_ports.take(1) for _ in range(count)]


def free_run(count: int) -> int:
    """The first of `count` consecutive free ports, fewer than BLOCK. Raises OSError when none is found."""
    return _ports.take(count)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        return _binds(probe, port)


def _binds(holder: socket.socket, port: int) -> bool:
    try:
        holder.bind((HOST, port))
    except OSError:
        return False
    return True
