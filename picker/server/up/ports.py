"""Free local ports."""

import socket
from contextlib import ExitStack

HOST = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """`count` distinct ports that were free a moment ago; all are held until the last is found."""
    with ExitStack() as held:
        ports = []
        for _ in range(count):
            probe = held.enter_context(socket.socket())
            probe.bind((HOST, 0))
            ports.append(int(probe.getsockname()[1]))
        return ports


def free_run(count: int) -> int:
    """The first of `count` consecutive free ports. Raises OSError when none is found."""
    for _ in range(100):
        (first,) = free_ports(1)
        with ExitStack() as held:
            try:
                for port in range(first, first + count):
                    held.enter_context(socket.socket()).bind((HOST, port))
            except (OSError, OverflowError):
                continue
            return first
    raise OSError(f"no {count} consecutive free ports")
