"""Prompts that the client sends as token ids."""

from typing import Annotated

import msgspec

from picker.requests.bodies import Body, Input, Prompt, TokenIds, bad, kind
from picker.requests.text import is_ids

_Id = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
_IDS = msgspec.json.Decoder(list[_Id])
_ID_LISTS = msgspec.json.Decoder(list[list[_Id]])


def client_ids(decoded: Body) -> list[list[int]] | None:
    """Prompts given as token ids, at least one, or None where the prompt is text. Raises BadRequest."""
    match decoded:
        case TokenIds():
            name, raw = "token_ids", decoded.token_ids
        case Prompt():
            name, raw = "prompt", decoded.prompt
        case Input():
            name, raw = "input", decoded.input
        case _:
            return None
    if not isinstance(decoded, TokenIds) and not is_ids(raw):
        return None
    value = bytes(raw)
    try:
        prompts = _ID_LISTS.decode(value) if value[1:].lstrip()[:1] == b"[" else [_IDS.decode(value)]
    except (msgspec.DecodeError, RecursionError) as error:
        raise bad(f"'{name}' must be a list of token ids", param=name, code="invalid_type") from error
    if not prompts or not prompts[0]:
        raise bad(f"'{name}' is empty", param=name, code="empty_array")
    return prompts


def is_plain(decoded: Body | None) -> bool:
    """Whether the ids are all there is: media in a generate request change the blocks that hold them."""
    return not isinstance(decoded, TokenIds) or (
        kind(decoded.features) in (b"", b"n") and kind(decoded.content_parts) in (b"", b"n")
    )
