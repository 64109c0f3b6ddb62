"""Run the suite against a `picker up` of one's own: real Envoy, picker, and the engines that its options say."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

UP = [sys.executable, "-m", "picker.server.cli", "up"]
SUITE = Path(__file__).parent


async def fails_of_suite(options: Sequence[str], without: str, patience_s: float) -> str:
    """What pytest said, empty when all passed. Raises TimeoutError when `picker up` is not up within `patience_s`."""
    up = await asyncio.create_subprocess_exec(*UP, *options, stdout=asyncio.subprocess.PIPE)
    try:
        where = {"GATEWAY_URL": await _invitation(up, patience_s), "GATEWAY_WITHOUT": without}
        suite = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pytest", SUITE, env={**os.environ, **where}, stdout=asyncio.subprocess.PIPE
        )
        told, _ = await suite.communicate()
        return told.decode() if suite.returncode else ""
    finally:
        up.send_signal(signal.SIGINT)
        await asyncio.wait_for(up.wait(), 120)


async def _invitation(process: asyncio.subprocess.Process, patience_s: float) -> str:
    """The gateway's URL, from what `picker up` says once everything is up."""
    assert process.stdout is not None
    said = ""
    async with asyncio.timeout(patience_s):
        while "Ctrl-C stops everything." not in said:
            piece = await process.stdout.read(4096)
            assert piece, said
            said += piece.decode(errors="replace")
    found = re.search(r"curl -N (http://\S+?)/v1/", said)
    assert found is not None, said
    return found[1]
