"""Pages over real sockets, from engines that answer, lie, drip, hang up and come again."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from picker.engines.http_fetch import HttpFetch
from picker.engines.page_answer import ScrapeError
from picker.pool.view import Endpoint

PAGE = b"vllm:num_requests_running 1\n"


@asynccontextmanager
async def engine(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[Endpoint]:
    app = web.Application()
    app.router.add_get("/metrics", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    address = f"127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield Endpoint(address, metrics_address=address)
    finally:
        await runner.cleanup()


@asynccontextmanager
async def fetching(timeout_s: float = 5.0, max_bytes: int = 10_000) -> AsyncIterator[HttpFetch]:
    fetch = HttpFetch(timeout_s, max_bytes)
    try:
        yield fetch
    finally:
        await fetch.close()


async def test_a_page_is_fetched_over_one_kept_connection() -> None:
    peers = set()

    async def metrics(request: web.Request) -> web.Response:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        return web.Response(body=PAGE)

    async with engine(metrics) as target, fetching() as fetch:
        assert [await fetch(target) for _ in range(3)] == [PAGE] * 3
    assert len(peers) == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda: web.Response(status=503), "status 503"),
        (lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}), "status 302"),
        (lambda: web.Response(body=b"x" * 10_001), "over the limit of 10000 bytes"),
        (lambda: web.Response(body=b"x", headers={"Content-Encoding": "gzip"}), "encoded"),
    ],
)
async def test_an_answer_that_is_no_page_is_an_error(answer: Callable[[], web.Response], reason: str) -> None:
    async def metrics(request: web.Request) -> web.Response:
        return answer()

    async with engine(metrics) as target, fetching() as fetch:
        with pytest.raises(ScrapeError, match=reason):
            await fetch(target)


async def test_a_page_without_end_is_cut_off_at_the_limit() -> None:
    async def metrics(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(b"x" * 1000)

    async with engine(metrics) as target, fetching() as fetch:
        with pytest.raises(ScrapeError, match="over the limit"):
            await fetch(target)


async def test_an_engine_that_drips_is_cut_off_in_time() -> None:
    async def metrics(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(b"x")
            await asyncio.sleep(0.01)

    async with engine(metrics) as target, fetching(timeout_s=0.1) as fetch:
        with pytest.raises(TimeoutError):
            await fetch(target)


@pytest.mark.parametrize(("timeout_s", "max_bytes"), [(0.0, 1), (float("nan"), 1), (1.0, 0), (1.0, 1 << 40)])
def test_limits_out_of_range_are_refused(timeout_s: float, max_bytes: int) -> None:
    with pytest.raises(ValueError, match="must be in"):
        HttpFetch(timeout_s, max_bytes)


@asynccontextmanager
async def talking(*answers: bytes, hangs_up: bool = False) -> AsyncIterator[tuple[Endpoint, list[int]]]:
    """A server that says these bytes, one answer for each request on a connection; and how many it had on each."""
    connections: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(connections)
        connections.append(0)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            for answer in answers:
                await reader.readuntil(b"\r\n\r\n")
                connections[number] += 1
                writer.write(answer)
                await writer.drain()
            if not hangs_up:
                await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield Endpoint(address, metrics_address=address), connections
    finally:
        server.close()


def http(body: bytes, head: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n%b" % (len(body), head, body)


async def test_a_connection_that_the_engine_closed_is_opened_again_at_once() -> None:
    async with talking(http(PAGE), hangs_up=True) as (target, connections), fetching() as fetch:
        assert [await fetch(target) for _ in range(3)] == [PAGE] * 3
    assert connections == [1, 1, 1]


async def test_an_engine_that_wants_its_connection_closed_gets_a_new_one_each_time() -> None:
    async with talking(http(PAGE, b"Connection: close\r\n")) as (target, connections), fetching() as fetch:
        assert [await fetch(target) for _ in range(2)] == [PAGE] * 2
    assert connections == [1, 1]


async def test_two_pages_asked_for_at_once_come_over_two_connections() -> None:
    async with talking(http(PAGE), http(PAGE)) as (target, connections), fetching() as fetch:
        assert list(await asyncio.gather(fetch(target), fetch(target))) == [PAGE] * 2
        assert await fetch(target) == PAGE
    assert sorted(connections) == [1, 2]


async def test_bytes_that_nobody_asked_for_end_the_connection() -> None:
    async with talking(http(PAGE) + http(b"poison")) as (target, connections), fetching() as fetch:
        with pytest.raises(ScrapeError, match="more than one answer"):
            await fetch(target)
        with pytest.raises(ScrapeError, match="more than one answer"):
            await fetch(target)
    assert connections == [1, 1]


async def test_an_engine_that_says_nothing_and_hangs_up_is_an_error_and_asked_once() -> None:
    async with talking(b"", hangs_up=True) as (target, connections), fetching() as fetch:
        with pytest.raises(ScrapeError, match="ended before the answer"):
            await fetch(target)
    assert connections == [1]


async def test_what_came_too_late_is_nobody_elses_answer() -> None:
    async with talking(b"", http(b"late")) as (target, connections):
        async with fetching(timeout_s=0.1) as fetch:
            with pytest.raises(TimeoutError):
                await fetch(target)
            with pytest.raises(TimeoutError):
                await fetch(target)
        assert connections == [1, 1]


async def test_an_address_that_nobody_serves_is_an_error_of_the_system() -> None:
    async with talking() as (target, _):
        pass
    async with fetching() as fetch:
        with pytest.raises(OSError, match=r"refused|Connect"):
            await fetch(target)


@pytest.mark.parametrize("address", ["", "10.0.0.1", ":80", "host:80\r\nX: y", "a b:80", "host:-1"])
async def test_what_is_no_address_is_never_asked(address: str) -> None:
    async with fetching() as fetch:
        with pytest.raises(ScrapeError, match="no address"):
            await fetch(Endpoint("10.0.0.1:80", metrics_address=address))
