"""What replicas tell each other: counts within one message, and nothing that outlives who counted it."""

from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picker.engines import ledger as column
from picker.engines.ledger import Ledger
from picker.pool.view import Endpoint, Pool
from picker.shared.flights import SharedFlights, local_flights
from picker.shared.mirror import key_of
from picker.shared.replicas import MOST_BATCHES, BadMessage, Listener, Placement, Teller

ENGINES = [Endpoint(f"10.0.0.{i}:8000") for i in range(3)]


@dataclass
class Replica:
    """One picker's ledger among others; `ahead` is by how much its clock is."""

    name: str
    order: list[Endpoint] = field(default_factory=lambda: ENGINES)
    ahead: float = 0.0
    siblings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        own, blocks = local_flights(), [local_flights() for _ in range(2)]
        flights = SharedFlights(own, blocks)
        self.view = Pool().replace(self.order).view
        self.teller, self.listener = Teller(self.name, own), Listener(self.name, self.siblings, blocks)
        self.ledger = Ledger(sharing=flights)
        for follows in (flights, self.teller):
            follows.follow(self.view, 3)

    def picks(self, flight: int, engine: int, now: float = 0.0) -> None:
        slot = int(self.view.slots[self.order.index(ENGINES[engine])])
        self.ledger.reserve(flight, slot, 100, 300, now + self.ahead)

    def tells(self, *others: "Replica", now: float = 1.0, whole: bool = False) -> list[Placement]:
        text = self.teller.message(now + self.ahead, whole=whole)
        return [p for other in others if text for p in other.listener.hear(text, now + other.ahead).placements]

    def row(self, engine: int, which: int) -> float:
        slot = int(self.view.slots[self.order.index(ENGINES[engine])])
        return float(self.ledger.seen(np.array([slot]))[which, 0])


def test_what_one_has_in_flight_weighs_on_the_other_whatever_its_slots_and_its_clock() -> None:
    one, two = Replica("one"), Replica("two", ENGINES[::-1], ahead=1000.0)
    one.picks(1, engine=0, now=0.5)
    one.tells(two)
    assert two.row(0, column.IN_FLIGHT) == 1
    assert two.row(0, column.QUEUED_TOKENS) == 100
    assert two.row(0, column.HEAD_SINCE) == pytest.approx(1000.5)
    one.ledger.release(1)
    one.tells(two)
    assert two.row(0, column.IN_FLIGHT) == 0


def test_only_changes_are_told_and_a_whole_message_mends_what_was_missed() -> None:
    one, two = Replica("one"), Replica("two")
    one.picks(1, engine=0)
    one.tells()  # and nobody heard it
    assert one.teller.message(1.0, whole=False) is None
    one.tells(two, whole=True)
    assert two.row(0, column.IN_FLIGHT) == 1
    one.ledger.release(1)
    one.tells()
    one.tells(two, whole=True)
    assert two.row(0, column.IN_FLIGHT) == 0


def test_who_falls_silent_counts_nothing_and_makes_room() -> None:
    one = Replica("one")
    others = [Replica(f"other {i}") for i in range(3)]
    for other in others:
        other.picks(1, engine=0)
        other.tells(one, whole=True)
    assert (len(one.listener), one.row(0, column.IN_FLIGHT)) == (2, 2)
    others[1].tells(one, now=9.0, whole=True)
    assert one.listener.forget_silent(5.0) == ["other 0"]
    assert one.row(0, column.IN_FLIGHT) == 1
    others[2].tells(one, now=9.0, whole=True)
    assert one.row(0, column.IN_FLIGHT) == 2


def test_nobody_counts_itself_or_the_workers_beside_it_a_second_time() -> None:
    one, beside = Replica("one", siblings=("one", "beside")), Replica("beside", siblings=("one", "beside"))
    for each in (one, beside):
        each.picks(1, engine=1)
        each.teller.placed(1, exact=True, chain=np.arange(1, 5, dtype=np.uint64))
        assert each.tells(one) == []
    assert one.row(1, column.IN_FLIGHT) == 1


def test_where_a_prompt_was_placed_is_told_with_its_blocks() -> None:
    one, other = Replica("one"), Replica("other")
    other.teller.placed(1, exact=True, chain=np.arange(1, 5, dtype=np.uint64))
    (placement,) = other.tells(one)
    assert (placement.key, placement.exact, placement.blocks.tolist()) == (int(key_of(ENGINES[1])), True, [1, 2, 3, 4])


def test_each_placement_of_another_replica_is_taken_in_by_one_of_the_workers() -> None:
    siblings = ("0", "1", "2")
    workers, other = [Replica(name, siblings=siblings) for name in siblings], Replica("other")
    for last in range(100):
        other.teller.placed(0, exact=False, chain=np.array([7, last], np.uint64))
    text = other.teller.message(1.0, whole=False)
    assert text is not None
    taken = [[int(p.blocks[-1]) for p in worker.listener.hear(text, 1.0).placements] for worker in workers]
    assert sorted(last for each in taken for last in each) == list(range(100))
    assert all(taken)


def test_what_came_of_requests_is_told_once_with_the_keys_of_their_endpoints() -> None:
    one, two = Replica("one"), Replica("two", ENGINES[::-1])
    one.teller.finished(7, np.array([0, 2, 0]), b"three rows")
    text = one.teller.message(1.0, whole=False)
    assert text is not None
    (finished,) = two.listener.hear(text, 1.0).finished
    assert finished.keys.tolist() == [int(key_of(ENGINES[i])) for i in (0, 2, 0)]
    assert (finished.layout, finished.rows) == (7, b"three rows")
    assert one.teller.message(1.0, whole=False) is None


def test_an_older_replica_that_tells_of_no_finished_requests_is_heard() -> None:
    text = msgspec.msgpack.encode(["older", True, [], []])
    assert Replica("one").listener.hear(text, 1.0).finished == []


def test_what_waits_to_be_told_is_bounded() -> None:
    one = Replica("one")
    for i in range(3 * MOST_BATCHES):
        one.teller.finished(i, np.array([0]), b"")
    text = one.teller.message(1.0, whole=False)
    assert text is not None
    told = Replica("two").listener.hear(text, 1.0).finished
    assert [finished.layout for finished in told] == list(range(2 * MOST_BATCHES, 3 * MOST_BATCHES))


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode(["x", False, [[1, [0.0] * 8]], []]),
        msgspec.msgpack.encode(["x", False, [[1, [float("nan")] * 9]], []]),
        msgspec.msgpack.encode(["x", False, [[1, [-1.0] * 9]], []]),
        msgspec.msgpack.encode(["x", False, [[-1, [1.0] * 9]], []]),
        msgspec.msgpack.encode(["x", False, [], [[1, True, b"1234567"]]]),
        msgspec.msgpack.encode(["x", False, [], [], [[1, b"1234567", b""]]]),
    ],
)
def test_a_message_that_is_none_changes_nothing(message: bytes) -> None:
    one = Replica("one")
    with pytest.raises(BadMessage):
        one.listener.hear(message, 1.0)
    assert len(one.listener) == 0


STEPS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), st.booleans(), st.booleans()), max_size=40)


@settings(max_examples=30, deadline=None)
@given(steps=STEPS)
def test_once_told_both_count_the_same(steps: list[tuple[int, int, bool, bool]]) -> None:
    pair = Replica("one"), Replica("two", ENGINES[::-1])
    running: list[list[int]] = [[], []]
    for number, (who, engine, ends, tells) in enumerate(steps):
        if ends and running[who]:
            pair[who].ledger.release(running[who].pop())
        elif not ends:
            pair[who].picks(number, engine)
            running[who].append(number)
        if tells:
            pair[who].tells(pair[1 - who])
    for who in (0, 1):
        pair[who].tells(pair[1 - who])
    counts = [[replica.row(engine, column.IN_FLIGHT) for engine in range(3)] for replica in pair]
    assert counts[0] == counts[1]
    assert sum(counts[0]) == sum(map(len, running))
