"""A chain of blocks under XXH3-64 in one call of compiled code: key by key what the library `xxhash` gives.

The library makes Python objects of every block, which cost more than the hash. Here is the part of XXH3 for messages
of 241 to 1,024 bytes, without a seed: stripes of eight words, whose lanes are taken in pairs since only pairs meet.
(https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md)
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

Words = NDArray[np.uint64]
LEAST_BYTES, MOST_BYTES = 240, 1016
"""Of a block, always whole words; with the key before it a message has 8 bytes more."""

_SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
    "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb"
    "170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)
_STRIPES = np.frombuffer(_SECRET, np.uint64)
_LAST = np.frombuffer(_SECRET[121:185], np.uint64)
_MERGE = np.frombuffer(_SECRET[11:75], np.uint64)
_PRIME = np.uint64(0x9E3779B185EBCA87)
_START = np.array(
    [
        0xC2B2AE3D,
        _PRIME,
        0xC2B2AE3D27D4EB4F,
        0x165667B19E3779F9,
        0x85EBCA77C2B2AE63,
        0x85EBCA77,
        0x27D4EB2F165667C5,
        0x9E3779B1,
    ],
    np.uint64,
)
_AVALANCHE = np.uint64(0x165667919E3779F9)
_LOW, _HALF, _NEXT = np.uint64(0xFFFF_FFFF), np.uint64(32), np.uint64(1)


def _swapping(typing: Any, word: Any) -> Any:
    return types.uint64(types.uint64), lambda context, builder, signature, arguments: builder.bswap(arguments[0])


def _folding(typing: Any, one: Any, other: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = context.get_value_type(types.uint64).__class__(128)
        product = builder.mul(*(builder.zext(each, wide) for each in arguments))
        upper = builder.lshr(product, wide(64))
        return builder.trunc(builder.xor(product, upper), context.get_value_type(types.uint64))

    return types.uint64(types.uint64, types.uint64), code


_swapped = cast(Callable[[np.uint64], np.uint64], intrinsic(_swapping))
"""The word's bytes the other way round."""
_folded = cast(Callable[[np.uint64, np.uint64], np.uint64], intrinsic(_folding))
"""The upper half of a product of 128 bits upon the lower."""


@njit(cache=True)
def _mixed(word: Any, secret: Any) -> Any:
    key = word ^ secret
    return (key & _LOW) * (key >> _HALF)


def _chain(blocks: Words, keys: Words) -> None:
    size = len(blocks) // (len(keys) - 1)
    key = keys[0]
    for i in range(len(keys) - 1):
        total = np.uint64(8 * (size + 1)) * _PRIME
        for lane in range(0, 8, 2):
            one, two = _START[lane], _START[lane + 1]
            for stripe in range(size // 8):
                at = np.uint64(i * size + 8 * stripe + lane)  # a signed place might count from the end
                first, second = blocks[at - _NEXT] if stripe or lane else _swapped(key), blocks[at]
                one += second + _mixed(first, _STRIPES[np.uint64(stripe + lane)])
                two += first + _mixed(second, _STRIPES[np.uint64(stripe + lane + 1)])
            at = np.uint64((i + 1) * size - 8 + lane)
            first, second = blocks[at], blocks[at + _NEXT]
            one += second + _mixed(first, _LAST[lane])
            two += first + _mixed(second, _LAST[lane + 1])
            total += _folded(one ^ _MERGE[lane], two ^ _MERGE[lane + 1])
        total ^= total >> np.uint64(37)
        total *= _AVALANCHE
        key = total ^ total >> _HALF
        keys[i + 1] = key


_ARRAYS = (types.Array(types.uint64, 1, "C", readonly=True), types.Array(types.uint64, 1, "C"))
_AS: dict[str, Any] = {"cache": True, "_nrt": False}
chain = cast(Callable[[Words, Words], None], njit(types.void(*_ARRAYS), **_AS)(_chain))
"""Of blocks of equal length, read-only, and one key more than blocks: write to keys[i + 1] the hash of keys[i],
big-endian, and block i. Compiled when it is imported."""
