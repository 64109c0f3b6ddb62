"""One engine's events in order: what the index holds after gaps, replays, restarts and events of every kind."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kv_engine import BLOCK_SIZE, CLEARED, History, payload, removed, stored, tokens

from picker.engines.index import PrefixIndex
from picker.engines.kv_stream import MAX_HELD, KvStream
from picker.requests.blocks import chain_tokens, root

GOLDEN = json.loads((Path(__file__).parent / "golden" / "vllm-0.32-kv-events.json").read_text())
SLOT = 3


class Engine:
    """A stream into an index, and the history that it could be told."""

    def __init__(self, can_replay: bool = False) -> None:
        self.index = PrefixIndex()
        self.stream = KvStream(SLOT, self.index, can_replay=can_replay)
        self.history = History()
        if can_replay:
            self.stream.replay_ended(True)

    def live(self, *events: Any) -> None:
        self.deliver(self.history.add(*events))

    def deliver(self, message: tuple[int, bytes]) -> None:
        self.stream.receive(*message, now=2000.0)

    def lose(self, *events: Any) -> tuple[int, bytes]:
        return self.history.add(*events)

    def replay(self, complete: bool = True, first: int = 0) -> None:
        assert self.stream.wants is not None
        for seq, data in enumerate(self.history.payloads):
            if seq >= max(first, self.stream.wants):
                self.stream.replayed(seq, data)
        self.stream.replay_ended(complete)

    def wants(self) -> int | None:
        return self.stream.wants

    def restart(self) -> None:
        self.history = History(born=self.history.born + 500)

    def hit(self, *blocks: int, lora: str | None = None, salt: str | None = None) -> float:
        chain = chain_tokens(tokens(*blocks), BLOCK_SIZE, root(lora, salt))
        return float(self.index.matched(chain, np.array([SLOT]))[0])

    @property
    def count(self) -> Any:
        return self.stream.count


def test_stored_blocks_are_found_by_their_tokens() -> None:
    engine = Engine()
    engine.live(stored([11, 12], [1, 2]))
    engine.live(stored([13], [3], parent=12))
    assert (engine.hit(1, 2, 3, 4), engine.hit(2), engine.count.stored_blocks) == (3.0, 0.0, 3)
    assert (engine.count.block_size, engine.count.rank, engine.count.lag_s) == (BLOCK_SIZE, 0, 999.0)


def test_chains_within_one_batch_and_branches_find_their_parents() -> None:
    engine = Engine()
    engine.live(stored([11, 12], [1, 2]), stored([13], [3], parent=12), stored([14], [4], parent=11), removed(13))
    assert (engine.hit(1, 2, 3), engine.hit(1, 4)) == (2.0, 2.0)


def test_digests_serve_as_hashes_too() -> None:
    engine = Engine()
    engine.live(stored([b"\1" * 32], [1]), stored([b"\2" * 32], [2], parent=b"\1" * 32), removed(b"\2" * 32))
    assert engine.hit(1, 2) == 1.0


def test_a_cleared_cache_is_empty_and_fills_again() -> None:
    engine = Engine()
    engine.live(stored([11], [1]))
    engine.live(CLEARED, stored([12], [2]))
    assert (engine.hit(1), engine.hit(2), engine.count.clears) == (0.0, 1.0, 1)


def test_blocks_after_an_unknown_parent_are_stored_nowhere() -> None:
    engine = Engine()
    engine.live(stored([12, 13], [2, 3], parent=11))
    assert (len(engine.index), engine.count.orphan_blocks, engine.count.stored_blocks) == (0, 2, 0)


def test_adapters_and_salts_have_chains_of_their_own() -> None:
    engine = Engine()
    engine.live(stored([11, 12], [1, 2], lora_id=1, lora_name="l1", extra_keys=[["l1"], ["l1"]]))
    engine.live(stored([21, 22], [1, 2], extra_keys=[["tenant"], None]))
    engine.live(stored([31], [1], lora_id=1, lora_name="l1", extra_keys=[["l1", "tenant"]]))
    engine.live(stored([13], [3], parent=12, lora_id=1, lora_name="l1", extra_keys=[["l1"]]))
    assert (engine.hit(1, 2), engine.hit(1, 2, lora="l2")) == (0.0, 0.0)
    assert (engine.hit(1, 2, 3, lora="l1"), engine.hit(1, 2, salt="tenant")) == (3.0, 2.0)
    assert engine.hit(1, 2, lora="l1", salt="tenant") == 1.0


def test_an_image_is_never_taken_for_its_tokens() -> None:
    engine = Engine()
    engine.live(stored([11, 12, 13], [1, 2, 3], extra_keys=[None, [["image", 0]], None]))
    engine.live(stored([14], [4], parent=13))
    assert (engine.hit(1, 2, 3), engine.count.orphan_blocks) == (1.0, 0)


def test_an_adapter_without_a_name_is_not_the_base_model() -> None:
    engine = Engine()
    engine.live(stored([11], [1], lora_id=4))
    assert (engine.hit(1), engine.hit(1, lora="4"), len(engine.index)) == (0.0, 0.0, 1)


@pytest.mark.parametrize("other", [{"medium": "CPU"}, {"kv_cache_spec_kind": "sliding_window", "group_idx": 1}])
def test_other_media_and_sliding_windows_are_no_hits(other: dict[str, Any]) -> None:
    engine = Engine()
    engine.live(stored([11], [1]), stored([11, 12], [1, 2], **other))
    engine.live(removed(11, **{k: v for k, v in other.items() if k != "kv_cache_spec_kind"}))
    assert (engine.hit(1, 2), engine.count.ignored_events > 0) == (1.0, True)


def test_token_ids_out_of_range_are_counted_not_raised() -> None:
    engine = Engine()
    engine.live({**stored([11], [1]), "token_ids": [-1, 2, 3, 4]}, stored([12], [2], extra_keys=5), stored([13], [3]))
    assert (engine.hit(3), engine.count.malformed, engine.count.stored_blocks) == (1.0, 2, 1)


def test_a_batch_of_garbage_keeps_its_place_in_the_sequence() -> None:
    engine = Engine()
    engine.live(stored([11], [1]))
    engine.deliver((1, b"\xc1"))
    engine.deliver((2, payload(stored([12], [2], parent=11), ts=1002.0)))
    assert (engine.hit(1, 2), engine.count.malformed, engine.count.gaps) == (2.0, 1, 0)


def test_duplicates_are_ignored() -> None:
    engine = Engine()
    first = engine.lose(stored([11], [1]))
    second = engine.lose(stored([11], [1]))
    for message in (first, second, first, second):
        engine.deliver(message)
    engine.live(removed(11), removed(11))
    assert (engine.hit(1), engine.count.duplicates, engine.count.restarts) == (0.0, 2, 0)


@pytest.mark.parametrize("skipped", [0, 2], ids=["from its first batch", "noticed late"])
def test_a_restarted_engine_starts_with_an_empty_cache(skipped: int) -> None:
    engine = Engine()
    for key in range(11, 16):
        engine.live(stored([key], [key]))
    engine.restart()
    for _ in range(skipped):
        engine.lose(stored([21], [21]))
    engine.live(stored([22], [22]))
    assert (engine.hit(11), engine.hit(22), engine.count.restarts) == (0.0, 1.0, 1)


def test_a_restart_is_noticed_though_the_clock_went_back() -> None:
    engine = Engine()
    engine.live(stored([11], [1]))
    engine.history = History(born=5.0)
    engine.live(stored([12], [2]))
    assert (engine.hit(1), engine.hit(2), engine.count.restarts) == (0.0, 1.0, 1)


def test_without_a_replay_a_gap_is_accepted_and_counted() -> None:
    engine = Engine()
    engine.live(stored([11], [1]))
    engine.lose(stored([12], [2], parent=11))
    engine.live(stored([13], [3], parent=12), stored([14], [4], parent=11))
    assert (engine.wants(), engine.count.gaps, engine.count.lost_batches) == (None, 1, 1)
    assert (engine.hit(1, 4), engine.count.orphan_blocks) == (2.0, 1)


def test_listening_begins_anywhere_without_a_replay() -> None:
    engine = Engine()
    for _ in range(5):
        engine.lose()
    engine.live(stored([11], [1]))
    assert (engine.hit(1), engine.count.gaps, engine.count.lost_batches) == (1.0, 0, 0)


def test_a_gap_is_closed_by_a_replay_while_live_batches_wait() -> None:
    engine = Engine(can_replay=True)
    engine.live(stored([11], [1]))
    engine.lose(stored([12], [2], parent=11), removed(11))
    engine.live(stored([13], [3], parent=12))
    engine.live(removed(13), stored([11], [1]))
    assert (engine.wants(), engine.hit(1)) == (0, 1.0)
    engine.replay()
    assert (engine.wants(), engine.hit(1, 2, 3), engine.count.orphan_blocks) == (None, 2.0, 0)
    assert (engine.count.gaps, engine.count.replays, engine.count.lost_batches) == (1, 1 + 1, 0)


def test_a_new_listener_asks_for_the_whole_history() -> None:
    engine = Engine()
    engine.stream = KvStream(SLOT, engine.index, can_replay=True)
    engine.lose(stored([11], [1]))
    engine.live(stored([12], [2], parent=11))
    assert (engine.wants(), engine.hit(1)) == (0, 0.0)
    engine.replay()
    assert (engine.hit(1, 2), engine.count.duplicates, engine.stream.whole) == (2.0, 1, True)


def test_what_the_engine_no_longer_remembers_is_lost_and_counted() -> None:
    engine = Engine(can_replay=True)
    engine.live(stored([11], [1]))
    engine.lose()
    engine.lose()
    engine.live(stored([12], [2], parent=11))
    engine.replay(first=2)
    assert (engine.hit(1, 2), engine.count.lost_batches, engine.wants()) == (2.0, 1, None)


def test_a_replay_that_brings_nothing_is_not_asked_for_again() -> None:
    engine = Engine(can_replay=True)
    engine.live(stored([11], [1]))
    engine.lose()
    engine.live(stored([12], [2], parent=11))
    engine.stream.replay_ended(True)
    assert (engine.wants(), engine.hit(1, 2), engine.count.lost_batches) == (None, 2.0, 1)


def test_a_failed_replay_loses_the_gap_and_goes_on() -> None:
    engine = Engine(can_replay=True)
    engine.live(stored([11], [1]))
    engine.lose(stored([12], [2], parent=11))
    engine.live(stored([13], [3], parent=11))
    engine.stream.replay_ended(False)
    assert (engine.hit(1, 3), engine.count.failed_replays, engine.count.lost_batches) == (2.0, 1, 1)
    assert not engine.stream.whole


def test_holes_in_a_replay_are_asked_for_again() -> None:
    engine = Engine(can_replay=True)
    engine.live(stored([11], [1]))
    for key in (12, 13, 14, 15):
        engine.lose(stored([key], [key - 10], parent=key - 1))
    engine.live(stored([16], [6], parent=15))
    for seq in (0, 1, 3):
        engine.stream.replayed(seq, engine.history.payloads[seq])
    assert engine.stream.spoilt
    engine.stream.replay_ended(False)
    assert engine.wants() == 1
    for seq in (1, 2, 3):  # and then nothing, not even the end
        engine.stream.replayed(seq, engine.history.payloads[seq])
    engine.stream.replay_ended(False)
    assert engine.wants() == 3
    engine.replay()
    assert (engine.hit(1, 2, 3, 4, 5, 6), engine.wants()) == (6.0, None)
    assert (engine.count.lost_batches, engine.count.failed_replays, engine.count.orphan_blocks) == (0, 0, 0)


def test_orphans_are_recovered_by_a_rebuild() -> None:
    engine = Engine()
    engine.stream = KvStream(SLOT, engine.index, can_replay=True)
    engine.lose(stored([11], [1]))
    engine.stream.replay_ended(False)
    engine.live(stored([12], [2], parent=11))
    assert (engine.hit(1, 2), engine.count.orphan_blocks) == (0.0, 1)
    engine.stream.rebuild()
    engine.replay()
    assert (engine.hit(1, 2), engine.stream.whole) == (2.0, True)


def test_a_rebuild_that_fails_leaves_what_was_known() -> None:
    engine = Engine(can_replay=True)
    engine.live(stored([11], [1]))
    engine.stream.rebuild()
    engine.stream.replay_ended(False)
    engine.live(stored([12], [2], parent=11))
    assert (engine.hit(1, 2), engine.count.lost_batches) == (2.0, 0)


def test_an_engine_that_restarted_unseen_gives_itself_away_in_the_replay() -> None:
    engine = Engine(can_replay=True)
    engine.live(stored([11], [1]))
    engine.live(stored([12], [2]))
    engine.restart()
    for key in (21, 22, 23):
        engine.lose(stored([key], [key]))
    engine.live(stored([24], [24]))
    assert engine.wants() == 1
    engine.replay()
    assert (engine.wants(), engine.hit(1)) == (0, 0.0)
    engine.replay()
    assert [engine.hit(block) for block in (1, 2, 21, 22, 23, 24)] == [0.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    assert (engine.count.restarts, engine.count.lost_batches, engine.wants()) == (1, 0, None)


def test_batches_held_back_are_bounded_and_asked_for_again() -> None:
    engine = Engine(can_replay=True)
    engine.lose(stored([11], [11]))
    for key in range(12, 12 + MAX_HELD + 50):
        engine.live(stored([key], [key]))
    engine.stream.replayed(0, engine.history.payloads[0])
    engine.stream.replay_ended(True)
    assert (engine.hit(11 + MAX_HELD), engine.hit(12 + MAX_HELD)) == (1.0, 0.0)
    engine.live(stored([9], [9]))
    engine.replay()
    assert (len(engine.index), engine.count.lost_batches) == (MAX_HELD + 52, 0)


def test_a_closed_stream_writes_no_more() -> None:
    engine = Engine(can_replay=True)
    engine.stream.rebuild()
    engine.stream.closed = True
    engine.live(stored([11], [1]))
    engine.stream.replayed(0, engine.history.payloads[0])
    engine.stream.replay_ended(True)
    assert len(engine.index) == 0


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["live", "lost", "twice", "restart"]), st.integers(0, 9)), max_size=40),
    st.booleans(),
)
def test_with_a_replay_the_index_ends_as_the_engine_is(steps: list[tuple[str, int]], late: bool) -> None:
    """Whatever is lost, doubled or restarted, a last live batch and the replays bring the index into step."""
    engine, expected, unseen = Engine(can_replay=True), 0, False
    cache: dict[int, int] = {}
    for what, block in [*steps, ("live", 98), ("live", 99)]:
        if what == "restart":
            engine.restart()
            cache, unseen = {}, True
            continue
        events = [stored([block], [block])]
        if cache.get(block, 0) > 1:
            events = [removed(block)]
        cache[block] = cache.get(block, 0) + (1 if events[0]["type"] == "BlockStored" else -1)
        message = engine.lose(*events)
        if what == "lost" or (unseen and message[0] == expected > 0):  # no number could tell the latter's restart
            continue
        for _ in range(2 if what == "twice" else 1):
            engine.deliver(message)
        expected, unseen = message[0] + 1, False
        while engine.wants() is not None and not late:
            engine.replay()
    while engine.wants() is not None:
        engine.replay()
    assert {block for block in range(100) if engine.hit(block)} == set(cache)
    engine.live(*(removed(block) for block in cache))
    assert {block for block in range(100) if engine.hit(block)} == {block for block in cache if cache[block] > 1}


def _messages(frames: list[list[str]]) -> list[tuple[int, bytes]]:
    raw = [[base64.b64decode(frame) for frame in message] for message in frames]
    return [(int.from_bytes(message[-2], "big"), message[-1]) for message in raw]


def test_predicted_hits_equal_what_a_real_vllm_reported() -> None:
    engine, size = Engine(), GOLDEN["block_size"]
    for message in _messages(GOLDEN["warm_up"]["frames"]):
        engine.deliver(message)
    predicted, reported = [], []
    for step in GOLDEN["steps"]:
        if "cached_tokens" in step:
            ids, salt = step["prompt_token_ids"], step["body"].get("cache_salt")
            chain = chain_tokens(ids, size, root(None, salt))
            blocks = float(engine.index.matched(chain, np.array([SLOT]))[0])
            predicted.append(min(blocks, (len(ids) - 1) // size) * size)
            reported.append(step["cached_tokens"])
        for message in _messages(step["frames"]):
            engine.deliver(message)
    assert predicted == reported
    assert sum(reported) > 0
    assert (engine.count.orphan_blocks, engine.count.malformed, engine.count.unknown_events) == (0, 0, 0)


def test_a_real_replay_brings_the_index_to_the_same_state() -> None:
    live, replayed = Engine(), Engine()
    frames = [GOLDEN["warm_up"], *GOLDEN["steps"]]
    messages = [message for step in frames for message in _messages(step["frames"])]
    for message in messages:
        live.deliver(message)
    for message in messages[:3]:
        replayed.deliver(message)
    replayed.stream.can_replay = True
    replayed.deliver(messages[-1])
    assert replayed.wants() == 2
    *answers, end = _messages(GOLDEN["replay_from_3"])
    for answer in answers:
        replayed.stream.replayed(*answer)
    assert end == ((1 << 64) - 1, b"")
    replayed.stream.replay_ended(True)
    assert (len(replayed.index), replayed.count.lost_batches) == (len(live.index), 0)
