"""Configurations as operators of llm-d-router run them: each starts, and picks as it says."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from picker.engines.approximate import ApproximateIndex
from picker.engines.index import PrefixIndex
from picker.engines.metrics import EngineSample, LoraState
from picker.policies.composed.sessions import token_for
from picker.policies.policy import Saturated
from picker.pool.view import Endpoint
from picker.requests.request import Hints, Request
from picker.routing.decisions import Decision
from picker.routing.hits import PrefixHits
from picker.routing.outcome import Outcome
from picker.routing.router import NoEndpoint, Router, RouterSettings
from picker.server.config import PickerConfig, load_config

SAMPLES = Path(__file__).parent / "samples"
ADDRESSES = ["10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000"]


def config(name: str) -> PickerConfig:
    return load_config(SAMPLES / f"{name}.yaml")


class Pool:
    """Three idle engines behind a router that is configured by a sample; time passes only where a test lets it."""

    def __init__(self, name: str, *labels: dict[str, str]) -> None:
        read, rng = config(name), np.random.default_rng(7)
        self.router = Router(
            read.make_policy(rng),
            PrefixHits(PrefixIndex(), ApproximateIndex(), ApproximateIndex(ttl_s=2.0)),
            rng,
            settings=RouterSettings(read.settings.destinations),
            admits=read.admission(),
        )
        given = labels or ({}, {}, {})
        self.router.update_pool(
            Endpoint(address, name=f"pod-{i}", labels=label)
            for i, (address, label) in enumerate(zip(ADDRESSES, given, strict=True))
        )
        for i in range(3):
            self.engine(i)

    def engine(
        self, i: int, running: float = 0, waiting: float = 0, kv: float = 0, lora: LoraState | None = None
    ) -> None:
        """What engine i said in its last scrape."""
        sample = EngineSample(running=running, waiting=waiting, kv_usage=kv, lora=lora)
        self.router.table.observe(int(self.router.pool.view.slots[i]), sample, 0.0, 0.0)

    def decide(self, seed: int = 0, model: str = "m", only: int | None = None, **hints: Any) -> Decision:
        chain = np.random.default_rng(seed).integers(1, 2**63, 30, dtype=np.uint64)
        request = Request(model=model, prompt_tokens=1920, chain=chain, block_tokens=64.0, hints=Hints(**hints))
        return self.router.pick(request, None if only is None else [ADDRESSES[only]], now=0.0)

    def pick(self, seed: int = 0, **more: Any) -> int:
        """Which engine gets a request, 0 to 2; it ends at once."""
        decision = self.decide(seed, **more)
        self.router.ended(decision.flight, Outcome(status=200))
        return ADDRESSES.index(decision.addresses[0])


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_sample_starts_and_picks(path: Path) -> None:
    pool = Pool(path.stem, {"gpu": "h100"}, {"gpu": "h100"}, {"gpu": "h100"})

    assert {pool.pick(seed) for seed in range(50)} <= {0, 1, 2}


def test_the_default_weighs_a_held_prefix_above_a_busy_cache_and_below_queue_and_cache_together() -> None:
    pool = Pool("llm-d-default")
    holder = pool.pick(seed=1)
    other = (holder + 1) % 3

    pool.engine(holder, kv=0.9)
    assert pool.pick(seed=1) == holder
    pool.engine(holder, kv=0.9, waiting=3)
    assert pool.pick(seed=1) != holder
    pool.engine(other, waiting=3)
    assert pool.pick(seed=2) not in (holder, other)


def test_one_destination_is_what_llmd_sends_and_more_are_asked_for_by_the_picker() -> None:
    assert len(Pool("llm-d-default").decide().addresses) == 1
    assert len(Pool("random-baseline").decide().addresses) == 2


def test_payload_agnostic_goes_by_own_load_unless_a_token_says_where() -> None:
    pool = Pool("payload-agnostic")
    busy = ADDRESSES.index(pool.decide(seed=1).addresses[0])

    assert pool.pick(seed=2) != busy
    idle = pool.pick(seed=2)
    assert all(pool.pick(seed, session_token=token_for(ADDRESSES[idle])) == idle for seed in range(10))


@pytest.mark.parametrize("name", ["precise-prefix", "precise-prefix-older"])
def test_precise_prefixes_stay_together_until_the_queue_outweighs_them(name: str) -> None:
    pool = Pool(name)
    holder = pool.pick(seed=1)

    assert {pool.pick(seed=1) for _ in range(5)} == {holder}
    assert any("`models` in picker-settings" in warning for warning in config(name).warnings)


def test_a_session_stays_and_new_ones_go_to_the_shortest_queue() -> None:
    pool = Pool("session-affinity")
    first = pool.pick(session="a")
    pool.engine(first, waiting=9)

    assert pool.pick(session="a") == first
    assert pool.pick(session="b") != first


def test_an_adapter_goes_where_it_runs_else_where_there_is_a_place() -> None:
    pool = Pool("lora")
    pool.engine(0, lora=LoraState(1, ("sql",), ()))
    pool.engine(1, lora=LoraState(1, ("chat",), ()))
    pool.engine(2, lora=LoraState(2, ("chat",), ()))

    assert [pool.pick(model=adapter) for adapter in ("sql", "new")] == [0, 2]
    assert {pool.pick(seed, model="chat") for seed in range(20)} == {1, 2}


def test_the_random_baseline_is_even() -> None:
    pool = Pool("random-baseline")

    counts = Counter(pool.pick(seed) for seed in range(900))

    assert min(counts.values()) > 240


def test_load_aware_avoids_queues_running_requests_and_own_ones() -> None:
    pool = Pool("load-aware")
    pool.engine(0, waiting=20)
    pool.engine(1, running=10)

    assert pool.pick() == 2


def test_cold_prompts_take_turns_and_warm_ones_return() -> None:
    pool = Pool("no-hit-lru")
    first = [pool.pick(seed) for seed in range(6)]

    assert Counter(first) == {0: 2, 1: 2, 2: 2}
    assert [pool.pick(seed) for seed in range(6)] == first


def test_a_prefix_is_left_when_its_holder_is_too_far_behind() -> None:
    pool = Pool("sticky-until-saturated")
    holder = pool.pick(seed=0)
    for seed in range(1, 11):
        pool.decide(seed, only=holder)
    assert pool.pick(seed=0) == holder

    pool.decide(seed=11, only=holder)
    assert pool.pick(seed=0) != holder


def test_only_endpoints_of_the_wanted_labels_are_picked_or_fallen_back_to() -> None:
    pool = Pool("label-filters", {"gpu": "h100"}, {"gpu": "h100", "retiring": "yes"}, {"gpu": "l4"})

    assert pool.decide().addresses == (ADDRESSES[0],)


def test_labels_that_nobody_has_leave_nobody() -> None:
    with pytest.raises(NoEndpoint):
        Pool("label-filters").decide()


def test_sheddable_work_is_turned_away_at_the_cap_and_other_work_is_not() -> None:
    pool = Pool("saturation")
    for seed in range(6):
        pool.decide(seed)

    with pytest.raises(Saturated):
        pool.decide(priority=-1)
    assert pool.decide(priority=0).addresses


def test_a_weighted_draw_says_its_chance() -> None:
    pool = Pool("saturation")
    pool.engine(0, kv=0.5)

    chances = {decision.addresses[0]: decision.propensity for decision in (pool.decide(seed) for seed in range(40))}

    assert chances == pytest.approx(dict(zip(ADDRESSES, (0.2, 0.4, 0.4), strict=True)))


def test_the_reference_picker_goes_round() -> None:
    pool = Pool("lwepp")
    assert [pool.pick(seed) for seed in range(6)] == [0, 1, 2, 0, 1, 2]
