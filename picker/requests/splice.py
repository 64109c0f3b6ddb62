"""Change top-level members of a JSON object in place: every byte that is not the member's stays as it was.

Works on bytes that a strict parser has accepted already. Names are compared after unescaping, and every occurrence of
a repeated name counts.
"""

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import msgspec

_SPACE = re.compile(rb"[ \t\r\n]*+")
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_SCALAR = re.compile(rb"[^,\]}\s]++")
_STRUCTURE = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{}]', re.DOTALL)
_KEY = msgspec.json.Decoder(str)


@dataclass(frozen=True, slots=True)
class Member:
    """One `name: value`. `chunk` spans all between the separators, `value` the value alone; ends excluded."""

    name: str
    chunk: tuple[int, int]
    value: tuple[int, int]


def members(body: bytes) -> Iterator[Member]:
    """The top-level members of the JSON object in `body`, in order. Raises ValueError if it is no JSON object."""
    at = _skip_space(body, 0)
    if body[at : at + 1] != b"{":
        raise ValueError("not a JSON object")
    begin = at = at + 1
    at = _skip_space(body, at)
    if body[at : at + 1] == b"}":
        return
    while True:
        key = _STRING.match(body, at)
        if key is None:
            raise ValueError(f"no member name at byte {at}")
        at = _skip_space(body, key.end())
        if body[at : at + 1] != b":":
            raise ValueError(f"no colon at byte {at}")
        start = _skip_space(body, at + 1)
        end = _value_end(body, start)
        at = _skip_space(body, end)
        yield Member(_KEY.decode(key.group()), (begin, at), (start, end))
        if body[at : at + 1] == b"}":
            return
        if body[at : at + 1] != b",":
            raise ValueError(f"no separator at byte {at}")
        begin = at + 1
        at = _skip_space(body, begin)


def remove(body: bytes, names: Collection[str]) -> bytes:
    """`body` without the members of these names.

    >>> remove(b'{"a": 1, "k\\\\u0076": {}, "b":2}', {"kv"})
    b'{"a": 1, "b":2}'
    """
    return _rebuild(body, lambda member: None if member.name in names else body[slice(*member.chunk)])


def replace(body: bytes, name: str, change: Callable[[bytes], bytes]) -> bytes:
    """`body` with `change` applied to the raw value of every member called `name`."""

    def changed(member: Member) -> bytes:
        (begin, end), (start, stop) = member.chunk, member.value
        if member.name != name:
            return body[begin:end]
        return body[begin:start] + change(body[start:stop]) + body[stop:end]

    return _rebuild(body, changed)


def set_model(body: bytes, model: str) -> bytes:
    """`body` asking for `model`: every top-level model value replaced, or one put in front where there is none."""
    value = msgspec.json.encode(model)
    if any(member.name == "model" for member in members(body)):
        return replace(body, "model", lambda _: value)
    opening = body.index(b"{") + 1
    rest = body[opening:]
    separator = b"" if rest.lstrip()[:1] == b"}" else b","
    return body[:opening] + b'"model":' + value + separator + rest


def _rebuild(body: bytes, keep: Callable[[Member], bytes | None]) -> bytes:
    found = list(members(body))
    if not found:
        return body
    chunks = [chunk for member in found if (chunk := keep(member)) is not None]
    return body[: found[0].chunk[0]] + b",".join(chunks) + body[found[-1].chunk[1] :]


def _skip_space(body: bytes, at: int) -> int:
    match = _SPACE.match(body, at)
    return match.end() if match else at


def _value_end(body: bytes, start: int) -> int:
    first = body[start : start + 1]
    if first == b'"':
        match = _STRING.match(body, start)
    elif first in (b"{", b"["):
        return _container_end(body, start)
    else:
        match = _SCALAR.match(body, start)
    if match is None:
        raise ValueError(f"no value at byte {start}")
    return match.end()


def _container_end(body: bytes, start: int) -> int:
    depth = 0
    for match in _STRUCTURE.finditer(body, start):
        token = match.group()
        if token in (b"{", b"["):
            depth += 1
        elif token in (b"}", b"]"):
            depth -= 1
            if depth == 0:
                return match.end()
    raise ValueError(f"the value at byte {start} does not end")
