"""Which API a path speaks: the longest known path suffix wins, everything else passes through."""

import enum
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

from picker.requests.request import Api


class Shape(enum.Enum):
    """How a body of this route is laid out; one decoder each (bodies.py)."""

    CHAT = "chat"
    PROMPT = "prompt"
    INPUT = "input"
    RESPONSES = "responses"
    MESSAGES = "messages"
    TOKEN_IDS = "token_ids"
    MODEL_ONLY = "model_only"

    # There is one of each; Enum would hash the name anew each time.
    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class Route:
    """`renderable`: its prompt can be rebuilt token by token (exact mode). `checked`: a body that cannot be read is
    refused; elsewhere the engine is left to judge it."""

    api: Api
    shape: Shape
    renderable: bool = True
    checked: bool = True


PASSTHROUGH = Route(Api.PASSTHROUGH, Shape.MODEL_ONLY, renderable=False, checked=False)
# No engine step is spent on these: they cost the API server's CPU only.
_TOKENIZE = Route(Api.TOKENIZE, Shape.MODEL_ONLY, renderable=False, checked=False)

SUFFIXES: dict[str, Route] = {
    "chat/completions": Route(Api.CHAT, Shape.CHAT),
    "chat/completions/batch": Route(Api.CHAT, Shape.CHAT, renderable=False),
    "v2/chat": Route(Api.CHAT, Shape.CHAT, renderable=False),
    "completions": Route(Api.COMPLETIONS, Shape.PROMPT),
    "responses": Route(Api.RESPONSES, Shape.RESPONSES),
    "embeddings": Route(Api.EMBEDDINGS, Shape.INPUT),
    "messages": Route(Api.MESSAGES, Shape.MESSAGES),
    "inference/v1/generate": Route(Api.GENERATE, Shape.TOKEN_IDS),
    "messages/count_tokens": _TOKENIZE,
    "chat/completions/render": _TOKENIZE,
    "completions/render": _TOKENIZE,
    "tokenize": _TOKENIZE,
    "detokenize": _TOKENIZE,
}
_LONGEST = max(suffix.count("/") + 1 for suffix in SUFFIXES)
_MAX_PATH = 1024


def route(path: str) -> Route:
    """The route of an HTTP path, with or without prefix, query, trailing slash or percent escapes. Never fails.

    >>> route("/openai/v1/chat/completions/?api-version=1").api
    <Api.CHAT: 'chat'>
    """
    return _route(path.partition("?")[0].partition("#")[0][:_MAX_PATH])


@lru_cache(maxsize=256)
def _route(path: str) -> Route:
    # Engines decode escapes before they route, so an escaped letter must not hide a body from us.
    segments = [segment for segment in unquote(path).split("/") if segment]
    for start in range(max(0, len(segments) - _LONGEST), len(segments)):
        found = SUFFIXES.get("/".join(segments[start:]))
        if found is not None:
            return found
    return PASSTHROUGH
