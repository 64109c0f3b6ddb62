"""The prompt as bytes, in the order in which chat templates put its parts: tools, system, then the turns.

Raw JSON stands in for the rendered text: a longer conversation's bytes begin with the shorter one's, which is all that
prefix matching needs. Closing brackets and quotes are left off for that.
"""

import re

from msgspec import Raw

from picker.requests.bodies import ABSENT, Body, Chat, Input, Messages, Prompt, Responses, bad, kind
from picker.requests.route import Shape

_MEDIA = re.compile(rb"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{1024,}+")
_MEDIA_MARKS = (b"base64", b'"input_audio"')
# A look every 1,000 bytes meets any run of 1,024, and costs a tenth of a search for the marks.
_GLANCE = re.compile(rb"[A-Za-z0-9+/]{16}").match
_STRIDE = 1000
_SEPARATOR = b"\0"


def open_list(raw: Raw) -> bytes:
    """A raw JSON list or string without what closes it.

    >>> open_list(Raw(b'[ {"role": "user"} ]'))
    b'[ {"role": "user"}'
    """
    opened = bytes(memoryview(raw)[:-1])
    return opened.rstrip() if opened[:1] == b"[" else opened


def prompt_text(shape: Shape, body: Body) -> bytes:
    """The prompt's bytes; empty where the prompt is token ids or embeddings.

    Raises BadRequest when a required part is missing, null, empty or of an impossible type.
    """
    match body:
        case Chat():
            return _joined(body.tools, _turns("messages", body.messages))
        case Messages():
            return _joined(body.tools, _joined(body.system, _turns("messages", body.messages)))
        case Responses():
            turns = _prompt("input", body.input, texts_only=True)
            return _joined(body.tools, _joined(body.instructions, turns))
        case Prompt():
            if kind(body.prompt) in (b"", b"n") and body.prompt_embeds is not ABSENT:
                return b""
            return _prompt("prompt", body.prompt)
        case Input():
            if body.input is ABSENT and body.messages is not ABSENT:
                return _turns("messages", body.messages)
            return _prompt("input", body.input)
    return b""


def without_media(text: bytes) -> tuple[bytes, int, int]:
    """(text up to the first inline image or sound, bytes of the rest that are text, number of such media)."""
    for at in range(0, len(text), _STRIDE):
        if _GLANCE(text, at):
            break
    else:
        return text, 0, 0
    if not any(mark in text for mark in _MEDIA_MARKS):
        return text, 0, 0
    spans = [match.span() for match in _MEDIA.finditer(text)]
    if not spans:
        return text, 0, 0
    first = spans[0][0]
    return text[:first], len(text) - first - sum(end - start for start, end in spans), len(spans)


def is_ids(raw: Raw) -> bool:
    """Whether a prompt is given as token ids: [1, 2] or [[1, 2], [3]]."""
    return bytes(memoryview(raw)[:64]).translate(None, b" \t\r\n[")[:1].isdigit() and kind(raw) == b"["


def _joined(head: Raw, tail: bytes) -> bytes:
    if head is ABSENT:
        return tail
    return bytes(head) + _SEPARATOR + tail if kind(head) in (b"[", b'"', b"{") else tail


def _turns(name: str, raw: Raw) -> bytes:
    text = open_list(raw)
    if text[:1] != b"[":
        if kind(raw) in (b"", b"n"):
            raise bad(f"'{name}' is required", param=name, code="missing_required_parameter")
        raise bad(f"'{name}' must be a list", param=name, code="invalid_type")
    if text == b"[":
        raise bad(f"'{name}' is empty: at least one is needed", param=name, code="empty_array")
    return text


def _prompt(name: str, raw: Raw, *, texts_only: bool = False) -> bytes:
    if kind(raw) in (b"", b"n"):
        raise bad(f"'{name}' is required", param=name, code="missing_required_parameter")
    if kind(raw) == b'"':
        return open_list(raw)
    if kind(raw) != b"[":
        raise bad(f"'{name}' must be text or a list", param=name, code="invalid_type")
    if not texts_only and is_ids(raw):
        return b""
    text = open_list(raw)
    if text == b"[":
        raise bad(f"'{name}' is empty", param=name, code="empty_array")
    return text
