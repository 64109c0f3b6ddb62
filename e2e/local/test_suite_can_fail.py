"""Gateways with one fault each: the suite finds it, by the tests that are meant for it."""

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from gateway import until

from picker.server.up.ports import HOST, free_ports

SUITE = Path(__file__).parents[1] / "suite"
CHOSEN = "first_words or is_answered or is_whole or cannot_be_read or burst_is"
Fault = Callable[[web.Request, aiohttp.ClientResponse], Awaitable[web.StreamResponse]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[str]:
    """A simulated engine."""
    (port,) = free_ports(1)
    argv = [sys.executable, "-m", "picker.server.cli", "engine", f"--port={port}", "--speedup=10"]
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.DEVNULL)
    url = f"http://{HOST}:{port}"

    async def answers() -> bool:
        async with aiohttp.ClientSession() as session:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"{url}/health") as response:
                    return response.status == 200
        return False

    try:
        await until(answers)
        yield url
    finally:
        process.terminate()
        await process.wait()


async def passes_on(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.headers["Content-Type"]})
    await response.prepare(request)
    async for chunk in answer.content.iter_any():
        await response.write(chunk)
    return response


async def holds_back(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)


async def cuts_streams(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    body = await answer.read()
    if answer.content_type == "text/event-stream":
        body = body.removesuffix(b"data: [DONE]\n\n")
    return web.Response(status=answer.status, body=body, content_type=answer.content_type)


async def hides_errors(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    if answer.status >= 400:
        return web.Response(status=500, text="<html>upstream error</html>", content_type="text/html")
    return await passes_on(request, answer)


@contextlib.asynccontextmanager
async def in_front_of(engine: str, fault: Fault) -> AsyncIterator[str]:
    async with aiohttp.ClientSession(engine, connector=aiohttp.TCPConnector(limit=0)) as session:

        async def serve(request: web.Request) -> web.StreamResponse:
            body, headers = await request.read(), {"Content-Type": request.content_type}
            async with session.request(request.method, request.path, data=body, headers=headers) as answer:
                return await fault(request, answer)

        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", serve)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, 0).start()
            yield f"http://{HOST}:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (passes_on, set()),
        (holds_back, {"first_words_come_before_the_last"}),
        (
            cuts_streams,
            {
                "a_burst_is_answered_completely",
                "a_streamed_chat_comes_event_by_event_and_whole",
                "a_streamed_completion_is_whole",
                "first_words_come_before_the_last",
            },
        ),
        (hides_errors, {"a_body_that_cannot_be_read_is_a_bad_request"}),
    ],
)
async def test_a_fault_is_found(engine: str, fault: Fault, found: set[str]) -> None:
    async with in_front_of(engine, fault) as url:
        where = {**os.environ, "GATEWAY_URL": url, "GATEWAY_WITHOUT": "embeddings cached-tokens"}
        argv = [sys.executable, "-m", "pytest", "--tb=no", "-rf", "-k", f"{CHOSEN} or event_by_event", str(SUITE)]
        suite = await asyncio.create_subprocess_exec(*argv, env=where, stdout=asyncio.subprocess.PIPE)
        told, _ = await suite.communicate()
    assert set(re.findall(r"^FAILED \S+::test_(\w+)", told.decode(), re.MULTILINE)) == found, told.decode()
    assert suite.returncode == (1 if found else 0)
