"""Log-probabilities of a completion, in the form of a chat answer, as vLLM gives either.

A completion has k likeliest tokens and the sampled one, by text; a chat answer the first k of the same list. Tokens of
equal text are one there.
"""

from collections.abc import Mapping
from typing import Any


def of_chat(completion: Mapping[str, Any] | None, top: int) -> dict[str, Any] | None:
    """`top` is the request's `top_logprobs`; below 0 gives all. Raises KeyError, TypeError for anything else.

    >>> of_chat({"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": [{"a": -0.5}], "text_offset": [0]}, 0)
    {'content': [{'token': 'a', 'logprob': -0.5, 'bytes': [97], 'top_logprobs': []}]}
    """
    if completion is None:
        return None
    likeliest = completion["top_logprobs"] or [None] * len(completion["tokens"])
    rows = zip(completion["tokens"], completion["token_logprobs"], likeliest, strict=True)
    return {
        "content": [
            _token(token, logprob) | {"top_logprobs": [_token(*one) for one in _first(others, top)]}
            for token, logprob, others in rows
        ]
    }


def _first(others: Mapping[str, float] | None, top: int) -> list[tuple[str, float]]:
    items = list((others or {}).items())
    return items if top < 0 else items[:top]


def _token(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode("utf-8", "replace"))}
