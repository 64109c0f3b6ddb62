"""The feed on real sockets: engines that gap, restart, talk garbage, hang or are gone."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
from kv_engine import BLOCK_SIZE, FakeEngine, History, stored, tokens

from picker.engines.index import PrefixIndex
from picker.engines.kv_feed import KvFeed, KvFeedSettings
from picker.pool.view import Endpoint, Pool
from picker.requests.blocks import chain_tokens, root

IMPATIENT = KvFeedSettings(answer_timeout_s=0.2, retry_s=0.1)
NOWHERE = "tcp://127.0.0.1:1"


class Index(PrefixIndex):
    """An index on whose writes a test can wait."""

    def __init__(self) -> None:
        super().__init__()
        self._written = asyncio.Event()

    def store(self, slot: int, keys: Any, blocks: Any) -> None:
        super().store(slot, keys, blocks)
        self._written.set()

    def clear(self, slot: int) -> None:
        super().clear(slot)
        self._written.set()

    async def until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not reached():
                self._written.clear()
                await self._written.wait()


class Listener:
    """A feed over a pool of its own."""

    def __init__(self, settings: KvFeedSettings | None = None) -> None:
        self.pool, self.index = Pool(), Index()
        self.index.warm()
        self.feed = KvFeed(self.index, settings)

    def listen(self, *endpoints: Endpoint) -> None:
        self.feed.follow(self.pool.replace(endpoints))

    def hit(self, *blocks: int, slot: int = 0) -> float:
        chain = chain_tokens(tokens(*blocks), BLOCK_SIZE, root())
        return float(self.index.matched(chain, np.array([slot]))[0])

    async def until_hit(self, blocks: int, *chain: int, slot: int = 0) -> None:
        await self.index.until(lambda: self.hit(*chain, slot=slot) == blocks)


def endpoint(engine: FakeEngine, address: str = "10.0.0.1:80", **changes: Any) -> Endpoint:
    return Endpoint(address, **({"kv_events": engine.events, "kv_replay": engine.replay} | changes))


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine().serving() as fake:
        yield fake


@pytest.fixture
async def listener(request: pytest.FixtureRequest) -> AsyncIterator[Listener]:
    listener = Listener(getattr(request, "param", None))
    yield listener
    await listener.feed.close()


impatient = pytest.mark.parametrize("listener", [IMPATIENT], indirect=True, ids=["impatient"])


async def test_history_is_replayed_and_then_followed_live(engine: FakeEngine, listener: Listener) -> None:
    engine.history.add(stored([11], [1]))
    listener.listen(endpoint(engine))
    await engine.subscribed()
    await listener.until_hit(1, 1)
    await engine.publish(stored([12], [2], parent=11))
    await listener.until_hit(2, 1, 2)
    count = listener.feed.counts[0]
    assert (engine.replays, count.batches, count.stored_blocks, count.lost_batches) == ([0], 2, 2, 0)
    assert count.block_size == BLOCK_SIZE


async def test_a_gap_is_filled_from_the_replay(engine: FakeEngine, listener: Listener) -> None:
    listener.listen(endpoint(engine))
    await engine.subscribed()
    await engine.publish(stored([11], [1]))
    await listener.until_hit(1, 1)
    engine.history.add(stored([12], [2], parent=11))
    await engine.publish(stored([13], [3], parent=12))
    await listener.until_hit(3, 1, 2, 3)
    count = listener.feed.counts[0]
    assert (count.gaps, count.lost_batches, count.orphan_blocks, engine.replays[-1]) == (1, 0, 0, 0)


async def test_a_restarted_engine_is_followed_from_its_empty_cache(engine: FakeEngine, listener: Listener) -> None:
    listener.listen(endpoint(engine))
    await engine.subscribed()
    for key in (11, 12):
        await engine.publish(stored([key], [key]))
    await listener.until_hit(1, 12)
    engine.history = History(born=5000.0)
    await engine.publish(stored([13], [13]))
    await listener.until_hit(1, 13)
    assert (listener.hit(11), listener.feed.counts[0].restarts) == (0.0, 1)


@pytest.mark.parametrize(
    "frames",
    [(b"alone",), (b"kv", b"short", b"\x93"), (b"kv", b"\0" * 8, b"\xc1garbage"), (b"",) * 9],
    ids=["one frame", "short number", "garbage payload", "nine frames"],
)
async def test_garbage_is_counted_and_the_next_batch_read(
    engine: FakeEngine, listener: Listener, frames: tuple[bytes, ...]
) -> None:
    listener.listen(endpoint(engine, kv_replay=None))
    await engine.subscribed()
    await engine.send_frames(*frames)
    engine.history.add()
    await engine.publish(stored([11], [1]))
    await listener.until_hit(1, 1)
    assert listener.feed.counts[0].malformed == 1
    assert listener.feed.counts[0].last_error


@impatient
async def test_a_dead_replay_endpoint_costs_only_the_past(engine: FakeEngine, listener: Listener) -> None:
    engine.history.add(stored([11], [1]))
    listener.listen(endpoint(engine, kv_replay=NOWHERE))
    await engine.subscribed()
    await engine.publish(stored([12], [2]))
    await listener.until_hit(1, 2)
    count = listener.feed.counts[0]
    assert (listener.hit(1), count.failed_replays) == (0.0, 1)
    assert "timed out" in count.last_error


@impatient
async def test_orphans_are_recovered_once_the_replay_endpoint_answers(engine: FakeEngine, listener: Listener) -> None:
    engine.history.add(stored([11], [1]))
    engine.mute()
    listener.listen(endpoint(engine))
    await engine.subscribed()
    await engine.publish(stored([12], [2], parent=11))
    await engine.asked()
    await engine.asked()
    engine.unmute()
    await listener.until_hit(2, 1, 2)
    count = listener.feed.counts[0]
    assert count.failed_replays >= 1
    assert count.orphan_blocks == 1


@impatient
async def test_a_bad_engine_does_not_delay_another(engine: FakeEngine, listener: Listener) -> None:
    listener.listen(
        Endpoint("10.0.0.9:80", kv_events=NOWHERE, kv_replay=NOWHERE),
        Endpoint("10.0.0.8:80", kv_events="no address at all", kv_replay="nor this"),
        endpoint(engine),
    )
    await engine.subscribed()
    await engine.publish(stored([11], [1]))
    await listener.until_hit(1, 1, slot=2)
    await listener.index.until(lambda: "no address" in listener.feed.counts[1].last_error)


async def test_an_endpoint_that_leaves_is_forgotten_and_its_slot_can_be_reused(
    engine: FakeEngine, listener: Listener
) -> None:
    listener.listen(endpoint(engine))
    await engine.subscribed()
    await engine.publish(stored([11], [1]))
    await listener.until_hit(1, 1)
    listener.listen()
    assert (listener.hit(1), listener.feed.counts) == (0.0, {})
    async with FakeEngine().serving() as other:
        other.history.add(stored([21], [2]))
        listener.listen(endpoint(other, "10.0.0.2:80"))
        await listener.until_hit(1, 2)
        assert (listener.hit(1), list(listener.feed.counts)) == (0.0, [0])


async def test_a_change_that_does_not_touch_an_endpoint_leaves_its_blocks(
    engine: FakeEngine, listener: Listener
) -> None:
    engine.history.add(stored([11], [1]))
    listener.listen(endpoint(engine))
    await listener.until_hit(1, 1)
    listener.listen(endpoint(engine, labels={"zone": "b"}), Endpoint("10.0.0.2:80"))
    assert (listener.hit(1), list(listener.feed.counts), engine.replays) == (1.0, [0], [0])


async def test_an_endpoint_that_publishes_elsewhere_is_listened_to_anew(engine: FakeEngine, listener: Listener) -> None:
    engine.history.add(stored([11], [1]))
    listener.listen(endpoint(engine))
    await listener.until_hit(1, 1)
    async with FakeEngine().serving() as other:
        other.history.add(stored([12], [2]))
        listener.listen(endpoint(other))
        assert listener.hit(1) == 0.0
        await listener.until_hit(1, 2)


async def test_a_flood_of_replayed_batches_lets_others_take_turns(engine: FakeEngine, listener: Listener) -> None:
    for key in range(2000):
        engine.history.add(stored([key], [key]))
    async with FakeEngine().serving() as small:
        small.history.add(stored([11], [1]))
        listener.listen(endpoint(engine), endpoint(small, "10.0.0.2:80"))
        await listener.until_hit(1, 1, slot=1)
        assert listener.feed.counts[0].batches < 2000
        await listener.index.until(lambda: listener.feed.counts[0].batches == 2000)
        assert listener.feed.counts[0].lost_batches == 0


@pytest.mark.parametrize("listener", [KvFeedSettings(max_replay_batches=5)], indirect=True, ids=["five batches"])
async def test_a_long_history_is_fetched_in_several_replays(engine: FakeEngine, listener: Listener) -> None:
    for key in range(20):
        engine.history.add(stored([key], [key]))
    listener.listen(endpoint(engine))
    await listener.until_hit(1, 19)
    assert (len(listener.index), listener.feed.counts[0].lost_batches, engine.replays[:3]) == (20, 0, [0, 4, 8])


async def test_closing_ends_every_task(engine: FakeEngine, listener: Listener) -> None:
    before = asyncio.all_tasks()
    listener.listen(endpoint(engine), endpoint(engine, "10.0.0.2:80", kv_replay=NOWHERE))
    await engine.subscribed()
    await listener.feed.close()
    assert asyncio.all_tasks() == before
