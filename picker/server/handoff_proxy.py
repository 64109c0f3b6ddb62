"""The proxy's own HTTP side: clients in front, peers beside, the engine behind."""

import asyncio
import json
from typing import Any

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from picker.handoff.asked import KINDS, TRANSFER, Kind, read, without_transfer
from picker.handoff.attempts import Attempts
from picker.handoff.stream import Stream, broken
from picker.handoff.whole import Whole
from picker.server.handoff_calls import PEER, Broken, passed_on
from picker.server.handoff_relay import ClientGone, Relay, Site, unless_gone
from picker.server.handoff_token import TOKEN_HEADER, WHY_HEADER, same_token

MAX_BODY_BYTES = 64 << 20
_FORMS = "multipart/form-data"
_UNPACKED = ("Content-Encoding",)
"""Bodies are unpacked on the way in."""


class StreamSink:
    """Passes events on as they come; writing waits while the client does not read."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self.response: web.StreamResponse | None = None

    async def start(self, status: int, headers: CIMultiDict[str]) -> None:
        self.response = web.StreamResponse(status=status, headers=passed_on(headers))
        await self.response.prepare(self._request)

    async def write(self, data: bytes) -> None:
        assert self.response is not None
        await self.response.write(data)

    async def finish(self) -> web.StreamResponse:
        assert self.response is not None
        await self.response.write_eof()
        return self.response


class WholeSink:
    """Keeps the answer together for a client that wants it in one piece."""

    def __init__(self, request: web.Request, kind: Kind) -> None:
        self._whole, self._status = Whole(kind), 200
        self._refusal: tuple[CIMultiDict[str], list[bytes]] | None = None

    async def start(self, status: int, headers: CIMultiDict[str]) -> None:
        self._status = status
        if status != 200:
            self._refusal = passed_on(headers), []

    async def write(self, data: bytes) -> None:
        if self._refusal is None:
            self._whole.feed(data)
        else:
            self._refusal[1].append(data)

    async def finish(self) -> web.StreamResponse:
        if self._refusal is not None:
            return web.Response(status=self._status, headers=self._refusal[0], body=b"".join(self._refusal[1]))
        status = 502 if self._whole.error is not None else 200
        return web.Response(status=status, body=self._whole.body(), content_type="application/json")


class Proxy:
    """`members` gives those of the moment; `token` None leaves peers out altogether."""

    def __init__(self, site: Site, token: str | None) -> None:
        self._site, self._token = site, token

    def for_peers(self, app: web.Application) -> None:
        """Their way to the engine."""
        app.router.add_route("*", PEER + "/{path:.*}", self._peer)

    def for_clients(self, app: web.Application) -> None:
        """All paths that are left; call last."""
        app.router.add_route("*", "/{path:.*}", self._client)

    def is_peer(self, request: web.Request) -> bool:
        return same_token(self._token, request.headers.get(TOKEN_HEADER, ""))

    async def _client(self, request: web.Request) -> web.StreamResponse:
        return await self._pass(request, request.raw_path, peer=False)

    async def _peer(self, request: web.Request) -> web.StreamResponse:
        if not self.is_peer(request):
            raise web.HTTPNotFound
        if (why := request.headers.get(WHY_HEADER)) in self._site.metrics.gaps:
            self._site.metrics.taken.add(why)
        return await self._pass(request, request.raw_path.removeprefix(PEER), peer=True)

    async def _pass(self, request: web.Request, path: str, *, peer: bool) -> web.StreamResponse:
        if not path.startswith("/"):
            raise web.HTTPBadRequest
        if request.method != "POST" or request.content_type == _FORMS:
            body: Any = request.content if request.can_read_body else None
            return await self._plain(request, path, body, [])
        raw = await request.read()
        kind = KINDS.get(path.partition("?")[0])
        try:
            found = json.loads(raw) if raw else None
            cleaned = found if peer else without_transfer(found)
        except (ValueError, RecursionError):
            # The engine's own parser: what this one does not take, it would not either.
            return _error(400, "the body is no JSON")
        if peer and not self._of_the_pool(cleaned):
            return _error(400, "KV is pulled from engines of the pool only")
        raw = raw if cleaned == found else json.dumps(cleaned).encode()
        tries = self._site.calls.peers() if kind is not None and not peer else []
        if kind is None or not isinstance(cleaned, dict):
            return await self._plain(request, path, raw, tries)
        transfer = cleaned.pop(TRANSFER, None)
        asked = read(kind, cleaned)
        self._site.metrics.requests.add("movable" if not isinstance(asked, str) else asked)
        if isinstance(asked, str):
            return await self._plain(request, path, raw, tries)
        if peer and not asked.stream:
            return await self._copy(request, path, raw, 1 if transfer is not None else asked.prompt_tokens)
        sink = StreamSink(request) if asked.stream else WholeSink(request, kind)
        headers = passed_on(request.headers, but=_UNPACKED)
        brought = peer and request.headers.get(WHY_HEADER) == "move"
        relay = Relay(
            self._site, Stream(asked), path, headers, sink, failover=not peer, transfer=transfer, brought=brought
        )
        try:
            await relay.run()
            return await sink.finish()
        except ClientGone:
            raise ConnectionResetError from None
        except Broken as error:
            return _failed(error)

    def _of_the_pool(self, body: Any) -> bool:
        """No transfer parameters, or some that name a host of the pool."""
        transfer = body.get(TRANSFER) if isinstance(body, dict) else None
        host = transfer.get("remote_host") if isinstance(transfer, dict) else None
        return transfer is None or host is None or host in self._site.calls.hosts()

    async def _copy(self, request: web.Request, path: str, raw: bytes, tokens: int | None) -> web.StreamResponse:
        """A peer's request of one token, for the KV that it leaves here. It waits like any other prompt."""
        line, who, now = self._site.line, object(), asyncio.get_running_loop().time
        line.join(who, now(), size=len(raw), tokens=tokens)
        try:
            answer = await self._plain(request, path, raw, [])
            line.begin(who, now())
            return answer
        finally:
            line.leave(who, now())

    # -- requests that stay -------------------------------------------------------------------------------------------

    async def _plain(self, request: web.Request, path: str, body: Any, peers: list[str]) -> web.StreamResponse:
        """Pass on as it is; retried at a peer while nothing was said."""
        calls, engine = self._site.calls, self._site.calls.own
        attempts = Attempts(self._site.settings, calls.own)
        while True:
            try:
                return await self._through(request, engine, path, body)
            except Broken as error:
                self._site.metrics.breaks.add(error.how)
                now = asyncio.get_running_loop().time()
                following = attempts.broke(engine, error.how, peers, now) if peers else None
                if following is None:
                    return _failed(error)
                engine = following

    async def _through(self, request: web.Request, engine: str, path: str, body: Any) -> web.StreamResponse:
        headers = passed_on(request.headers, but=_UNPACKED)
        async with self._site.calls.asking(engine, request.method, path, body, headers) as response:
            if response.status >= 500:
                raise await Broken.by(response)
            passed = web.StreamResponse(status=response.status, headers=passed_on(response.headers))
            if "Content-Length" in response.headers and request.method != "HEAD":
                passed.content_length = int(response.headers["Content-Length"])
            await passed.prepare(request)
            try:
                while data := await response.content.readany():
                    await unless_gone(passed.write, data)
            except (aiohttp.ClientError, OSError, TimeoutError):
                self._site.metrics.breaks.add("cut")
                if response.content_type != "text/event-stream" or request.transport is None:
                    raise ConnectionResetError from None
                await passed.write(b"\n\n" + b"".join(broken("the engine failed during its answer")))
            except ClientGone:
                raise ConnectionResetError from None
            await passed.write_eof()
            return passed


def _failed(error: Broken) -> web.Response:
    """The engine's own words where it had any."""
    if error.answer is not None:
        status, headers, body = error.answer
        return web.Response(status=status, headers=passed_on(headers), body=body)
    return _error(503 if error.how == "refused" else 502, str(error))


def _error(status: int, message: str) -> web.Response:
    kind = "BadRequestError" if status < 500 else "EngineFailure"
    error = {"message": message, "type": kind, "param": None, "code": status}
    return web.json_response({"error": error}, status=status)
