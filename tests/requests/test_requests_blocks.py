from random import Random
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from picker.requests.blocks import chain_bytes, chain_tokens, extend, root

ids = st.lists(st.integers(0, 2**32 - 1), max_size=80)


@given(ids, st.integers(1, 20), st.integers(0, 4))
def test_a_chain_made_in_two_steps_is_the_chain_made_in_one(tokens: list[int], block: int, blocks: int) -> None:
    whole = chain_tokens(tokens, block, root())
    cut = min(blocks, len(whole))
    head = chain_tokens(tokens[: cut * block], block, root())
    parent = int(head[-1]) if cut else root()
    tail = extend(parent, tokens[cut * block :], block)
    np.testing.assert_array_equal(np.concatenate([head, tail]), whole)


@given(ids, ids, st.integers(1, 8))
def test_keys_agree_as_long_as_the_tokens_do(first: list[int], second: list[int], block: int) -> None:
    one, two = chain_tokens(first, block, 7), chain_tokens(second, block, 7)
    for at, (left, right) in enumerate(zip(one.tolist(), two.tolist(), strict=False)):
        assert (left == right) == (first[: (at + 1) * block] == second[: (at + 1) * block])


def test_only_whole_blocks_count() -> None:
    assert len(chain_tokens(range(47), 16, root())) == 2
    assert len(chain_bytes(b"x" * 255, 256, root())) == 0


def test_adapter_and_salt_keep_chains_apart() -> None:
    roots = [root(), root("a"), root(None, "a"), root("a", "a"), root(""), root("ab", "c"), root("a", "bc")]
    assert len(set(roots)) == len(roots)


@pytest.mark.parametrize("kind", [np.uint32, np.int64])
def test_lists_and_arrays_of_ids_give_the_same_keys(kind: type[np.integer[Any]]) -> None:
    ids: NDArray[Any] = np.arange(64, dtype=kind)
    np.testing.assert_array_equal(chain_tokens(list(range(64)), 16, 1), chain_tokens(ids, 16, 1))


def test_keys_are_the_documented_hash() -> None:
    parent = root("lora", "salt")
    block = np.arange(16, dtype="<u4").tobytes()
    first = xxhash.xxh3_64_intdigest(parent.to_bytes(8, "big") + block)
    second = xxhash.xxh3_64_intdigest(first.to_bytes(8, "big") + block)
    assert chain_tokens(list(range(16)) * 2, 16, parent).tolist() == [first, second]


@given(st.integers(1, 140), st.integers(0, 7), st.integers(0, 12), st.integers(0, 2**64 - 1), st.randoms())
def test_blocks_of_any_size_have_the_documented_hash(
    words: int, more: int, count: int, parent: int, random: Random
) -> None:
    size = 8 * words + more
    data = random.randbytes(count * size + more)
    expected, key = [], parent
    for at in range(0, count * size, size):
        key = xxhash.xxh3_64_intdigest(key.to_bytes(8, "big") + data[at : at + size])
        expected.append(key)
    assert chain_bytes(data, size, parent).tolist() == expected


@pytest.mark.parametrize("bad", [[-1], [2**32], np.array([-1]), np.array([2**32]), ["x"], [1.5], [None]])
def test_what_is_no_token_id_is_an_error(bad: Any) -> None:
    with pytest.raises(ValueError, match="token ids"):
        chain_tokens(bad, 1, 0)
