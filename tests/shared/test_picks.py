"""One index of all workers' picks: what one of them placed is a hit for the others."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from picker.engines.approximate import DEFAULT_TTL_S, ApproximateIndex
from picker.pool.view import Endpoint, Pool
from picker.shared.index import SharedShelf
from picker.shared.mirror import key_of
from picker.shared.picks import RECENT_TTL_S, PicksOfAll, SharedPicks
from picker.shared.placements import USUAL, Ring, RingSize, local_ring, tell
from picker.shared.told import MOST, Told

BLOCKS = 5000
ENDPOINTS = [Endpoint(f"10.0.0.{i}:8000") for i in range(4)]
SLOTS = np.arange(4)
CHAIN = np.arange(1, 9, dtype=np.uint64)


class Collector:
    """The collector's part, at a pool of its own."""

    def __init__(self, folder: Path, rings: list[Ring], name: str = "index") -> None:
        self.folder, self.name, self.pool = folder, name, Pool()
        self._shelves = index, recent = (
            SharedShelf(folder, name, BLOCKS),
            SharedShelf(folder, f"{name}-recent", BLOCKS),
        )
        self.rings, self.known = rings, np.zeros(len(rings), np.int64)
        self.picks = PicksOfAll(rings, self.known, index, recent, max_blocks=BLOCKS)
        self.serve(ENDPOINTS)

    def known_of(self, ring: Ring) -> np.ndarray:
        at = next((i for i, each in enumerate(self.rings) if each is ring), None)
        return np.zeros(1, np.int64) if at is None else self.known[at : at + 1]

    def serve(self, endpoints: list[Endpoint]) -> None:
        self.picks.follow(self.pool.replace(endpoints))

    def close(self) -> None:
        for shelf in self._shelves:
            shelf.close()


class Worker:
    """A worker's part; its slots are the endpoints in an order of its own."""

    def __init__(self, order: list[Endpoint] = ENDPOINTS, *, recent: bool = False, size: RingSize = USUAL) -> None:
        self.ring, self.pool = local_ring(size), Pool()
        self.picks = SharedPicks(Told(self.ring), recent=recent)
        self._recent = recent
        self.serve(order)

    def serve(self, endpoints: list[Endpoint]) -> None:
        change = self.pool.replace(endpoints)
        for slot, _ in change.removed:
            self.picks.clear(slot)
        self.picks.follow(change.view, self.pool.capacity)

    def reads(self, collector: Collector, now: float = 0.0) -> None:
        name = f"{collector.name}-recent" if self._recent else collector.name
        self.picks.read(collector.folder, name, BLOCKS, collector.known_of(self.ring), now)

    def hits(self, chain: np.ndarray = CHAIN, now: float = 0.0) -> list[float]:
        """By the endpoints' own order."""
        found = self.picks.matched(chain, self.pool.view.slots, now)
        return [float(found[self.pool.view.by_address[e.address]]) for e in ENDPOINTS]


@pytest.fixture
def pair() -> tuple[Worker, Worker]:
    return Worker(), Worker(ENDPOINTS[::-1])


@pytest.fixture
def collector(tmp_path: Path, pair: tuple[Worker, Worker]) -> Iterator[Collector]:
    with contextlib.closing(Collector(tmp_path, [worker.ring for worker in pair])) as made:
        for worker in pair:
            worker.reads(made)
        yield made


def test_what_one_worker_placed_is_a_hit_for_all_once_the_collector_has_read_it(
    pair: tuple[Worker, Worker], collector: Collector
) -> None:
    one, other = pair
    one.picks.touch(2, CHAIN, 0.0)
    assert (one.hits(), other.hits()) == ([0, 0, 8, 0], [0, 0, 0, 0])
    collector.picks.take(0.0)
    assert one.hits() == other.hits() == [0, 0, 8, 0]


def test_what_was_placed_is_forgotten_when_it_has_expired(pair: tuple[Worker, Worker], collector: Collector) -> None:
    one, other = pair
    one.picks.touch(2, CHAIN, 0.0)
    assert one.hits(now=DEFAULT_TTL_S) == [0, 0, 8, 0]
    assert one.hits(now=DEFAULT_TTL_S + 1) == [0, 0, 0, 0]
    collector.picks.take(0.0)
    other.picks.kept_at(DEFAULT_TTL_S)
    assert other.hits(now=DEFAULT_TTL_S) == [0, 0, 8, 0]
    collector.picks.expire(DEFAULT_TTL_S + 1)
    assert one.hits(now=DEFAULT_TTL_S + 1) == other.hits() == [0, 0, 0, 0]
    assert len(collector.picks.picks) == 0


def test_once_the_collector_has_it_what_it_evicts_is_no_hit_for_who_placed_it(
    pair: tuple[Worker, Worker], collector: Collector
) -> None:
    one = pair[0]
    one.picks.touch(2, CHAIN, 0.0)
    collector.picks.take(0.0)
    collector.picks.picks.set_capacity(2, 5)
    assert one.hits() == [0, 0, 5, 0]


def test_without_a_collector_a_worker_sees_its_own_latest_picks(pair: tuple[Worker, Worker]) -> None:
    one = pair[0]
    for slot, blocks in ((0, 2), (1, 8), (0, 5), (1, 3)):
        one.picks.touch(slot, CHAIN[:blocks], 0.0)
    for other in range(MOST - 5):
        one.picks.touch(3, CHAIN + np.uint64(100 * (other + 1)), 0.0)
    assert one.hits() == [5, 8, 0, 0]
    assert one.hits(CHAIN[:4]) == [4, 4, 0, 0]
    assert one.hits(CHAIN + np.uint64(100)) == [0, 0, 0, 8]
    for other in range(3):
        one.picks.touch(3, CHAIN + np.uint64(9 + 100 * other), 0.0)
    assert one.hits() == [5, 3, 0, 0]


def test_what_the_ring_has_no_room_for_any_more_is_no_hit() -> None:
    one = Worker(size=RingSize(entries=16, words=20))
    for slot in range(3):
        one.picks.touch(slot, CHAIN, 0.0)
    assert one.hits() == [0, 8, 8, 0]


def test_nothing_is_said_of_an_endpoint_that_was_away(pair: tuple[Worker, Worker]) -> None:
    one = pair[0]
    for slot in (1, 2):
        one.picks.touch(slot, CHAIN, 0.0)
    one.serve([ENDPOINTS[0], *ENDPOINTS[2:]])
    one.serve(ENDPOINTS)
    assert one.hits() == [0, 0, 8, 0]


def test_a_worker_that_takes_over_a_ring_knows_nothing_of_what_was_told_before() -> None:
    one = Worker()
    one.picks.touch(2, CHAIN, 0.0)
    heir = Worker(ENDPOINTS[::-1])
    heir.picks = SharedPicks(Told(one.ring), recent=False)
    heir.serve(ENDPOINTS)
    assert heir.hits() == [0, 0, 0, 0]


def test_latest_picks_and_all_picks_are_apart_in_one_ring() -> None:
    told, pool = Told(local_ring()), Pool()
    view = pool.replace(ENDPOINTS).view
    both = [SharedPicks(told, recent=recent) for recent in (False, True)]
    for slot, picks in enumerate(both):
        picks.follow(view, pool.capacity)
        picks.touch(slot, CHAIN, 0.0)
    assert [picks.matched(CHAIN, SLOTS, 0.0).tolist() for picks in both] == [[8, 0, 0, 0], [0, 8, 0, 0]]


def test_the_latest_picks_that_engines_will_announce_are_shared_for_two_seconds(tmp_path: Path) -> None:
    one, other = Worker(recent=True), Worker(recent=True)
    with contextlib.closing(Collector(tmp_path, [one.ring, other.ring])) as collector:
        other.reads(collector)
        one.picks.touch(1, CHAIN, 0.0)
        collector.picks.take(0.0)
        assert other.hits() == [0, 8, 0, 0]
        assert len(collector.picks.picks) == 0
        collector.picks.expire(RECENT_TTL_S + 0.1)
        assert other.hits() == [0, 0, 0, 0]


def test_an_index_that_nobody_looks_after_is_read_until_all_in_it_would_have_expired(
    pair: tuple[Worker, Worker], collector: Collector
) -> None:
    one, other = pair
    one.picks.touch(2, CHAIN, 0.0)
    collector.picks.take(0.0)
    other.picks.kept_at(50.0)
    assert other.hits(now=49.0 + DEFAULT_TTL_S) == [0, 0, 8, 0]
    assert other.hits(now=50.0 + DEFAULT_TTL_S) == [0, 0, 0, 0]
    other.picks.kept_at(60.0)
    assert other.hits(now=50.0 + DEFAULT_TTL_S) == [0, 0, 8, 0]


def test_an_endpoint_that_leaves_takes_its_blocks_with_it(pair: tuple[Worker, Worker], collector: Collector) -> None:
    one, other = pair
    one.picks.touch(0, CHAIN, 0.0)
    collector.picks.take(0.0)
    stranger = Endpoint("10.0.0.9:8000")
    collector.serve(ENDPOINTS[1:])
    collector.serve([stranger, *ENDPOINTS[1:]])
    other.serve([stranger, *ENDPOINTS[1:]])
    assert other.picks.matched(CHAIN, other.pool.view.slots, 0.0).tolist() == [0, 0, 0, 0]
    collector.serve(ENDPOINTS)
    other.serve(ENDPOINTS)
    assert other.hits() == [0, 0, 0, 0]


def test_what_is_told_of_strangers_changes_nothing(pair: tuple[Worker, Worker], collector: Collector) -> None:
    tell(pair[0].ring, np.uint64(12345), False, CHAIN)
    tell(pair[0].ring, np.uint64(0), False, CHAIN)
    pair[0].picks.touch(3, CHAIN[:4], 0.0)
    collector.picks.take(0.0)
    assert pair[1].hits() == [0, 0, 0, 4]
    assert len(collector.picks.picks) == 4


def test_capacities_bound_what_is_shared(pair: tuple[Worker, Worker], collector: Collector) -> None:
    collector.picks.picks.set_capacity(0, 3)
    pair[0].picks.touch(0, CHAIN, 0.0)
    collector.picks.take(0.0)
    assert pair[1].hits() == [3, 0, 0, 0]


def test_who_is_overrun_counts_it_and_goes_on(tmp_path: Path) -> None:
    one = Worker(size=RingSize(entries=4, words=64))
    with contextlib.closing(Collector(tmp_path, [one.ring])) as collector:
        for i in range(10):
            one.picks.touch(0, CHAIN + np.uint64(100 * i), 0.0)
        collector.picks.take(0.0)
        assert collector.picks.lost == 7
        assert len(collector.picks.picks) == 3 * len(CHAIN)


def test_beside_a_new_collectors_index_the_former_one_is_read_until_it_would_have_expired(
    tmp_path: Path, pair: tuple[Worker, Worker], collector: Collector
) -> None:
    other = pair[1]
    tell(pair[0].ring, key_of(ENDPOINTS[1]), False, CHAIN)
    collector.picks.take(0.0)
    other.picks.kept_at(90.0)
    with contextlib.closing(Collector(tmp_path, [local_ring()], "new")) as new:
        other.reads(new, now=100.0)
        assert other.hits() == [0, 8, 0, 0]
        last = 90.0 + DEFAULT_TTL_S
        other.picks.forget_former(last - 1)
        assert other.hits(now=last - 1) == [0, 8, 0, 0]
        assert other.hits(now=last) == [0, 0, 0, 0]
        other.picks.forget_former(last)
        assert other.hits() == [0, 0, 0, 0]


def test_a_former_index_says_no_more_of_an_endpoint_that_was_away(
    tmp_path: Path, pair: tuple[Worker, Worker], collector: Collector
) -> None:
    other = pair[1]
    for slot in (1, 2):
        pair[0].picks.touch(slot, CHAIN, 0.0)
    collector.picks.take(0.0)
    with contextlib.closing(Collector(tmp_path, [local_ring()], "new")) as new:
        other.reads(new)
        other.serve([ENDPOINTS[0], *ENDPOINTS[2:]])
        other.serve(ENDPOINTS)
        assert other.hits() == [0, 0, 8, 0]


def test_a_new_collector_takes_what_the_rings_still_hold(tmp_path: Path, pair: tuple[Worker, Worker]) -> None:
    pair[0].picks.touch(1, CHAIN, 0.0)
    with contextlib.closing(Collector(tmp_path, [worker.ring for worker in pair])) as late:
        late.picks.take(0.0)
        pair[1].reads(late)
        assert pair[1].hits() == [0, 8, 0, 0]
        assert late.picks.lost == 0


def test_an_index_that_cannot_be_read_changes_nothing(
    tmp_path: Path, pair: tuple[Worker, Worker], collector: Collector
) -> None:
    pair[0].picks.touch(2, CHAIN, 0.0)
    collector.picks.take(0.0)
    with pytest.raises(FileNotFoundError):
        pair[1].picks.read(tmp_path, "none", BLOCKS, np.zeros(1, np.int64), 0.0)
    assert pair[1].hits() == [0, 0, 8, 0]


STEPS = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 3), st.integers(0, 5), st.integers(1, 40), st.floats(0, 400)),
    max_size=40,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, capacity=st.integers(5, 100))
def test_it_answers_as_one_index_of_one_process_does(
    tmp_path: Path, steps: list[tuple[int, int, int, int, float]], capacity: int
) -> None:
    pair, alone = (Worker(), Worker()), ApproximateIndex(max_blocks=BLOCKS)
    with contextlib.closing(Collector(tmp_path, [worker.ring for worker in pair])) as collector:
        readers = Worker(), *pair
        for reader in readers:
            reader.reads(collector)
        for index in (alone, collector.picks.picks):
            index.set_capacity(0, capacity)
        now = 0.0
        for who, slot, seed, count, passed in steps:
            now += passed
            chain = np.random.default_rng(seed).integers(1, 1 << 63, count, dtype=np.uint64)
            pair[who].picks.touch(slot, chain, now)
            alone.touch(slot, chain, now)
            collector.picks.take(now)
            collector.picks.expire(now)
            for reader in readers:
                reader.picks.kept_at(now)
            for seen in range(6):
                looked_up = np.random.default_rng(seen).integers(1, 1 << 63, 40, dtype=np.uint64)
                alike = alone.matched(looked_up, SLOTS, now).tolist()
                assert all(reader.hits(looked_up, now) == alike for reader in readers)
