"""The agent of one engine at work: what it hears of the engine, what it says to peers, and what is done of its actions.

Stock vLLM has no copy of a running request's KV. A copy here is a prefill of the tokens so far at the other engine,
while the request runs on: pulled through the engine's connector, or computed. What is left at the change is the part
generated since.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterable
from dataclasses import replace

import aiohttp
import structlog
from multidict import CIMultiDict

from picker.engines.metrics import BadMetrics, parse
from picker.handoff import wire
from picker.handoff.asked import TRANSFER
from picker.handoff.members import Members
from picker.server.handoff_calls import Broken
from picker.server.handoff_flights import Flight
from picker.server.handoff_relay import COMPLETIONS, Site, text_of
from picker.stages.agent_state import BidSettings, OwnState
from picker.stages.bids import Agent
from picker.stages.messages import Copy, Drop, Message, Output, Pause, Resume, Stop

log = structlog.get_logger(__name__)

TICK_S = 0.1
SCRAPE_S = 1.0
MESSAGES = "/handoff/messages"
_MOST_CALLS = 256
_EXPORT = {"do_remote_decode": True, "do_remote_prefill": False}


class AgentAtWork:
    """`pull` takes KV through the engine's connector. Without a step model in the membership it only declines."""

    def __init__(self, site: Site, settings: BidSettings, *, pull: bool) -> None:
        self._site, self._least_ms, self._pull = site, settings.move_ms, pull
        self._settings = settings
        self._members = Members()
        self._agent: Agent | None = None
        self.wait_ms = 0.0
        """How long a newcomer would wait for its first step, when it was last looked."""
        self._copies: dict[int, asyncio.Task[None]] = {}
        self._going: dict[int, str] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._kv_tokens = self._kv_free = 0
        self._others = 0.0
        """Who wait at the engine without having come this way, when it was last asked."""
        self._scraped = -SCRAPE_S
        site.flights.on_end = self._over

    def follow(self, members: Members) -> None:
        """The plan or the pool changed."""
        self._members = members
        if members.step_model is None and self._agent is None:
            return
        now = self._now()
        if self._agent is None and members.step_model is not None:
            # Numbers go up from the time of day, so that no earlier agent of this name had them.
            self._agent = Agent(self._name, members.step_model, self._settings, first=int(time.time() * 1e3))
        elif self._agent is not None and members.step_model is not None:
            self._agent.model = members.step_model
        if self._agent is not None:
            self._do(self._agent.follow(members.membership(self._name), now))

    def receive(self, messages: Iterable[Message]) -> None:
        """From peers' proxies."""
        for message in messages:
            if self._agent is not None:
                self._do(self._agent.receive(message, self._now()))

    async def run(self) -> None:
        """Tick for ever. Of failures in a row the first is told."""
        failed = False
        while True:
            if self._agent is not None:
                try:
                    await self._tick(self._agent)
                    failed = False
                except Exception:
                    # Streams go on without an agent.
                    if not failed:
                        log.exception("the agent failed")
                    failed = True
            await asyncio.sleep(TICK_S)

    async def _tick(self, agent: Agent) -> None:
        if self._now() - self._scraped >= SCRAPE_S:
            self._scraped = self._now()
            await self._scrape()
        median = self._site.metrics.gaps["move"].quantile(0.5)
        agent.settings = replace(self._settings, move_ms=max(self._least_ms, 1e3 * (median or 0.0)))
        residents = tuple(flight.resident() for flight in self._site.flights.here() if flight.stream.begun)
        self._site.line.price(agent.model, [resident.length for resident in residents])
        self.wait_ms = self._site.line.wait_ms(self._now(), self._others)
        self._do(agent.tick(OwnState(residents, self._kv_free, self._kv_tokens, self.wait_ms), self._now()))

    def _over(self, request: str) -> None:
        if self._agent is not None:
            self._do(self._agent.over(request, self._now()))

    # -- what it asks for ----------------------------------------------------------------------------------------------

    def _do(self, outputs: list[Output]) -> None:
        sent: dict[str, list[Message]] = {}
        for output in outputs:
            if isinstance(output, Message):
                sent.setdefault(output.to, []).append(output)
            else:
                self._act(output)
        for peer, messages in sent.items():
            if len(self._calls) < _MOST_CALLS:
                self._keep(asyncio.create_task(self._site.calls.tell(peer, MESSAGES, wire.encode(messages))))

    def _act(self, action: Output) -> None:
        """Reservations are the agent's own account; the engine takes what is adopted when it comes."""
        match action:
            case Copy(number=number, request=request, to=to):
                self._going[number] = to
                self._copies[number] = asyncio.create_task(self._copy(number, request, to))
            case Stop(number=number):
                if (copy := self._copies.pop(number, None)) is not None:
                    copy.cancel()
                self._going.pop(number, None)
            case Pause(request=request):
                if (flight := self._site.flights.find(request)) is not None:
                    flight.pause()
            case Resume(request=request, number=number):
                self._going.pop(number, None)
                if (flight := self._site.flights.find(request)) is not None:
                    flight.resume()
            case Drop(request=request, number=number):
                flight, to = self._site.flights.find(request), self._going.pop(number, "")
                left = flight is not None and bool(to) and flight.leave(to)
                self._site.metrics.moves.add("ordered" if left else "too-late")

    async def _copy(self, number: int, request: str, to: str) -> None:
        flight = self._site.flights.find(request)
        done = flight is not None and flight.ready and await self._brought(flight, to)
        self._copies.pop(number, None)
        if self._agent is not None:
            self._do(self._agent.copied(number, done, self._now()))

    async def _brought(self, flight: Flight, to: str) -> bool:
        """The other engine has the KV of the tokens so far."""
        stream, calls, within = flight.stream, self._site.calls, self._settings.copy_s
        body = stream.asked.once(stream.prompt, stream.tokens)
        way = "pull" if self._pull else "compute"
        try:
            if not stream.clean and not stream.agrees(await text_of(flight, self._site, to)):
                return False
            if self._pull:
                export = body | {TRANSFER: _EXPORT}
                answer = await calls.json(calls.own, COMPLETIONS, export, within, flight.authorization)
                body = body | {TRANSFER: answer[TRANSFER]}
            await calls.json(to, COMPLETIONS, body, within, flight.authorization)
        except (Broken, KeyError, TypeError):
            self._site.metrics.copies.add(way, "failed")
            return False
        self._site.metrics.copies.add(way, "done")
        return True

    # -- the engine ----------------------------------------------------------------------------------------------------

    async def _scrape(self) -> None:
        """KV of the engine, in tokens; none where it does not say, and nobody is taken then. And who waits there."""
        self._kv_tokens = self._kv_free = 0
        self._others = 0.0
        calls = self._site.calls
        with contextlib.suppress(Broken, BadMetrics, aiohttp.ClientError, OSError, TimeoutError):
            async with (
                asyncio.timeout(SCRAPE_S),
                calls.asking(calls.own, "GET", "/metrics", None, CIMultiDict()) as page,
            ):
                sample = parse(await page.read(), "vllm")
            self._others = max(0.0, (sample.waiting or 0.0) - len(self._site.line))
            if sample.block_size and sample.num_blocks and sample.kv_usage is not None:
                self._kv_tokens = int(sample.block_size * sample.num_blocks)
                self._kv_free = int(self._kv_tokens * (1.0 - sample.kv_usage))

    def _keep(self, call: asyncio.Task[None]) -> None:
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    @property
    def _name(self) -> str:
        return self._site.calls.own

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
