"""Agents over links that lose, double and reorder: nothing is lost, doubled or kept."""

import random
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from small_agents import LOAD
from stage_traffic import ENGINE

from picker.stages.agent_state import BidSettings, Membership, OwnState, Resident
from picker.stages.bids import Agent
from picker.stages.messages import (
    Action,
    Adopt,
    Copy,
    Drop,
    Free,
    Message,
    Output,
    Pause,
    Reserve,
    Resume,
    Stop,
)

NAMES = ("a", "b", "c")
HIGH = {"a": 4096.0, "b": 20_000.0, "c": float("inf")}
QUICK = BidSettings(move_ms=0.0, rest_s=0.0, again_s=0.1)


@dataclass
class Engine:
    agent: Agent
    running: dict[str, float] = field(default_factory=dict)
    paused: dict[str, float] = field(default_factory=dict)
    reserved: Counter[tuple[str, int]] = field(default_factory=Counter)
    copying: dict[int, str] = field(default_factory=dict)


class LossyPool(RuleBasedStateMachine):
    """Three engines whose messages are lost, doubled, reordered and delayed, and which fall silent and are removed."""

    @initialize()
    def start(self) -> None:
        self.now = 0.0
        self.engines = {name: Engine(Agent(name, ENGINE, QUICK)) for name in NAMES}
        self.wire: list[Message] = []
        self.silent: set[str] = set()
        self.requests: dict[str, float] = {}
        self.born = 0
        self.gather()
        for name, length in (("a", 5000.0), ("a", 500.0), ("a", 30_000.0), ("b", 60_000.0), ("c", 70_000.0)):
            self.arrive(name, length)

    def gather(self) -> None:
        pool = frozenset(self.engines)
        for name, engine in self.engines.items():
            others = tuple(sorted(pool - {name}))
            longer = tuple(other for other in others if other > name)
            members = Membership(pool - {name}, HIGH[name], (), others, longer)
            self.done(name, engine.agent.follow(members, self.now))

    def done(self, name: str, outputs: list[Output]) -> None:
        engine = self.engines[name]
        for output in outputs:
            match output:
                case Message():
                    if name not in self.silent:
                        self.wire.append(output)
                case Reserve(source, number, kv_tokens):
                    assert (source, number) not in engine.reserved
                    engine.reserved[source, number] = kv_tokens
                case Free(source, number):
                    del engine.reserved[source, number]
                case Adopt(source, number, request):
                    del engine.reserved[source, number]
                    assert request not in engine.running
                    engine.running[request] = self.requests[request]
                case Copy(_, number, request, _):
                    assert request not in engine.copying.values()
                    engine.copying[number] = request
                case Stop(_, number):
                    engine.copying.pop(number, None)
                case Pause(_, _, request):
                    engine.paused[request] = engine.running.pop(request)
                case Resume(_, _, request):
                    engine.running[request] = engine.paused.pop(request)
                case Drop(_, _, request):
                    del engine.paused[request]
                case Action():
                    raise AssertionError(output)

    def tick(self, name: str) -> None:
        engine = self.engines[name]
        residents = tuple(Resident(r, length, LOAD, 500.0) for r, length in engine.running.items())
        free = 40_000 - LOAD * (len(engine.running) + len(engine.paused))
        self.done(name, engine.agent.tick(OwnState(residents, free, 40_000), self.now))

    def deliver(self, message: Message) -> None:
        if message.to in self.engines and not {message.to, message.sender} & self.silent:
            self.done(message.to, self.engines[message.to].agent.receive(message, self.now))

    @rule(engine=st.sampled_from(NAMES), length=st.sampled_from([500.0, 3000.0, 9000.0, 60_000.0]))
    def arrive(self, engine: str, length: float) -> None:
        if engine in self.engines and len(self.requests) < 12:
            name = f"r{self.born}"
            self.born += 1
            self.requests[name] = length
            self.engines[engine].running[name] = length

    @rule(seconds=st.sampled_from([0.0, 0.06, 0.06, 0.15, 0.3, 2.0, 30.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for name in list(self.engines):
            self.tick(name)

    @rule(
        seed=st.integers(0, 2**32),
        rounds=st.integers(1, 40),
        lost=st.sampled_from([0.0, 0.0, 0.2, 0.5]),
        doubled=st.sampled_from([0.0, 0.3]),
        late=st.sampled_from([0.0, 0.3]),
        fine=st.sampled_from([0.0, 0.8, 1.0]),
    )
    def work(self, seed: int, rounds: int, lost: float, doubled: float, late: float, fine: float) -> None:
        """Time goes on in small steps; messages go their way in any order, or do not; copies end, well or not."""
        draw = random.Random(seed)
        for _ in range(rounds):
            for name in list(self.engines):
                self.tick(name)
            self.now += draw.choice([0.01, 0.06, 0.06, 0.25])
            for _ in range(4):
                waiting, self.wire = self.wire, []
                draw.shuffle(waiting)
                for message in waiting:
                    if draw.random() < lost:
                        continue
                    if draw.random() < max(late, doubled):
                        self.wire.append(message)
                    if draw.random() >= late:
                        self.deliver(message)
                self.no_request_runs_twice_or_is_lost()
                self.kv_is_reserved_for_open_transfers_and_for_nothing_else()
            for name in list(self.engines):
                if draw.random() < 0.4:
                    self.finish_copy(name, draw.random() < fine)

    def finish_copy(self, engine: str, fine: bool) -> None:
        if engine in self.engines and self.engines[engine].copying:
            number = min(self.engines[engine].copying)
            del self.engines[engine].copying[number]
            self.done(engine, self.engines[engine].agent.copied(number, fine, self.now))

    @rule(engine=st.sampled_from(NAMES))
    def end_request(self, engine: str) -> None:
        if engine in self.engines and self.engines[engine].running:
            request = min(self.engines[engine].running)
            del self.engines[engine].running[request]
            del self.requests[request]
            self.done(engine, self.engines[engine].agent.over(request, self.now))

    @rule(engine=st.sampled_from(NAMES))
    def fall_silent(self, engine: str) -> None:
        self.silent.add(engine)

    @rule(engine=st.sampled_from(NAMES))
    def speak_again(self, engine: str) -> None:
        self.silent.discard(engine)

    @rule(engine=st.sampled_from(NAMES))
    def die(self, engine: str) -> None:
        """With what runs there; what it had not yet taken, and what is nowhere else, is its loss alone."""
        if len(self.engines) < 3 or engine not in self.engines:
            return
        dead = self.engines.pop(engine)
        self.silent.discard(engine)
        elsewhere = {r for other in self.engines.values() for r in (*other.running, *other.paused)}
        for request in {*dead.running, *dead.paused} - elsewhere:
            del self.requests[request]
        self.gather()

    @invariant()
    def kv_is_reserved_for_open_transfers_and_for_nothing_else(self) -> None:
        for engine in getattr(self, "engines", {}).values():
            incoming = engine.agent.incoming
            assert {key: kept.kv_tokens for key, kept in incoming.open.items()} == dict(engine.reserved)
            assert incoming.reserved_tokens == sum(engine.reserved.values())

    @invariant()
    def no_request_runs_twice_or_is_lost(self) -> None:
        engines = getattr(self, "engines", {}).values()
        running = Counter(request for engine in engines for request in engine.running)
        assert all(number == 1 for number in running.values())
        held = running.keys() | {request for engine in engines for request in engine.paused}
        assert held >= getattr(self, "requests", {}).keys()

    @invariant()
    def no_request_is_in_two_transfers_of_one_engine(self) -> None:
        for engine in getattr(self, "engines", {}).values():
            moving = [transfer.request for transfer in engine.agent.outgoing.values()]
            assert len(moving) == len(set(moving))
            assert len(moving) <= QUICK.transfers

    def teardown(self) -> None:
        """The links heal; nobody is asked for anything new; every transfer ends."""
        if not hasattr(self, "engines"):
            return
        self.silent.clear()
        for name, engine in self.engines.items():
            pool = frozenset(self.engines) - {name}
            self.done(name, engine.agent.follow(Membership(pool), self.now))
        for _ in range(6):
            self.now += 20.0
            for name in self.engines:
                self.tick(name)
            for _ in range(4):
                waiting, self.wire = self.wire, []
                for message in waiting:
                    self.deliver(message)
        for engine in self.engines.values():
            assert not engine.reserved
            assert not engine.agent.outgoing
            assert not engine.paused
        self.no_request_runs_twice_or_is_lost()
        assert {r for engine in self.engines.values() for r in engine.running} == self.requests.keys()


TestLossyPool = LossyPool.TestCase
TestLossyPool.settings = settings(max_examples=150, stateful_step_count=20, deadline=None)
