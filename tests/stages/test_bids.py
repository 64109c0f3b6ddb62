"""Agents: who asks, who bids, what a move must save; and nothing is lost, doubled or kept, whatever the links do."""

import random
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from stage_traffic import ENGINE

from picker.stages.agent_state import BidSettings, Membership, OwnState, Resident
from picker.stages.bids import Agent
from picker.stages.messages import (
    Accept,
    Action,
    Adopt,
    Ask,
    Bid,
    Cancel,
    Commit,
    Committed,
    Copy,
    Decline,
    Drop,
    Free,
    Load,
    Message,
    Offer,
    Output,
    Pause,
    Refused,
    Reserve,
    Resume,
    Stop,
)

A_STAGE = Membership(pool=frozenset({"b", "c"}), stage=("b",), neighbours=("c",))
LOAD = 1_000


def resident(name: str = "r", length: float = 1000.0, left: float = 500.0, movable: bool = True) -> Resident:
    return Resident(name, length, LOAD, left, movable)


def state(*residents: Resident, free: int = 100_000) -> OwnState:
    return OwnState(residents, free, 400_000)


def agent(members: Membership = A_STAGE, name: str = "a") -> Agent:
    made = Agent(name, ENGINE)
    made.follow(members, 0.0)
    return made


def said(outputs: list[Output], kind: type) -> list[Output]:
    return [output for output in outputs if isinstance(output, kind)]


def to_commit(source: Agent, free: bool = True) -> None:
    """Bring the source to its first commit of request r towards b, at 0.1 s."""
    source.tick(state(resident(), free=1_000), 0.0)
    source.receive(Bid("b", "a", 0, 0.1, 0.0), 0.01)
    source.tick(state(resident(), free=1_000), 0.06)
    source.receive(Accept("b", "a", 0), 0.07)
    assert said(source.copied(0, True, 0.1), Commit)


# -- who asks whom ----------------------------------------------------------------------------------------------------


def test_an_engine_at_ease_asks_nobody() -> None:
    assert not said(agent().tick(state(resident()), 0.0), Ask)


def test_a_full_engine_asks_its_own_stage_first_and_the_neighbours_next() -> None:
    full, asker = state(resident(), free=1_000), agent()

    first = said(asker.tick(full, 0.0), Ask)
    asker.tick(full, 0.1)
    then = said(asker.tick(full, 1.2), Ask)

    assert [ask.to for ask in first] == ["b"]
    assert [ask.to for ask in then] == ["c"]


def test_an_engine_much_slower_than_its_peers_asks() -> None:
    asker = agent()
    asker.receive(Load("b", "a", 7.0), 0.0)

    busy = state(*(resident(str(i), 60_000.0) for i in range(8)))

    assert said(asker.tick(busy, 0.0), Ask)


def test_what_has_outgrown_its_stage_asks_the_next_one() -> None:
    asker = agent(replace(A_STAGE, high=4096.0, following=("c",)))

    [ask] = said(asker.tick(state(resident(length=1000.0), resident("long", 5000.0)), 0.0), Ask)

    assert (ask.to, ask.length) == ("c", 5000.0)


def test_what_cannot_be_moved_is_left_alone() -> None:
    assert not said(agent().tick(state(resident(movable=False), free=1_000), 0.0), Ask)


def test_without_a_plan_nobody_is_asked() -> None:
    alone = agent(Membership(pool=frozenset({"b", "c"})))

    assert not said(alone.tick(state(resident(), free=1_000), 0.0), Ask)


# -- bids and offers --------------------------------------------------------------------------------------------------


def test_a_bid_says_what_a_step_would_take_and_what_it_costs_those_who_are_there() -> None:
    bidder = agent(Membership(pool=frozenset({"b"})))
    bidder.tick(state(resident("x", 2000.0), resident("y", 2000.0)), 0.0)

    [bid] = bidder.receive(Ask("b", "a", 7, 2000.0, LOAD), 0.0)

    assert bid.ask == 7
    assert bid.step_ms == pytest.approx(6.0 + 3 * (0.02 + 40.0 * 2000 / 1e6))
    assert bid.burden_ms == pytest.approx(2 * (0.02 + 40.0 * 2000 / 1e6))


def test_an_engine_without_room_or_with_worries_of_its_own_does_not_bid() -> None:
    full, asking = agent(), agent()
    full.tick(state(free=LOAD - 1), 0.0)
    asking.tick(state(resident(), free=10_000), 0.0)

    assert full.receive(Ask("b", "a", 0, 10.0, LOAD), 0.0) == []
    assert asking.receive(Ask("b", "a", 0, 10.0, LOAD), 0.0) == []


def test_the_best_bid_gets_the_offer() -> None:
    source = agent(replace(A_STAGE, stage=("b", "c")))
    source.tick(state(resident(), free=1_000), 0.0)
    source.receive(Bid("b", "a", 0, 5.0, 0.5), 0.01)
    source.receive(Bid("c", "a", 0, 5.0, 0.1), 0.01)

    [offer] = said(source.tick(state(resident(), free=1_000), 0.06), Offer)

    assert offer.to == "c"


def test_a_move_that_saves_less_than_it_costs_is_not_made() -> None:
    for left, offers in ((5.0, 0), (500.0, 1)):
        source, full = agent(), state(resident(left=left), free=1_000)
        source.tick(full, 0.0)
        source.receive(Bid("b", "a", 0, 4.0, 0.0), 0.01)
        assert len(said(source.tick(full, 0.06), Offer)) == offers


def test_offers_that_cross_end_both() -> None:
    source = agent()
    source.tick(state(resident(), free=10_000), 0.0)
    source.receive(Bid("b", "a", 0, 0.1, 0.0), 0.01)
    source.tick(state(resident(), free=10_000), 0.06)

    assert said(source.receive(Offer("b", "a", 3, 3, "other", LOAD), 0.07), Decline)
    assert source.receive(Decline("b", "a", 0), 0.08) == []
    assert not source.outgoing
    assert source.incoming.reserved_tokens == 0


# -- a transfer -------------------------------------------------------------------------------------------------------


def test_a_request_stands_still_from_its_first_commit_until_the_answer() -> None:
    source = agent()
    to_commit(source)

    assert source.over("r", 0.2) == []
    assert said(source.tick(state(), 0.4), Commit)
    assert said(source.tick(state(), 0.7), Commit)
    assert said(source.receive(Committed("b", "a", 0), 0.8), Drop)
    assert not source.outgoing


def test_a_refused_or_orphaned_commit_lets_the_request_run_on() -> None:
    refused, orphaned = agent(), agent()
    to_commit(refused)
    to_commit(orphaned)

    assert said(refused.receive(Refused("b", "a", 0), 0.2), Resume)
    assert said(orphaned.follow(replace(A_STAGE, pool=frozenset({"c"})), 0.2), Resume)


def test_a_plan_that_changes_does_not_end_a_transfer() -> None:
    source = agent()
    to_commit(source)

    assert source.follow(Membership(pool=A_STAGE.pool), 0.2) == []
    assert said(source.tick(state(), 0.5), Commit)


def test_an_acceptance_that_comes_too_late_is_cancelled() -> None:
    source = agent()
    source.tick(state(resident(), free=1_000), 0.0)
    source.receive(Bid("b", "a", 0, 0.1, 0.0), 0.01)
    source.tick(state(resident(), free=1_000), 0.06)

    assert said(source.receive(Accept("b", "a", 0), 5.0), Cancel)
    assert said(source.receive(Accept("b", "a", 0), 5.1), Cancel)


def test_a_request_that_ends_while_it_is_copied_frees_the_other_side() -> None:
    source = agent()
    source.tick(state(resident(), free=1_000), 0.0)
    source.receive(Bid("b", "a", 0, 0.1, 0.0), 0.01)
    source.tick(state(resident(), free=1_000), 0.06)
    source.receive(Accept("b", "a", 0), 0.07)

    ended = source.over("r", 0.08)

    assert said(ended, Stop)
    assert said(ended, Cancel)


def test_kv_is_reserved_once_for_an_offer_that_comes_twice_and_freed_by_the_lease() -> None:
    target = agent()
    target.tick(state(), 0.0)
    offer = Offer("b", "a", 5, 5, "r", LOAD)

    outputs = target.receive(offer, 0.0) + target.receive(offer, 0.1) + target.tick(state(), 60.0)
    late = target.receive(offer, 61.0) + target.receive(Commit("b", "a", 5, 5), 62.0)

    assert len(said(outputs, Reserve)) == len(said(outputs, Free)) == 1
    assert len(said(outputs, Accept)) == 2
    assert [type(output) for output in late] == [Decline, Refused]


def test_a_cancel_that_overtakes_its_offer_is_remembered() -> None:
    target = agent()
    target.tick(state(), 0.0)

    target.receive(Cancel("b", "a", 5), 0.0)

    assert said(target.receive(Offer("b", "a", 5, 5, "r", LOAD), 0.1), Decline)


def test_strangers_are_not_heard() -> None:
    target = agent()
    target.tick(state(), 0.0)

    assert target.receive(Offer("mallory", "a", 0, 0, "r", LOAD), 0.0) == []
    assert target.receive(Offer("b", "someone-else", 0, 0, "r", LOAD), 0.0) == []


# -- everything at once -----------------------------------------------------------------------------------------------

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
