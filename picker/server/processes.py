"""Child processes that never outlive us: own process group, killed when the parent dies, stopped in order."""

import asyncio
import contextlib
import ctypes
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PR_SET_PDEATHSIG = 1
POLL_S = 0.02
LAST_WORDS_S = 2.0
"""Python's resource tracker takes shared memory away when all others of its group are gone, 0.2 s after them."""

_libc = ctypes.CDLL(None, use_errno=True)


def _die_with_parent() -> None:
    """In the child, before exec: SIGTERM when the parent is gone, even if it was killed (Linux)."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass(slots=True)
class Child:
    """One running command, leader of its own process group. Its output goes to `log`."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.returncode is None

    def signal(self, number: int) -> None:
        """Send a signal to the whole group; a group that is gone is no error."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return

    async def stop(self, patience_s: float = 10.0) -> None:
        """SIGTERM, wait for the leader, then a moment for the others, then SIGKILL what is left of the group."""
        self.signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.process.wait(), patience_s)
            await asyncio.wait_for(self._emptied(), LAST_WORDS_S)
        self.signal(signal.SIGKILL)
        await self.process.wait()

    async def _emptied(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.killpg(self.pid, 0)
                await asyncio.sleep(POLL_S)

    def tail(self, lines: int = 15) -> str:
        """The end of its output, for error messages."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""


@dataclass(slots=True)
class Children:
    """Everything that one command started, stopped in reverse order."""

    logs: Path
    all: list[Child] = field(default_factory=list)

    async def start(
        self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None, *, inherit: bool = False
    ) -> Child:
        """Start one command; with `inherit` it writes where we write. Raises OSError when it cannot be executed."""
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{name}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=None if inherit else output,
                stderr=None if inherit else asyncio.subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        child = Child(name, process, log)
        self.all.append(child)
        return child

    async def stop(self) -> None:
        """Stop all, last started first; the engines' long goodbyes run side by side."""
        for child in reversed(self.all):
            if child.running:
                child.signal(signal.SIGTERM)
        await asyncio.gather(*(child.stop() for child in self.all))
        self.all.clear()

    def dead(self) -> Child | None:
        """A child that ended by itself, if any."""
        return next((child for child in self.all if not child.running), None)
