"""An engine that listens is ready: what its steps are compiled to is loaded before the first request."""

import subprocess
import sys

SCRIPT = """
import asyncio
import aiohttp
from picker.server.engine import EngineOptions, running
from picker.simulator import blocks

def loaded():
    return [len(kernel.signatures) for kernel in vars(blocks).values() if hasattr(kernel, "signatures")]

async def main():
    async with running(EngineOptions(port=0, speedup=50)) as server, aiohttp.ClientSession() as session:
        before = loaded()
        for _ in range(2):
            ask = {"prompt": "word " * 100, "max_tokens": 40}
            async with session.post(f"http://{server.address}/v1/completions", json=ask) as answer:
                assert answer.status == 200
        print(sum(before), loaded() == before)

asyncio.run(main())
"""


def test_the_first_request_compiles_nothing() -> None:
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60)

    count, same = ran.stdout.split()
    assert int(count) > 0, ran.stderr
    assert same == "True"
