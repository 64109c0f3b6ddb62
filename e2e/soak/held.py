"""What the processes of one picker hold, and whether it grows."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

FLOOR_BYTES = 6 << 20
"""Resident memory moves so much by itself: the allocator gives pages back or does not, a forest is trained."""
BYTES_PER_REQUEST = 24.0
"""One forgotten object of Python is more."""


@dataclass(frozen=True, slots=True)
class Held:
    """By one process, after so many requests to the whole picker."""

    requests: int
    resident_bytes: int
    descriptors: int
    threads: int


def held(pid: int, requests: int) -> dict[str, Held]:
    """By process: what it is, and its pid, so that one that was started again is another."""
    whole = psutil.Process(pid)
    return {
        f"{_name(process)} {process.pid}": Held(
            requests, process.memory_info().rss, process.num_fds(), process.num_threads()
        )
        for process in (whole, *whole.children(recursive=True))
    }


def _name(process: psutil.Process) -> str:
    command = process.cmdline()
    if "--worker" in command:
        return f"worker {command[command.index('--worker') + 1]}"
    if "--collector" in command:
        return "collector"
    return "trainer" if any("trainer" in word for word in command) else "supervisor"


def grown(looks: Sequence[Held]) -> list[str]:
    """What is more in the last third than in the one before it, in words; the first third fills caches.

    >>> steady = [Held(1000 * i, 90 << 20, 20, 3) for i in range(9)]
    >>> grown(steady)
    []
    >>> grown([Held(each.requests, each.resident_bytes + 5000 * each.requests, 20, 3) for each in steady])
    ['14.3 MiB in 3000 requests']
    >>> grown([Held(each.requests, each.resident_bytes, 20 + each.requests // 1000, 3) for each in steady])
    ['3 descriptors in 3000 requests']
    """
    third = len(looks) // 3
    before, last = looks[third : 2 * third], looks[2 * third : 3 * third]

    def more(name: str) -> float:
        then, now = (statistics.median(float(getattr(look, name)) for look in looks) for looks in (before, last))
        return now - then

    requests, bytes_more = more("requests"), more("resident_bytes")
    said = []
    if bytes_more > FLOOR_BYTES + BYTES_PER_REQUEST * requests:
        said.append(f"{bytes_more / 2**20:.1f} MiB")
    said += [f"{more(name):.0f} {name}" for name in ("descriptors", "threads") if more(name) > 0]
    return [f"{each} in {requests:.0f} requests" for each in said]
