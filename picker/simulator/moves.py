"""Agents of `picker/stages` at work between simulated engines: their messages take time, their actions take effect."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from picker.simulator.clock import Clock
from picker.simulator.migration import Links, Migration, Moving, Tally, kv_bytes, memberships
from picker.simulator.sequence import EngineRequest, Refused, Sequence
from picker.simulator.station import Station
from picker.simulator.streams import Listener, Streams
from picker.stages.agent_state import BidSettings, OwnState, Resident, expected_tokens, prefill_ms
from picker.stages.bids import Agent
from picker.stages.messages import Copy, Drop, Message, Offer, Output, Resume, Stop
from picker.stages.step_model import StepModel

TICK_MS = 100.0
_GOLDEN = 0.6180339887


@dataclass(frozen=True, slots=True)
class _Between:
    """A request that has left one engine for another."""

    source: Station
    to: Station
    rest: EngineRequest
    listener: Listener
    since_ms: float


class Moves:
    """One agent per engine of the pool, by address. Call `pool` when the pool changes, `follow` once a second, and
    `over` when a request has ended."""

    def __init__(self, clock: Clock, streams: Streams, settings: Migration, policy: Moving) -> None:
        self.tally = Tally()
        self._clock, self._streams, self._settings, self._policy = clock, streams, settings, policy
        self._bids = BidSettings(transfers=settings.transfers, computes=settings.kv == "compute")
        self._links = Links(settings.link_gbps)
        self._stations: dict[str, Station] = {}
        self._slots: dict[int, str] = {}
        self._agents: dict[str, Agent] = {}
        self._going: dict[tuple[str, int], Station] = {}
        """Where to, by the agent of the source and the transfer's number."""
        self._prompts: dict[str, int] = {}
        """What requests that moved had as their prompt at first."""
        self._followed: tuple[object, ...] = ()

    # -- what it is told ----------------------------------------------------------------------------------------------

    def pool(self, stations: Mapping[int, Station]) -> None:
        """The pool, by slot."""
        self._slots = {slot: station.address for slot, station in stations.items()}
        here = {station.address: station for station in stations.values()}
        for gone in self._agents.keys() - here.keys():
            del self._agents[gone]
            self._going = {key: to for key, to in self._going.items() if key[0] != gone}
        self._stations |= here
        self._followed = ()
        self.follow()

    def follow(self) -> None:
        """Tell the agents where the plan changed; those of engines without a step model come when there is one."""
        policy = self._policy
        if self._followed == (policy.plan, policy.bounds):
            return
        self._followed = policy.plan, policy.bounds
        for slot, part in memberships(policy.plan, policy.bounds, self._slots).items():
            name, model = self._slots[slot], policy.models.get(slot)
            agent = self._agents.get(name)
            if agent is None and model is None:
                continue
            if agent is None:
                assert model is not None
                agent = self._agents[name] = Agent(name, model, self._bids)
                # Agents tick one after another, not all at once.
                self._clock.at(self._clock.now + TICK_MS * (len(self._agents) * _GOLDEN % 1), self._tick, agent)
            agent.model = model or agent.model
            self._do(agent, agent.follow(part, self._now_s))

    def over(self, request: str) -> None:
        """It has ended, wherever it ran."""
        self._prompts.pop(request, None)
        for agent in list(self._agents.values()):
            self._do(agent, agent.over(request, self._now_s))

    # -- agents -------------------------------------------------------------------------------------------------------

    def _tick(self, agent: Agent) -> None:
        if self._agents.get(agent.name) is not agent:
            return
        self._clock.at(self._clock.now + TICK_MS, self._tick, agent)
        self._do(agent, agent.tick(self._state(self._stations[agent.name], agent.model), self._now_s))

    def _state(self, station: Station, model: StepModel) -> OwnState:
        engine, size = station.engine, station.engine.limits.block_size
        if not station.alive:
            return OwnState((), 0, 0)
        station.settle(self._clock.now)
        residents = tuple(
            Resident(s.request.id, float(s.known), s.held * size, self._expected(s))
            for s in engine.running
            if s.generated
        )
        owed = engine.owed()
        free = engine.pool.free * size - sum(new for _, new in owed)
        wait = sum(prefill_ms(model, new, s.known) for s, new in owed)
        return OwnState(residents, max(0, free), engine.pool.size * size, wait)

    def _expected(self, sequence: Sequence) -> float:
        prompt = self._prompts.get(sequence.request.id, sequence.request.prompt_tokens)
        return float(expected_tokens(sequence.known - prompt))

    def _receive(self, message: Message) -> None:
        agent = self._agents.get(message.to)
        if agent is not None:
            self._do(agent, agent.receive(message, self._now_s))

    def _do(self, agent: Agent, outputs: list[Output]) -> None:
        for output in outputs:
            if isinstance(output, Message):
                self.tally.offered += isinstance(output, Offer)
                self._clock.at(self._clock.now + self._settings.message_ms, self._receive, output)
            else:
                self._act(agent, output)

    def _act(self, agent: Agent, action: Output) -> None:
        """Reservations are the agents' own account. Its engine goes on with a request that the agents take for standing
        still; only what comes of it waits."""
        match action:
            case Copy(number=number, request=request, to=to):
                self._copy(agent, number, request, self._stations[to])
            case Stop(number=number):
                self._going.pop((agent.name, number), None)
                self.tally.given_up += 1
            case Resume(number=number):
                self._going.pop((agent.name, number), None)
                self.tally.resumed += 1
            case Drop(number=number, request=request):
                self._leave(self._stations[agent.name], request, self._going.pop((agent.name, number)))

    # -- copies -------------------------------------------------------------------------------------------------------

    def _copy(self, agent: Agent, number: int, request: str, to: Station) -> None:
        here = self._stations[agent.name]
        here.settle(self._clock.now)
        sequence = here.engine.find(request)
        key = agent.name, number
        self._going[key] = to
        if sequence is None or not sequence.computed or not here.alive or not to.alive:
            self._copied(agent, number, False)
            return
        rest = sequence.rest(here.engine.limits.block_size)
        if self._settings.kv == "compute":
            asked = EngineRequest(f"{request} copied {agent.name} {number}", rest.prompt_tokens, 1, rest.hashes)
            try:
                self._streams.submit(to, asked, partial(self._computed, agent, number))
            except Refused:
                self._copied(agent, number, False)
            return
        size = float(sequence.computed * kv_bytes(here))
        self.tally.bytes += size
        done = self._links.transfer(here, to, size, self._clock.now)
        self._clock.at(done, self._pulled, (agent, number, here, to, rest, sequence.computed))

    def _pulled(self, pull: tuple[Agent, int, Station, Station, EngineRequest, int]) -> None:
        agent, number, source, to, rest, tokens = pull
        if (agent.name, number) in self._going:
            self._copied(agent, number, source.alive and self._streams.bring(to, rest, tokens))

    def _computed(self, agent: Agent, number: int, sequence: Sequence | None) -> None:
        if (agent.name, number) in self._going:
            self._copied(agent, number, sequence is not None)

    def _copied(self, agent: Agent, number: int, done: bool) -> None:
        if not done:
            del self._going[agent.name, number]
            self.tally.given_up += 1
        self._do(agent, agent.copied(number, done, self._now_s))

    # -- the change ---------------------------------------------------------------------------------------------------

    def _leave(self, here: Station, request: str, to: Station) -> None:
        """Towards its next engine, if it has not ended meanwhile."""
        taken = self._streams.withdraw(here, request)
        if taken is not None:
            sequence, listener = taken
            self.tally.moved += 1
            self._prompts.setdefault(request, sequence.request.prompt_tokens)
            rest = sequence.rest(here.engine.limits.block_size)
            between = _Between(here, to, rest, listener, self._clock.now)
            self._clock.at(self._clock.now + self._settings.handover_ms, self._go_on, between)

    def _go_on(self, between: _Between) -> None:
        """At the other engine, or where it came from if that one cannot."""
        told = False

        def heard(sequence: Sequence | None) -> None:
            nonlocal told
            if not told:
                self.tally.gaps_ms.append(self._clock.now - between.since_ms)
            told = True
            between.listener(sequence)

        for place in (between.to, between.source):
            if place.alive:
                with suppress(Refused):
                    self._streams.submit(place, between.rest, heard, ahead=self._settings.ahead)
                    return
        between.listener(None)

    @property
    def _now_s(self) -> float:
        return self._clock.now / 1e3
