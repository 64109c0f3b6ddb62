"""From an engine's block hashes to ours: tokens hashed again, in chains of our own. Pure.

Engines differ in hash function and seed and may change both; the tokens in their events do not.
"""

from itertools import pairwise

import msgspec
import numpy as np
from xxhash import xxh3_64_intdigest

from picker.engines.kv_events import BlockStored, Hash
from picker.requests.blocks import extend, root
from picker.requests.request import Chain

_GROUP = 0x9E3779B97F4A7C15
_WORD = (1 << 64) - 1


def own_blocks(event: BlockStored, parent: int | None) -> Chain:
    """Our hashes of the blocks in `event`, shape (blocks,); `parent` is ours too, None at the start of a chain.

    A chain starts at root(LoRA, cache salt). The salt is the one extra key of the first block beside the LoRA name,
    which every block carries. Any other extra key (an image, say) is mixed in, so that the block never equals one of
    mere tokens. Raises ValueError on token ids outside 0..2**32-1, msgspec.DecodeError on extra keys of no known shape.
    """
    lora = event.lora_name or (None if event.lora_id is None else f"lora_id {event.lora_id}")
    extras = event.extras()
    salt: str | None = None
    beside: list[list[object]] = []
    if extras is not None:
        beside = [_beside(extra, lora) for extra in extras]
        match beside[0]:
            case [str(salt)] if parent is None:
                beside[0] = []
    start = root(lora, salt) if parent is None else parent
    if extras is None or not any(beside):
        return extend(start, event.token_ids, event.block_size)
    chains = []
    for i, (first, after) in enumerate(pairwise(range(0, len(event.token_ids) + 1, event.block_size))):
        if beside[i]:
            start = xxh3_64_intdigest(start.to_bytes(8, "big") + extras[i])
        chains.append(extend(start, event.token_ids[first:after], event.block_size))
        start = int(chains[-1][0])
    return np.concatenate(chains)


def _beside(extra: bytes, lora: str | None) -> list[object]:
    """The extra keys of one block other than the LoRA name."""
    keys = msgspec.msgpack.decode(extra, type=list[object]) if extra else []
    if lora is not None and lora in keys:
        keys.remove(lora)
    return keys


def keys_of(hashes: list[Hash], group: int | None) -> list[int]:
    """Index keys of the engine's own hashes, 64 unsigned bits each.

    Of a digest the last 8 bytes count, big-endian, as vLLM shortens them. Cache groups use the same hashes, each for
    itself, so that the group is part of the key.
    """
    mask = (group or 0) * _GROUP
    return [((int.from_bytes(h[-8:], "big") if isinstance(h, bytes) else h) ^ mask) & _WORD for h in hashes]
