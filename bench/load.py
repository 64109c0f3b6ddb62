"""What is put under load, and one round of load with its bill in CPU time."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp
import psutil

from bench.backends import HOST
from bench.client import AT_ONCE, LoadError, send_all

SETTLE_S = 0.3
"""After the last answer: the access log comes in batches 20 ms apart, and its handling is part of the bill."""

_WHOLE_PROCESS = 2
"""Low bits of a Linux CPU clock id: scheduler time of all threads. The high bits are the complement of the pid."""


@dataclass(frozen=True, slots=True)
class Target:
    """Something that listens on `port`. Billed: the process tree of `pid`, and beside it that of Envoy, if there is."""

    name: str
    port: int
    pid: int
    envoy_pid: int | None = None
    envoy_admin: str = ""


@dataclass(frozen=True, slots=True)
class Bill:
    """CPU seconds, user and system, of one round; `messages` is how many messages Envoy sent the picker."""

    requests: int
    cpu_s: float
    envoy_cpu_s: float
    messages: int

    @property
    def us_per_request(self) -> float:
        return 1e6 * self.cpu_s / self.requests

    @property
    def envoy_us_per_request(self) -> float:
        return 1e6 * self.envoy_cpu_s / self.requests


async def bill(target: Target, requests: Sequence[bytes], events: int = 0, at_once: int = AT_ONCE) -> Bill:
    """Send the requests, so many at once, and wait until their ends are told; what that cost.

    Raises LoadError for an answer that is not 200, breaks off, or has not this many `events`; OSError.
    """
    messages = await _messages(target)
    envoy, own = cpu_s(target.envoy_pid), cpu_s(target.pid)
    answers = await send_all(target.port, requests, at_once)
    await asyncio.sleep(SETTLE_S)
    own, envoy = cpu_s(target.pid) - own, cpu_s(target.envoy_pid) - envoy
    for answer in answers:
        if (seen := answer.body.count(b"data: ")) != events:
            raise LoadError(f"{target.name}: {seen} events where {events} were sent")
    return Bill(len(answers), own, envoy, await _messages(target) - messages)


def cpu_s(pid: int | None) -> float:
    """CPU seconds, user and system, of a process and its living descendants."""
    if pid is None:
        return 0.0
    family = (pid, *(child.pid for child in psutil.Process(pid).children(recursive=True)))
    return sum(map(process_cpu_s, family))


def process_cpu_s(pid: int) -> float:
    """CPU seconds, user and system, of one process by the kernel's own clock of it: to the nanosecond, where the counts
    of /proc (and psutil) step by 10 ms."""
    return time.clock_gettime(~pid << 3 | _WHOLE_PROCESS)


async def _messages(target: Target) -> int:
    """Messages sent to the picker so far, as Envoy counts them."""
    if not target.envoy_admin:
        return 0
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{target.envoy_admin}/stats?filter=ext_proc.*stream_msgs_sent$") as response,
    ):
        return sum(int(line.rpartition(":")[2]) for line in (await response.text()).splitlines() if ":" in line)


async def until_serving(target: Target, probe: bytes, patience_s: float = 60.0) -> None:
    """Ask until answered with 200. Raises TimeoutError with the last reason."""
    reason: Exception | None = None
    deadline = asyncio.get_running_loop().time() + patience_s
    while asyncio.get_running_loop().time() < deadline:
        try:
            await asyncio.wait_for(send_all(target.port, [probe]), 10.0)
            return
        except Exception as error:
            # Refused, reset, 503, not yet HTTP: all the same while it starts.
            reason = error
        await asyncio.sleep(0.2)
    raise TimeoutError(f"{target.name} on {HOST}:{target.port} does not serve: {reason}")
