"""KV events in vLLM's wire form: one msgpack array a batch, one map an event."""

from collections.abc import Sequence
from typing import Any

import msgspec

from picker.simulator.sequence import Cleared, KvEvent, Removed, Stored


def encode_batch(unix_s: float, events: Sequence[KvEvent], block_size: int) -> bytes:
    """Payload of one message: [time, [event, ...], data-parallel rank]."""
    return msgspec.msgpack.encode([unix_s, [_event(event, block_size) for event in events], 0])


def _event(event: KvEvent, block_size: int) -> dict[str, Any]:
    match event:
        case Stored(hashes, parent, request, first):
            salted = first == 0 and request.salt
            return {
                "type": "BlockStored",
                "block_hashes": hashes.tolist(),
                "parent_block_hash": parent,
                "token_ids": list(request.tokens[first * block_size : (first + len(hashes)) * block_size]),
                "block_size": block_size,
                "lora_id": None,
                "medium": "GPU",
                "lora_name": None,
                "extra_keys": [[request.salt] if salted and not i else None for i in range(len(hashes))],
                "group_idx": 0,
                "kv_cache_spec_kind": "full_attention",
            }
        case Removed(hashes):
            return {"type": "BlockRemoved", "block_hashes": hashes.tolist(), "medium": "GPU", "group_idx": 0}
        case Cleared():
            return {"type": "AllBlocksCleared"}
