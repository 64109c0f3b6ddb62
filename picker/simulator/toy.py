"""Text to tokens and back, for an engine that has no model: four bytes of UTF-8 are one token.

A token's id is its bytes read as a little-endian number, so equal text prefixes give equal token prefixes and ids fit
32 bits. Every piece of a chat (header, content, end mark) starts a token of its own: an answer sent back in the next
turn gives the very tokens that were generated.
"""

import random
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import xxhash

from picker.simulator.trace import WORDS

BYTES_PER_TOKEN = 4
MAX_TOKEN = 2**32 - 1


def encode(text: str) -> list[int]:
    """Token ids of one piece of text; lone surrogates count as "?"."""
    data = text.encode("utf-8", "replace")
    data += bytes(-len(data) % BYTES_PER_TOKEN)
    ids: list[int] = np.frombuffer(data, dtype="<u4").tolist()
    return ids


def decode(tokens: Iterable[int]) -> str:
    """Text of token ids in 0..2**32-1; bytes that are no UTF-8 become U+FFFD."""
    data = b"".join(token.to_bytes(BYTES_PER_TOKEN, "little").rstrip(b"\0") for token in tokens)
    return data.decode("utf-8", "replace")


def render_chat(turns: Iterable[tuple[str, str]], *, add_generation_prompt: bool = True) -> list[int]:
    """Token ids of (role, content) turns, each as `<|role|>\\ncontent<|end|>\\n`, then the answer's own header."""
    tokens: list[int] = []
    for role, content in turns:
        tokens += encode(f"<|{role}|>\n")
        tokens += encode(content)
        tokens += encode("<|end|>\n")
    if add_generation_prompt:
        tokens += encode("<|assistant|>\n")
    return tokens


@lru_cache(maxsize=1)
def _vocabulary() -> tuple[int, ...]:
    return tuple(encode(word + " ")[0] for word in WORDS)


def continuation(prompt: Sequence[int], count: int, seed: int) -> list[int]:
    """`count` generated tokens: words, each drawn from all tokens before it and the seed, as greedy decoding would have
    it: equal prompts get equal answers, and a prompt that ends with half an answer gets the other half."""
    words = _vocabulary()
    context = xxhash.xxh3_64(np.asarray(prompt, dtype=np.uint32).tobytes(), seed=seed & (2**64 - 1))
    tokens = []
    for _ in range(count):
        tokens.append(words[context.intdigest() % len(words)])
        context.update(tokens[-1].to_bytes(BYTES_PER_TOKEN, "little"))
    return tokens


def drawn_length(prompt: Sequence[int], seed: int, limit: int) -> int:
    """An output length for a request that names none: log-normal, median 200, at most `limit`."""
    packed = np.asarray(prompt, dtype=np.uint32).tobytes()
    draw = random.Random(xxhash.xxh3_64_intdigest(packed, seed=~seed & (2**64 - 1)))
    return max(1, min(limit, round(draw.lognormvariate(5.3, 0.8))))
