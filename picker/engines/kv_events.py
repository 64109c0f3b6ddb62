"""KV events as an engine publishes them: msgpack bytes in, one `KvBatch` out. Pure.

A payload is an array [seconds, [event, ...], data parallel rank]. vLLM 0.32 sends events as maps with a "type"; older
ones, SGLang and TensorRT-LLM as arrays that start with it. Both forms are read. What cannot be read is counted, never
raised.
"""

import math
from dataclasses import dataclass
from typing import Any

import msgspec

MAX_PAYLOAD_BYTES = 8 << 20
"""A batch that stores a million tokens takes about 5 MiB."""
_NIL = b"\xc0"

Hash = int | bytes
"""An engine's block hash as it travels: 64 bits, or all bytes of a digest."""


class BlockStored(msgspec.Struct, frozen=True):
    """`block_hashes[i]` was computed for the i-th run of `block_size` in `token_ids`, after `parent_block_hash`."""

    block_hashes: list[Hash]
    parent_block_hash: Hash | None
    token_ids: list[int]
    block_size: int
    lora_id: int | None = None
    medium: str | None = None
    lora_name: str | None = None
    extra_keys: msgspec.Raw = msgspec.Raw(_NIL)
    group_idx: int | None = None
    kv_cache_spec_kind: str | None = None

    def extras(self) -> list[bytes] | None:
        """What else than tokens went into each block's hash, as msgpack, b"" where nothing did; None where nothing
        did in any. Raises msgspec.DecodeError on a value of another shape."""
        raw, blocks = bytes(self.extra_keys), len(self.block_hashes)
        if raw == _NIL or (len(raw) <= blocks + 5 and raw.endswith(_NIL * blocks)):
            return None
        extras = [b"" if item in (_NIL, b"\x90") else item for item in map(bytes, _EXTRAS.decode(raw))]
        if len(extras) != blocks:
            raise msgspec.ValidationError(f"{len(extras)} extra_keys for {blocks} blocks")
        return extras


class BlockRemoved(msgspec.Struct, frozen=True):
    """One copy of each of these blocks is gone."""

    block_hashes: list[Hash]
    medium: str | None = None
    group_idx: int | None = None


class AllBlocksCleared(msgspec.Struct, frozen=True):
    """The cache is empty."""


class _StoredMap(BlockStored, frozen=True, tag_field="type", tag="BlockStored"): ...


class _StoredArray(BlockStored, frozen=True, array_like=True, tag="BlockStored"): ...


class _RemovedMap(BlockRemoved, frozen=True, tag_field="type", tag="BlockRemoved"): ...


class _RemovedArray(BlockRemoved, frozen=True, array_like=True, tag="BlockRemoved"): ...


class _ClearedMap(AllBlocksCleared, frozen=True, tag_field="type", tag="AllBlocksCleared"): ...


class _ClearedArray(AllBlocksCleared, frozen=True, array_like=True, tag="AllBlocksCleared"): ...


Event = BlockStored | BlockRemoved | AllBlocksCleared


class _MapBatch(msgspec.Struct, array_like=True):
    ts: float
    events: list[_StoredMap | _RemovedMap | _ClearedMap]
    rank: int | None = None


class _ArrayBatch(msgspec.Struct, array_like=True):
    ts: float
    events: list[_StoredArray | _RemovedArray | _ClearedArray]
    rank: int | None = None


class _RawBatch(msgspec.Struct, array_like=True):
    ts: float
    events: list[msgspec.Raw]
    rank: int | None = None


class _TypeOfMap(msgspec.Struct):
    type: str


class _TypeOfArray(msgspec.Struct, array_like=True):
    type: str


_EXTRAS = msgspec.msgpack.Decoder(list[msgspec.Raw])
_BATCHES: tuple[msgspec.msgpack.Decoder[Any], ...] = (
    msgspec.msgpack.Decoder(_MapBatch),
    msgspec.msgpack.Decoder(_ArrayBatch),
)
_RAW_BATCH = msgspec.msgpack.Decoder(_RawBatch)
_EVENTS: tuple[msgspec.msgpack.Decoder[Any], ...] = (
    msgspec.msgpack.Decoder(_StoredMap | _RemovedMap | _ClearedMap),
    msgspec.msgpack.Decoder(_StoredArray | _RemovedArray | _ClearedArray),
)
_TYPES: tuple[msgspec.msgpack.Decoder[Any], ...] = (
    msgspec.msgpack.Decoder(_TypeOfMap),
    msgspec.msgpack.Decoder(_TypeOfArray),
)
_KNOWN = {"BlockStored", "BlockRemoved", "AllBlocksCleared"}
_UNREADABLE = (msgspec.DecodeError, RecursionError)


@dataclass(frozen=True, slots=True)
class KvBatch:
    """The events of one engine step, in order."""

    ts: float
    """When the engine published it, seconds since the epoch by the engine's clock."""
    events: tuple[Event, ...] = ()
    rank: int | None = None
    """Data parallel rank."""
    unknown: int = 0
    """Events of types that we do not know; left out."""
    malformed: int = 0
    """Events of known types that cannot be read; left out."""


@dataclass(frozen=True, slots=True)
class BadBatch:
    """A payload that is no batch at all, and why."""

    reason: str


def decode(payload: bytes) -> KvBatch | BadBatch:
    """Read one payload of at most MAX_PAYLOAD_BYTES."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        return BadBatch(f"{len(payload)} bytes, more than {MAX_PAYLOAD_BYTES}")
    for decoder in _BATCHES:
        try:
            batch = decoder.decode(payload)
        except _UNREADABLE:
            continue
        return _checked(batch.ts, batch.events, batch.rank, 0, 0)
    try:
        raw = _RAW_BATCH.decode(payload)
    except _UNREADABLE as error:
        return BadBatch(f"not an event batch: {error}"[:200])
    events, unknown, malformed = [], 0, 0
    for item in raw.events:
        event = _event(item)
        if event is None:
            malformed += 1
        elif isinstance(event, str):
            unknown += 1
        else:
            events.append(event)
    return _checked(raw.ts, events, raw.rank, unknown, malformed)


def _checked(ts: float, events: list[Event], rank: int | None, unknown: int, malformed: int) -> KvBatch | BadBatch:
    if not math.isfinite(ts):
        return BadBatch(f"time is {ts}")
    sound = tuple(event for event in events if not isinstance(event, BlockStored) or _sound(event))
    return KvBatch(ts, sound, rank, unknown, malformed + len(events) - len(sound))


def _sound(event: BlockStored) -> bool:
    return event.block_size > 0 and len(event.token_ids) == event.block_size * len(event.block_hashes)


def _event(raw: msgspec.Raw) -> Event | str | None:
    """The event, the name of an unknown type, or None for what cannot be read."""
    first = bytes(memoryview(raw)[:1])
    form = 1 if b"\x90" <= first <= b"\x9f" or first in (b"\xdc", b"\xdd") else 0
    try:
        event: Event = _EVENTS[form].decode(raw)
        return event
    except _UNREADABLE:
        pass  # which of the two it is, an unknown type or a broken known one, is for the type to tell
    try:
        name: str = _TYPES[form].decode(raw).type
    except _UNREADABLE:
        return None
    return None if name in _KNOWN else name
