"""The request as the pick sees it."""

import enum
from typing import Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Chain = NDArray[np.uint64]
"""Chained prefix-block hashes, shape (blocks,): element i identifies blocks 0..i together."""

TokensSource = Literal["ids", "tokenizer", "ratio", "none"]
"""Where a prompt's length in tokens is from; "ratio" is a guess by its bytes."""

EMPTY_CHAIN: Chain = np.empty(0, dtype=np.uint64)


class Api(enum.StrEnum):
    """The APIs whose bodies are read; everything else passes through."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    EMBEDDINGS = "embeddings"
    MESSAGES = "messages"
    GENERATE = "generate"
    TOKENIZE = "tokenize"
    PASSTHROUGH = "passthrough"


class Hints(Struct, frozen=True, gc=False):
    """What the request's headers ask of the picker (docs/design.md names each header).

    `priority` is that of the objective, 0 for one that is not known; below 0 the request may be shed.
    """

    request_id: str = ""
    objective: str = ""
    fairness_id: str = ""
    slo_ttft_ms: float | None = None
    slo_tpot_ms: float | None = None
    session: str = ""
    session_token: str = ""
    priority: int = 0


class Request(Struct, frozen=True, gc=False):
    """One inference request, reduced to what a policy may weigh.

    `prompt_tokens` is an estimate unless `tokens_source` says "ids" or "tokenizer".
    `block_tokens` is how many tokens one element of `chain` stands for; in text mode it follows
    the model's learned bytes-per-token ratio and need not be whole.
    `n` answers are asked for; `include_usage` says that a streamed answer was asked to end with its usage.
    `model` is what the engine is asked for; `client_model` what the client asked for, another one after a rewrite.
    `body` is None when the client's bytes go on untouched, else the bytes that replace them.
    """

    api: Api = Api.PASSTHROUGH
    model: str = ""
    stream: bool = False
    prompt_tokens: float = 0.0
    prompt_bytes: int = 0
    tokens_source: TokensSource = "none"
    max_tokens: int | None = None
    n: int = 1
    include_usage: bool = False
    chain: Chain = EMPTY_CHAIN
    block_tokens: float = 16.0
    exact: bool = False
    body: bytes | None = None
    hints: Hints = Hints()
    client_model: str = ""


class BadRequest(Exception):
    """The client's own fault: answered with `status` and an OpenAI-style error body.

    `param` names the offending field as the OpenAI API does ("messages[0].content"), or is None.
    """

    def __init__(self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.param = param
        self.code = code
