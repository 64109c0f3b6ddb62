"""What serves behind the endpoints: it says where a request arrived, how, and what its body was."""

import hashlib

from aiohttp import web

ENDPOINT = "x-echo-endpoint"
PROTOCOL = "x-echo-protocol"
"""Request headers in which the endpoint's listener writes its own ip:port and the HTTP version that it heard."""
EVENTS = "x-echo-events"
"""Request header: answer with so many events instead."""
MOST_EVENTS = 10_000
METRICS = "vllm:num_requests_running 0\nvllm:num_requests_waiting 0\nvllm:kv_cache_usage_perc 0\n"


def echo_app() -> web.Application:
    """The HTTP application, the same behind every endpoint."""
    app = web.Application(client_max_size=64 << 20)
    app.router.add_get("/metrics", _metrics)
    app.router.add_route("*", "/{path:.*}", _echo)
    return app


def event(number: int) -> bytes:
    """One event of a streamed answer."""
    return f"data: event {number}\n\n".encode()


async def _metrics(_: web.Request) -> web.Response:
    return web.Response(text=METRICS)


async def _echo(request: web.Request) -> web.StreamResponse:
    body = await request.read()
    count = request.headers.get(EVENTS, "")
    if count.isascii() and count.isdigit():
        return await _events(request, min(int(count[:9]), MOST_EVENTS))
    return web.json_response(
        {
            "endpoint": request.headers.get(ENDPOINT, ""),
            "protocol": request.headers.get(PROTOCOL, ""),
            "bytes": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
        }
    )


async def _events(request: web.Request, count: int) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    for number in range(count):
        await response.write(event(number))
    await response.write_eof()
    return response
