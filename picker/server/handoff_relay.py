"""One movable request from its first engine to its last: reads whoever writes it, writes to the client."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
from multidict import CIMultiDict

from picker.handoff.asked import TRANSFER
from picker.handoff.attempts import Attempts, FailoverSettings
from picker.handoff.line import Line
from picker.handoff.stream import Stays, Stream
from picker.server.handoff_calls import Broken, Calls
from picker.server.handoff_flights import Flight, Flights
from picker.server.handoff_metrics import HandoffMetrics
from picker.server.handoff_token import WHY_HEADER

COMPLETIONS = "/v1/completions"
_MOST_RETREATS = 4


class ClientGone(Exception):
    """Nobody reads the answer any more."""


class Sink(Protocol):
    """The client's end. `start` comes once, with the first engine's head, before any `write`."""

    async def start(self, status: int, headers: CIMultiDict[str]) -> None: ...
    async def write(self, data: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class Site:
    """What all relays of a proxy share."""

    calls: Calls
    flights: Flights
    metrics: HandoffMetrics
    settings: FailoverSettings
    line: Line
    """Before the engine beside this proxy."""


class Relay:
    """`transfer` are KV transfer parameters for the first engine, from a peer; `brought`: it has the KV already.
    `failover` is off where the one who asks sees to it."""

    def __init__(
        self,
        site: Site,
        stream: Stream,
        path: str,
        headers: CIMultiDict[str],
        sink: Sink,
        *,
        failover: bool = True,
        transfer: Any = None,
        brought: bool = False,
    ) -> None:
        self._site, self._stream, self._sink, self._failover = site, stream, sink, failover
        self._first_path, self._headers = path, headers
        self._transfer = {} if transfer is None else {TRANSFER: transfer}
        self._flight = site.flights.add(stream, headers.get("Authorization", ""))
        self._attempts = Attempts(site.settings, site.calls.own)
        self._started, self._brought = False, brought
        self._why: str | None = None

    async def run(self) -> None:
        """Until the client has its answer. Raises ClientGone, and Broken where nothing was said yet and nobody can."""
        try:
            await self._run(self._flight.at)
        finally:
            self._site.flights.remove(self._flight)

    async def _run(self, engine: str) -> None:
        while True:
            try:
                await self._at(engine)
            except Broken as broken:
                following = self._after(engine, broken)
                if following is None:
                    await self._end(broken)
                    return
                engine = following
            else:
                if self._stream.done or self._flight.going is None:
                    return
                engine, self._why = self._flight.going, "move"
                self._site.metrics.moves.add("left")
            self._flight.going = None
            self._stream.cut()
            if self._stream.over:
                await self._write(self._stream.closing())
                return

    def _after(self, engine: str, broken: Broken) -> str | None:
        """Where to go on."""
        metrics, calls = self._site.metrics, self._site.calls
        metrics.breaks.add(broken.how)
        stuck = self._stream.stays is not None and not self._stream.over
        if not self._failover or stuck:
            return None
        peers = calls.peers()
        if engine != calls.own and self._why == "move":
            # The engine left for did not take it: the one it came from has its KV still.
            peers = [calls.own, *peers]
        following = self._attempts.broke(engine, broken.how, peers, _now())
        if following is not None:
            self._why = self._why or "failover"
        return following

    async def _end(self, broken: Broken) -> None:
        """Nobody finishes this."""
        self._why = None
        self._site.metrics.failovers.add("poison" if self._attempts.poison else "ended")
        if not self._started:
            raise Broken(broken.how, None if self._attempts.poison else broken.answer, self._blame())
        await self._write(self._stream.giving_up(self._blame()))

    def _blame(self) -> str:
        if self._stream.stays is not None:
            return f"the engine failed, and the answer cannot go on at another one ({self._stream.stays})"
        if self._attempts.poison:
            return f"{self._attempts.deaths} engines failed under this request; it is not tried again"
        return "the engine failed, and no other one is there to go on"

    # -- one engine ---------------------------------------------------------------------------------------------------

    async def _at(self, engine: str) -> None:
        """Ask it, and pass on what it says until it is done or left. Raises Broken, ClientGone."""
        path, body = await self._asked(engine)
        headers = self._headers.copy()
        if path != self._first_path or self._started:
            headers.popall("X-Request-Id", None)
        headers["Content-Type"], headers["Accept-Encoding"] = "application/json", "identity"
        if self._why is not None and engine != self._site.calls.own:
            headers[WHY_HEADER] = self._why
        self._flight.at = engine
        settings, calls, data = self._site.settings, self._site.calls, json.dumps(body).encode()
        with self._in_line(engine, len(data)):
            async with calls.asking(engine, "POST", path, data, headers, settings.first_s) as response:
                if response.status != 200:
                    await self._refused(response)
                    return
                if not self._started:
                    self._started = True
                    await self._sink.start(200, response.headers.copy())
                await self._read(response)

    @contextlib.contextmanager
    def _in_line(self, engine: str, size: int) -> Iterator[None]:
        """Of the engine beside this proxy, until the first token."""
        if engine != self._site.calls.own:
            yield
            return
        stream, line = self._stream, self._site.line
        tokens = len(stream.prompt) + len(stream.tokens) if stream.begun else stream.asked.prompt_tokens
        # What was moved here, or comes back, has its KV here.
        line.join(self._flight, _now(), size=size, tokens=1 if self._brought or self._why == "move" else tokens)
        try:
            yield
        finally:
            line.leave(self._flight, _now())

    async def _asked(self, engine: str) -> tuple[str, dict[str, Any]]:
        """What to ask, and where. Raises Broken."""
        stream = self._stream
        if not stream.begun:
            stream.restart()
            first, self._transfer = stream.asked.first() | self._transfer, {}
            return self._first_path, first
        try:
            stream.go_on(None if stream.clean else await self._text(engine))
        except Stays as stays:
            self._site.metrics.failovers.add("stays")
            raise Broken("failed") from stays
        return COMPLETIONS, stream.rest(await self._room(engine))

    async def _text(self, engine: str) -> str:
        """Of all that was generated, back to the last whole character. Raises Broken, Stays."""
        for _ in range(1 + _MOST_RETREATS):
            text = await text_of(self._flight, self._site, engine)
            if not text.endswith("\ufffd"):
                return text
            self._stream.retreat()
        raise Stays("half-character")

    async def _room(self, engine: str) -> int:
        """Tokens that the model's context leaves. Raises Broken."""
        stream = self._stream
        if stream.asked.limit is not None:
            return 0
        within, authorization = self._site.settings.within_s, self._flight.authorization
        models = await self._site.calls.json(engine, "/v1/models", None, within, authorization)
        length = max((model.get("max_model_len") or 0 for model in models.get("data", ())), default=0)
        return max(1, length - len(stream.prompt) - len(stream.tokens))

    async def _refused(self, response: aiohttp.ClientResponse) -> None:
        """The engine's own answer is the client's, unless another engine may do better."""
        broken = await Broken.by(response)
        if response.status >= 500 or self._started or broken.answer is None:
            raise broken
        self._stream.done = True
        status, headers, body = broken.answer
        await self._sink.start(status, headers)
        await unless_gone(self._sink.write, body)

    async def _read(self, response: aiohttp.ClientResponse) -> None:
        stream, flight, settings = self._stream, self._flight, self._site.settings
        flight.interrupt = response.close
        within = settings.first_s
        while not stream.done:
            try:
                async with asyncio.timeout(within):
                    data = await response.content.readany()
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if flight.going is not None:
                    return
                raise Broken("silent" if isinstance(error, TimeoutError) else "cut") from None
            await flight.running()
            if flight.going is not None:
                return
            try:
                events = stream.feed(data)
            except ValueError:
                raise Broken("failed") from None
            if data:
                self._site.line.begin(self._flight, _now(), len(stream.prompt))
            await self._write(events)
            if stream.failure is not None:
                # The engine's own word, which the client is not told.
                raise Broken("failed")
            if not data and not stream.done:
                raise Broken("cut")
            within = settings.silence_s

    async def _write(self, events: list[bytes]) -> None:
        if not events:
            return
        now = _now()
        self._attempts.running()
        if self._why is not None:
            if self._flight.sent_at is not None:
                self._site.metrics.gap(self._why, now - self._flight.sent_at)
            (self._site.metrics.moves if self._why == "move" else self._site.metrics.failovers).add("went-on")
            self._why = None
        await unless_gone(self._sink.write, b"".join(events))
        self._flight.sent_at = _now()


async def text_of(flight: Flight, site: Site, engine: str) -> str:
    """What the stream's tokens say, by that engine's tokenizer. Raises Broken."""
    before, after = flight.stream.told()
    said = []
    for tokens in (before, before + after):
        body = {"model": flight.stream.asked.body.get("model"), "tokens": tokens}
        answer = await site.calls.json(engine, "/detokenize", body, site.settings.within_s, flight.authorization)
        said.append(str(answer.get("prompt", "")))
    return said[1].removeprefix(said[0])


async def unless_gone(write: Callable[[bytes], Awaitable[None]], data: bytes) -> None:
    """Write to a client. Raises ClientGone, which is no fault of an engine's."""
    try:
        await write(data)
    except (aiohttp.ClientError, OSError) as error:
        raise ClientGone from error


def _now() -> float:
    return asyncio.get_running_loop().time()
