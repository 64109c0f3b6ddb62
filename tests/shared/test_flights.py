"""What workers have in flight together: a burst sees itself, and a worker that dies takes its flights along."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from picker.engines import ledger as column
from picker.engines.approximate import ApproximateIndex
from picker.engines.index import PrefixIndex
from picker.engines.ledger import Ledger
from picker.policies.registry import REGISTRY
from picker.pool.view import Endpoint
from picker.requests.request import Request
from picker.routing.hits import PrefixHits
from picker.routing.outcome import Outcome
from picker.routing.router import Router, RouterSettings
from picker.shared.flights import SharedFlights, flights_of, keep_flights, land_all

WORKERS = ("w0", "w1", "w2")
ENGINES = [Endpoint(f"10.0.0.{i}:8000") for i in range(4)]
SLOTS = np.arange(4)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with ExitStack() as kept:
        for name in WORKERS:
            kept.callback(keep_flights(tmp_path, name).close)
        yield tmp_path


class Worker:
    """One worker's router; `order` is in which it learned of the engines."""

    def __init__(self, folder: Path, name: str, of: tuple[str, ...], order: list[Endpoint] = ENGINES) -> None:
        own = flights_of(folder, name, writes=True)
        self.flights = SharedFlights(own, [flights_of(folder, other) for other in of if other != name])
        rng = np.random.default_rng(WORKERS.index(name))
        recent = ApproximateIndex(ttl_s=2.0)
        self.router = Router(
            REGISTRY["multiplicative"]({}, rng),
            PrefixHits(PrefixIndex(max_pairs=100), ApproximateIndex(max_blocks=100), recent),
            rng,
            settings=RouterSettings(worker=of.index(name), workers=len(of)),
            ledger=Ledger(sharing=self.flights),
        )
        self.serve(order)

    def serve(self, engines: list[Endpoint]) -> None:
        change = self.router.update_pool(engines)
        self.flights.follow(change.view, self.router.pool.capacity)

    def pick(self, now: float) -> tuple[int, str]:
        decision = self.router.pick(Request(model="m", prompt_tokens=100), None, now)
        return decision.flight, decision.addresses[0]

    def batch(self, now: float = 1.0) -> dict[str, float]:
        """Requests on each engine as this worker's next pick sees them."""
        view = self.router.pool.view
        seen = self.router.ledger.seen(view.slots)[column.IN_FLIGHT].tolist()
        return {endpoint.address: count for endpoint, count in zip(view.endpoints, seen, strict=True)}


def test_a_burst_split_over_two_workers_is_spread_over_the_engines(folder: Path) -> None:
    workers = [Worker(folder, name, ("w0", "w1")) for name in ("w0", "w1")]
    taken = dict.fromkeys((engine.address for engine in ENGINES), 0)
    for i in range(500):
        taken[workers[i % 2].pick(i / 500)[1]] += 1
    assert max(taken.values()) <= 1.1 * min(taken.values())
    assert workers[0].batch() == workers[1].batch() == taken


def test_even_when_each_worker_learned_of_the_engines_in_another_order(folder: Path) -> None:
    one, other = Worker(folder, "w0", ("w0", "w1")), Worker(folder, "w1", ("w0", "w1"), ENGINES[::-1])
    addresses = [one.pick(i / 10)[1] for i in range(4)]
    assert sorted(addresses) == [engine.address for engine in ENGINES]
    assert other.batch() == dict.fromkeys(addresses, 1.0)


def test_ends_and_first_bytes_are_seen_by_the_others_at_once(folder: Path) -> None:
    one, other = Worker(folder, "w0", ("w0", "w1")), Worker(folder, "w1", ("w0", "w1"))
    flight, _ = one.pick(0.0)
    assert other.router.ledger.seen(SLOTS)[column.PREFILLING].sum() == 1
    one.router.first_byte(flight, 0.5)
    assert other.router.ledger.seen(SLOTS)[column.PREFILLING].sum() == 0
    assert other.router.ledger.seen(SLOTS)[column.DECODE_TOKENS].sum() == 100
    one.router.ended(flight, Outcome())
    assert sum(other.batch().values()) == 0


def test_what_a_killed_worker_counted_is_gone_once_it_is_buried_and_the_others_count_on(folder: Path) -> None:
    one, other = Worker(folder, "w0", ("w0", "w1")), Worker(folder, "w1", ("w0", "w1"))
    for i in range(40):
        (one, other)[i % 2].pick(i / 40)
    land_all(flights_of(folder, "w1", writes=True))
    assert sum(one.batch().values()) == 20
    again = Worker(folder, "w1", ("w0", "w1"))
    assert sum(again.batch().values()) == 20
    again.pick(2.0)
    assert sum(one.batch().values()) == 21


def test_an_engine_that_one_worker_gave_up_and_the_other_not_yet_weighs_only_where_it_is_served(folder: Path) -> None:
    one, other = Worker(folder, "w0", ("w0", "w1")), Worker(folder, "w1", ("w0", "w1"))
    for i in range(8):
        one.pick(i / 8)
    one.serve(ENGINES[1:])
    assert sum(other.batch().values()) == 6
    newcomer = Endpoint("10.0.0.9:8000")
    one.serve([*ENGINES[1:], newcomer])
    one.pick(2.0)
    assert sum(one.batch().values()) == 7
    assert sum(other.batch().values()) == 6
    other.serve([*ENGINES[1:], newcomer])
    assert other.batch() == one.batch()


STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["pick", "first", "end", "die"]), st.integers(0, 30)), max_size=60
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_whatever_happens_every_worker_counts_the_same(folder: Path, steps: list[tuple[int, str, int]]) -> None:
    """Workers pick, hear of their flights, and die in any order; nothing leaks and nothing is counted twice."""
    workers = [Worker(folder, name, WORKERS) for name in WORKERS]
    open_flights: list[list[int]] = [[], [], []]
    for now, (who, what, which) in enumerate(steps):
        if what == "pick":
            open_flights[who].append(workers[who].pick(float(now))[0])
        elif what == "die":
            land_all(flights_of(folder, WORKERS[who], writes=True))
            workers[who], open_flights[who] = Worker(folder, WORKERS[who], WORKERS), []
        elif open_flights[who]:
            flight = open_flights[who][which % len(open_flights[who])]
            if what == "first":
                workers[who].router.first_byte(flight, float(now))
            else:
                workers[who].router.ended(flight, Outcome())
                open_flights[who].remove(flight)
    batches = [worker.batch() for worker in workers]
    assert batches[0] == batches[1] == batches[2]
    assert sum(batches[0].values()) == sum(map(len, open_flights))
