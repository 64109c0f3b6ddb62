"""What is read out of a KV-event payload, and what is not."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kv_engine import CLEARED, payload, removed, stored, tokens

from picker.engines.kv_events import (
    MAX_PAYLOAD_BYTES,
    AllBlocksCleared,
    BadBatch,
    BlockRemoved,
    BlockStored,
    KvBatch,
    decode,
)
from picker.engines.kv_hashes import keys_of

AS_MAP = stored([7, 8], [1, 2], parent=6, lora_id=1, lora_name="l1")
AS_ARRAY = ["BlockStored", [7, 8], 6, tokens(1, 2), 4, 1, "GPU", "l1"]


def batch(*events: object, ts: float = 1.0, rank: int | None = 0) -> KvBatch:
    decoded = decode(payload(*events, ts=ts, rank=rank))
    assert isinstance(decoded, KvBatch)
    return decoded


@pytest.mark.parametrize("form", [AS_MAP, AS_ARRAY], ids=["map", "array"])
def test_a_stored_event_is_read_in_both_forms(form: object) -> None:
    (event,) = batch(form).events
    assert isinstance(event, BlockStored)
    assert (event.block_hashes, event.parent_block_hash, event.token_ids) == ([7, 8], 6, tokens(1, 2))
    assert (event.block_size, event.lora_id, event.lora_name, event.medium) == (4, 1, "l1", "GPU")


@pytest.mark.parametrize("form", [removed(7, 8), ["BlockRemoved", [7, 8], "GPU"]], ids=["map", "array"])
def test_a_removed_event_is_read_in_both_forms(form: object) -> None:
    (event,) = batch(form).events
    assert isinstance(event, BlockRemoved)
    assert (event.block_hashes, event.medium) == ([7, 8], "GPU")


@pytest.mark.parametrize("form", [CLEARED, ["AllBlocksCleared"]], ids=["map", "array"])
def test_a_cleared_event_is_read_in_both_forms(form: object) -> None:
    assert [type(event).__mro__[1] for event in batch(form).events] == [AllBlocksCleared]


def test_the_oldest_array_form_ends_after_the_block_size() -> None:
    (event,) = batch(["BlockStored", [7], None, tokens(1), 4]).events
    assert isinstance(event, BlockStored)
    assert (event.medium, event.lora_name, event.extras()) == (None, None, None)


def test_both_forms_may_stand_in_one_batch_in_order() -> None:
    events = batch(CLEARED, AS_ARRAY, removed(7)).events
    assert [type(event).__mro__[1] for event in events] == [AllBlocksCleared, BlockStored, BlockRemoved]


def test_time_and_data_parallel_rank_are_kept() -> None:
    assert (batch(ts=12.5, rank=3).ts, batch(ts=12.5, rank=3).rank, batch(rank=None).rank) == (12.5, 3, None)
    assert decode(msgspec.msgpack.encode([5, []])) == KvBatch(5.0)


def test_unknown_types_are_left_out_and_counted() -> None:
    decoded = batch({"type": "BlockMoved", "to": [1]}, ["BlockPinned", 3], AS_MAP)
    assert (len(decoded.events), decoded.unknown, decoded.malformed) == (1, 2, 0)


def test_broken_events_are_left_out_and_counted() -> None:
    wrong_length = {**AS_MAP, "token_ids": [1, 2, 3]}
    decoded = batch({**AS_MAP, "block_hashes": "x"}, ["BlockRemoved"], 5, {"no": "type"}, wrong_length, AS_ARRAY)
    assert (len(decoded.events), decoded.unknown, decoded.malformed) == (1, 0, 5)


def test_fields_that_we_do_not_know_do_no_harm() -> None:
    assert len(batch({**AS_MAP, "locality": "local", "session_id": "s"}, [*AS_ARRAY, None, 0, "full", "?"]).events) == 2


@pytest.mark.parametrize(
    ("garbage", "reason"),
    [
        (b"", "not an event batch"),
        (b"\xc1\xc1", "not an event batch"),
        (b"\x91" * 100_000, "not an event batch"),
        (msgspec.msgpack.encode({"ts": 1.0}), "not an event batch"),
        (payload(ts=float("nan")), "time is nan"),
        (payload(AS_MAP)[:-20], "not an event batch"),
        (b"\x00" * (MAX_PAYLOAD_BYTES + 1), "bytes, more than"),
    ],
)
def test_what_is_no_batch_is_told_with_its_reason(garbage: bytes, reason: str) -> None:
    decoded = decode(garbage)
    assert isinstance(decoded, BadBatch)
    assert reason in decoded.reason


def test_extra_keys_come_per_block() -> None:
    (event,) = batch(stored([7, 8], [1, 2], extra_keys=[["salt"], None])).events
    assert isinstance(event, BlockStored)
    assert event.extras() == [msgspec.msgpack.encode(["salt"]), b""]


@pytest.mark.parametrize("none", [None, [None, None], [[], None]])
def test_extra_keys_of_nothing_are_none(none: object) -> None:
    (event,) = batch(stored([7, 8], [1, 2], extra_keys=none)).events
    assert isinstance(event, BlockStored)
    assert not any(event.extras() or [])


@pytest.mark.parametrize("bad", [7, [None], {"a": 1}])
def test_extra_keys_of_another_shape_are_an_error(bad: object) -> None:
    (event,) = batch(stored([7, 8], [1, 2], extra_keys=bad)).events
    assert isinstance(event, BlockStored)
    with pytest.raises(msgspec.DecodeError):
        event.extras()


def test_a_digest_counts_by_its_last_eight_bytes() -> None:
    digest = bytes(range(32))
    assert keys_of([digest, 5, -1, b"\x01"], None) == [0x18191A1B1C1D1E1F, 5, (1 << 64) - 1, 1]


def test_cache_groups_do_not_share_keys() -> None:
    assert keys_of([5], 0) == [5] != keys_of([5], 1) != keys_of([5], 2)


@given(st.binary(max_size=200))
def test_no_bytes_at_all_raise(data: bytes) -> None:
    assert isinstance(decode(data), KvBatch | BadBatch)


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)
mangled = st.dictionaries(st.sampled_from([*AS_MAP, "extra_keys", "group_idx"]), json_like).map(lambda m: AS_MAP | m)


@given(
    st.lists(st.one_of(json_like, mangled, st.lists(json_like).map(lambda rest: ["BlockStored", *rest])), max_size=4)
)
def test_events_of_any_values_are_read_or_counted(events: list[object]) -> None:
    decoded = batch(*events)
    assert len(decoded.events) + decoded.unknown + decoded.malformed == len(events)
