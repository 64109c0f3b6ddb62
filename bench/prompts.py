"""Chat requests with shared prefixes: 64 groups, three quarters of every prompt common to its group, the rest unique.

Every body is new: no request repeats another's suffix, in no round, so nothing is ever matched whole.
"""

import json
import random

GROUPS = 64
SHARED = 0.75
_SYLLABLES = ("ka", "ro", "mi", "ten", "sul", "va", "or", "ne", "li", "dra", "po", "shi", "qu", "el", "un", "ba")
_LINE = 12


def chat_requests(count: int, size: int, *, seed: int, stream: bool = False, answer_tokens: int = 8) -> list[bytes]:
    """`count` HTTP requests with bodies of `size` bytes each, give or take a word. `seed` makes them unlike others'."""
    rng = random.Random(seed)
    frame = len(_body("", "", stream, answer_tokens))
    shared = int(max(0, size - frame) * SHARED)
    groups = [_text(random.Random(f"group {size} {group}"), shared) for group in range(GROUPS)]
    return [
        _request(_body(rng.choice(groups), _text(rng, size - frame - shared), stream, answer_tokens))
        for _ in range(count)
    ]


def _body(system: str, user: str, stream: bool, answer_tokens: int) -> bytes:
    body = {
        "model": "sim",
        "stream": stream,
        "max_tokens": answer_tokens,
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
    }
    return json.dumps(body, separators=(",", ":")).encode()


def _request(body: bytes) -> bytes:
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nuser-agent: bench\r\naccept: */*\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    )


def _text(rng: random.Random, size: int) -> str:
    """Words in lines, `size` characters as JSON escapes them."""
    words: list[str] = []
    length = 0
    while length < size:
        word = "".join(rng.choices(_SYLLABLES, k=rng.randint(1, 4)))
        end = "\n" if len(words) % _LINE == _LINE - 1 else " "
        words.append(word + end)
        length += len(word) + (2 if end == "\n" else 1)
    return "".join(words)[: size - sum(word.endswith("\n") for word in words)]
