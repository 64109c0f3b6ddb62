"""The echo server behind the endpoints."""

import hashlib

from aiohttp.test_utils import TestClient, TestServer

from picker.conformance import echo


async def test_it_tells_where_a_request_arrived_and_what_it_got() -> None:
    async with TestClient(TestServer(echo.echo_app())) as client:
        headers = {echo.ENDPOINT: "127.0.0.11:3000", echo.PROTOCOL: "HTTP/2"}
        answer = await (await client.post("/any/path", data=b"body", headers=headers)).json()
    assert answer == {
        "endpoint": "127.0.0.11:3000",
        "protocol": "HTTP/2",
        "bytes": 4,
        "sha256": hashlib.sha256(b"body").hexdigest(),
    }


async def test_it_streams_as_many_events_as_it_is_asked_for_within_reason() -> None:
    async with TestClient(TestServer(echo.echo_app())) as client:
        for asked, sent in (("3", 3), ("999999999999", 10_000)):
            body = await (await client.post("/", headers={echo.EVENTS: asked})).read()
            assert body == b"".join(map(echo.event, range(sent)))


async def test_it_can_be_scraped_like_an_engine() -> None:
    async with TestClient(TestServer(echo.echo_app())) as client:
        assert "vllm:num_requests_running 0" in await (await client.get("/metrics")).text()
