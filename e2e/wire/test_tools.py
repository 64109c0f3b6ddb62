"""curl and nghttp2's h2load against a socket with a `Connection` behind it.

A tool that is missing fails its tests and says how to get it.
"""

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MESSAGE = b"\0\0\0\0\x05hello"
GRPC = ("-H", "content-type: application/grpc", "-H", "te: trailers")


def tool(name: str, package: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise LookupError(f"no {name} here: on Debian apt-get install {package}")
    return path


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ROOT / "tests" / "wire" / "echo_server.py"
    process = subprocess.Popen([sys.executable, server], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    process.kill()
    process.wait()


async def output(*command: str, stdin: bytes = b"") -> str:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    written, _ = await process.communicate(stdin)
    assert process.returncode == 0
    return written.decode("latin-1")


async def test_curl_calls_a_method(url: str) -> None:
    curl = (tool("curl", "curl"), "-s", "-i", "--http2-prior-knowledge")
    answer = await output(*curl, *GRPC, "--data-binary", "@-", url + "/test.Echo/Unary", stdin=MESSAGE)
    assert answer.startswith("HTTP/2 200")
    assert "content-type: application/grpc" in answer
    assert MESSAGE.decode("latin-1") in answer
    assert "grpc-status: 0" in answer


async def test_curl_sends_a_large_body(url: str) -> None:
    curl = (tool("curl", "curl"), "-s", "-o", "/dev/null", "-w", "%{http_code} %{size_download}")
    body = b"\0" + (10**7).to_bytes(4, "big") + bytes(10**7)
    target = url + "/test.Echo/Unary"
    answer = await output(*curl, "--http2-prior-knowledge", *GRPC, "--data-binary", "@-", target, stdin=body)
    assert answer == f"200 {len(body)}"


async def test_a_browser_is_told_that_this_is_no_place_for_it(url: str) -> None:
    curl = (tool("curl", "curl"), "-s", "-o", "/dev/null", "-w", "%{http_code}", "--http2-prior-knowledge")
    assert await output(*curl, url) == "405"


@pytest.mark.parametrize("window_bits", ["10", "16", "30"])
async def test_h2load_gets_every_answer(url: str, tmp_path: Path, window_bits: str) -> None:
    body = tmp_path / "message"
    body.write_bytes(b"\0" + (5000).to_bytes(4, "big") + bytes(5000))
    windows = ("-w", window_bits, "-W", window_bits)
    load = (tool("h2load", "nghttp2-client"), "-n", "2000", "-c", "3", "-m", "40", *windows)
    report = await output(*load, "-d", str(body), *GRPC, url + "/test.Echo/Unary")
    assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in report
