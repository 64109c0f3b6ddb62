"""Token counts out of an answer as it passes, streamed (SSE) or whole, OpenAI's or Anthropic's.

Only `"usage"` objects are ever decoded; the rest is searched at memchr speed. Inside a JSON string the quotes around
the word would be escaped, so the text of an answer cannot pose as its usage. Where several are seen (Anthropic tells
the prompt first and the output later), each figure's last value counts. Memory is bounded whatever comes.
"""

import re
from typing import Any

import msgspec

KEY = b'"usage"'
"""What alone is looked for."""
SAYS_NOTHING = b":null"
"""Behind the key it is of no use."""
_MAX_OBJECT = 16 * 1024
_MAX_COUNT = 2**40
_STRUCTURE = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[{}]', re.DOTALL)
_BLANK = b" \t\r\n"


class _Details(msgspec.Struct, gc=False):
    cached_tokens: Any = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: Any = None
    completion_tokens: Any = None
    prompt_tokens_details: _Details | None = None
    input_tokens: Any = None
    output_tokens: Any = None
    input_tokens_details: _Details | None = None
    cache_read_input_tokens: Any = None
    cache_creation_input_tokens: Any = None


_USAGE = msgspec.json.Decoder(_Usage)


class Usage(msgspec.Struct, frozen=True, gc=False):
    """What an answer said of its own cost, in tokens; None where it said nothing. Cached tokens are part of the
    prompt's."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None


_NOTHING = Usage()


class UsageReader:
    """Feed an answer's body, chunk by chunk, cut anywhere. Never raises on what it is fed."""

    __slots__ = ("_carry", "_object", "_usage")

    def __init__(self) -> None:
        self._usage = _NOTHING
        self._carry = b""
        self._object: bytearray | None = None

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        if self._object is not None:
            chunk = self._complete(chunk)
        while chunk:
            data = self._carry + chunk if self._carry else chunk
            at = data.find(KEY)
            if at < 0:
                self._carry = _possible_start(data) if b'"' in data[1 - len(KEY) :] else b""
                return
            value = data[at + len(KEY) :].lstrip(_BLANK)
            if value[:1] == b":":
                value = value[1:].lstrip(_BLANK)
                if not value:
                    self._carry = KEY + b":"
                    return
                if value[:1] == b"{":
                    self._carry = b""
                    self._object = bytearray()
                    chunk = self._complete(value)
                    continue
            elif not value:
                self._carry = KEY
                return
            self._carry = b""
            chunk = value

    @property
    def idle(self) -> bool:
        """What came so far does not matter to what comes: neither the key nor a value is cut off."""
        return not self._carry and self._object is None

    def finish(self) -> Usage | None:
        """The counts, or None where the answer told none."""
        return None if self._usage == _NOTHING else self._usage

    def _complete(self, chunk: bytes) -> bytes:
        """Add to the object being collected; gives what follows once it is whole."""
        held = self._object
        if held is None:
            return chunk
        # An object that grows past the bound is dropped; the search goes on behind it.
        room = _MAX_OBJECT - len(held)
        before = len(held)
        held += chunk[:room]
        end = _object_end(held) if b"}" in chunk[:room] else 0
        if end:
            self._take(bytes(held[:end]))
            self._object = None
            return chunk[end - before :]
        if len(held) >= _MAX_OBJECT:
            self._object = None
            return chunk[room:]
        return b""

    def _take(self, value: bytes) -> None:
        try:
            seen = _USAGE.decode(value)
        except (ValueError, RecursionError):
            return
        prompt, cached = _count(seen.prompt_tokens), None
        details = seen.prompt_tokens_details or seen.input_tokens_details
        if details is not None:
            cached = _count(details.cached_tokens)
        if prompt is None and (fresh := _count(seen.input_tokens)) is not None:
            # Anthropic counts cached tokens beside the fresh ones, OpenAI among them.
            cached = cached if cached is not None else _count(seen.cache_read_input_tokens)
            beside = (seen.cache_read_input_tokens, seen.cache_creation_input_tokens)
            prompt = fresh + sum(_count(value) or 0 for value in beside)
        old = self._usage
        completion = _count(seen.completion_tokens)
        completion = completion if completion is not None else _count(seen.output_tokens)
        self._usage = Usage(
            prompt if prompt is not None else old.prompt_tokens,
            completion if completion is not None else old.completion_tokens,
            cached if cached is not None else old.cached_tokens,
        )


def _possible_start(data: bytes) -> bytes:
    """The longest end of `data` that could be the beginning of the key."""
    at = data.rfind(b'"', max(0, len(data) - len(KEY) + 1))
    while at >= 0:
        if KEY.startswith(data[at:]):
            return data[at:]
        at = data.rfind(b'"', max(0, len(data) - len(KEY) + 1), at)
    return b""


def _object_end(data: bytearray) -> int:
    """Length of the JSON object that `data` begins with, 0 while it is not whole."""
    depth = 0
    for match in _STRUCTURE.finditer(data):
        token = match.group()
        if token == b"{":
            depth += 1
        elif token == b"}":
            depth -= 1
            if depth == 0:
                return match.end()
    return 0


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_COUNT else None
