"""Prefix blocks as chained 64-bit hashes: key i stands for blocks 0..i together.

key[i] = xxh3_64(key[i-1] as 8 bytes + block i), key[-1] being the root. Only whole blocks count, as in an engine's
prefix cache. The same two functions serve requests and KV events, so equal tokens under an equal root give equal keys
whatever hash the engine itself uses.
"""

import struct
import sys
from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_digest, xxh3_64_intdigest

from picker.requests.request import EMPTY_CHAIN, Chain
from picker.requests.xxh3 import LEAST_BYTES, MOST_BYTES, chain

_MANY = 4
"""From so many blocks on, one call of a kernel costs less than a call for each."""
_LITTLE = sys.byteorder == "little"
_DIGEST, _KEY = np.dtype(">u8"), np.dtype(np.uint64)


def root(lora: str | None = None, salt: str | None = None) -> int:
    """The chain's starting value: blocks are shared only under the same adapter and the same cache salt."""
    parts = [b"\0" if part is None else b"\1" + part.encode("utf-8", "surrogatepass") for part in (lora, salt)]
    return int(xxh3_64_intdigest(len(parts[0]).to_bytes(8, "big") + parts[0] + parts[1]))


def chain_bytes(data: bytes, block_bytes: int, parent: int) -> Chain:
    """Keys of the whole blocks of `data`, shape (len(data) // block_bytes,)."""
    count = len(data) // block_bytes
    if not count:
        return EMPTY_CHAIN
    if count >= _MANY and LEAST_BYTES <= block_bytes <= MOST_BYTES and block_bytes % 8 == 0 and _LITTLE:
        keys = np.empty(count + 1, _KEY)
        keys[0] = parent
        chain(np.frombuffer(data, _KEY, count * block_bytes // 8), keys)
        return keys[1:]
    digest = parent.to_bytes(8, "big")
    if count == 1:
        return np.array([xxh3_64_intdigest(digest + data[:block_bytes])], dtype=np.uint64)
    blocks = struct.unpack(f"{block_bytes}s" * count, data[: count * block_bytes])
    digests = [digest := xxh3_64_digest(digest + block) for block in blocks]
    return np.frombuffer(b"".join(digests), _DIGEST).astype(_KEY)


def chain_tokens(ids: Sequence[int] | NDArray[np.uint32], block_size: int, root: int) -> Chain:
    """Keys of the whole blocks of `block_size` token ids, shape (len(ids) // block_size,).

    Raises ValueError for ids outside 0..2**32-1 and for anything that is not an integer.
    """
    return chain_bytes(token_bytes(ids), 4 * block_size, root)


def extend(parent_hash: int, ids: Sequence[int] | NDArray[np.uint32], block_size: int) -> Chain:
    """Keys of the blocks that follow the block whose key is `parent_hash`; raises as `chain_tokens`."""
    return chain_bytes(token_bytes(ids), 4 * block_size, parent_hash)


def token_bytes(ids: Sequence[int] | NDArray[np.uint32]) -> bytes:
    """Token ids as little-endian unsigned 32-bit; raises as `chain_tokens`."""
    if isinstance(ids, np.ndarray) and ids.dtype == np.uint32:
        return ids.astype("<u4", copy=False).tobytes()
    try:
        packed = array("I", ids)
    except (OverflowError, TypeError) as error:
        raise ValueError(f"token ids must be integers in 0..2**32-1: {error}") from error
    if not _LITTLE:
        packed.byteswap()
    return packed.tobytes()
