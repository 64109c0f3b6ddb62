"""Free local ports, below those that the system gives to outgoing connections: none of these takes one meanwhile."""

import random
import socket
from contextlib import ExitStack

HOST = "127.0.0.1"
LOWEST, HIGHEST = 10_240, 32_767


def free_ports(count: int) -> list[int]:
    """`count` distinct ports that were free a moment ago; all are held until the last is found.

    Raises OSError when there are not so many.
    """
    with ExitStack() as held:
        ports: list[int] = []
        for port in random.sample(range(LOWEST, HIGHEST + 1), HIGHEST + 1 - LOWEST):
            if len(ports) == count:
                return ports
            if _hold(held, port):
                ports.append(port)
    raise OSError(f"no {count} free ports")


def free_run(count: int) -> int:
    """The first of `count` consecutive free ports. Raises OSError when none is found."""
    for _ in range(1000):
        first = random.randint(LOWEST, HIGHEST + 1 - count)
        with ExitStack() as held:
            if all(_hold(held, port) for port in range(first, first + count)):
                return first
    raise OSError(f"no {count} consecutive free ports")


def _hold(held: ExitStack, port: int) -> bool:
    try:
        held.enter_context(socket.socket()).bind((HOST, port))
    except OSError:
        return False
    return True
