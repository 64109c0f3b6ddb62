"""vLLM's OpenAI surface as values: request bodies in, response bodies out. No socket here."""

import uuid
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import msgspec

from picker.simulator import toy

Kind = Literal["chat", "completion"]

_UNNAMED_COMPLETION_TOKENS = 16
_MAX_ID = 128


class ApiError(Exception):
    """Answered as vLLM answers: `status` and {"error": {message, type, param, code}}."""

    def __init__(self, status: int, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param

    def body(self) -> dict[str, Any]:
        kinds = {400: "BadRequestError", 404: "NotFoundError", 503: "ServiceUnavailableError"}
        kind = kinds.get(self.status, "InternalServerError")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.status}}


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False


class _Common(msgspec.Struct):
    model: str | None = None
    stream: bool = False
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    n: int | None = None
    cache_salt: str | None = None
    return_token_ids: bool | None = None


class _Part(msgspec.Struct):
    type: str
    text: str | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None


class _Chat(_Common):
    messages: list[_Message] = msgspec.field(default_factory=list)
    max_completion_tokens: int | None = None
    add_generation_prompt: bool = True


class _Completion(_Common):
    prompt: str | list[int | str | list[int]] | None = None


class _Detokenize(_Common):
    tokens: list[int] = msgspec.field(default_factory=list)


class _Tokenize(_Completion):
    messages: list[_Message] | None = None
    add_generation_prompt: bool = True


@dataclass(frozen=True, slots=True)
class Ask:
    """What a client asks of the engine. `max_tokens` None leaves the length to the engine."""

    kind: Kind
    tokens: list[int]
    max_tokens: int | None
    stream: bool = False
    include_usage: bool = False
    salt: str = ""
    token_ids: bool = False
    """Whether the answer tells them, besides the text."""


def read_chat(body: bytes, model: str) -> Ask:
    """A /v1/chat/completions body. Raises ApiError."""
    chat = _decode(body, _Chat)
    _check(chat, model)
    if not chat.messages:
        raise ApiError(400, "messages must not be empty", param="messages")
    limit = chat.max_completion_tokens if chat.max_completion_tokens is not None else chat.max_tokens
    tokens = toy.render_chat(_turns(chat.messages), add_generation_prompt=chat.add_generation_prompt)
    return _ask("chat", chat, tokens, limit)


def read_completion(body: bytes, model: str) -> Ask:
    """A /v1/completions body with one prompt, as text or as token ids. Raises ApiError."""
    completion = _decode(body, _Completion)
    _check(completion, model)
    limit = _UNNAMED_COMPLETION_TOKENS if completion.max_tokens is None else completion.max_tokens
    return _ask("completion", completion, _prompt(completion.prompt), limit)


def read_tokenize(body: bytes, model: str) -> list[int]:
    """Token ids of a /tokenize body (`prompt` or `messages`). Raises ApiError."""
    asked = _decode(body, _Tokenize)
    _check(asked, model)
    if asked.messages is not None:
        return toy.render_chat(_turns(asked.messages), add_generation_prompt=asked.add_generation_prompt)
    return _prompt(asked.prompt)


def read_detokenize(body: bytes, model: str) -> str:
    """Text of a /detokenize body (`tokens`). Raises ApiError."""
    asked = _decode(body, _Detokenize)
    _check(asked, model)
    return toy.decode(_prompt([*asked.tokens]))


_Body = TypeVar("_Body", bound=_Common)


def _decode(body: bytes, kind: type[_Body]) -> _Body:
    try:
        return msgspec.json.decode(body, type=kind)
    except RecursionError:
        raise ApiError(400, "the JSON body is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, str(error)) from None


def _check(body: _Common, model: str) -> None:
    if body.model not in (None, model):
        raise ApiError(404, f"The model `{body.model[:_MAX_ID]}` does not exist.", param="model")
    if body.n not in (None, 1):
        raise ApiError(400, "only n = 1 is supported", param="n")


def _ask(kind: Kind, body: _Common, tokens: list[int], max_tokens: int | None) -> Ask:
    if max_tokens is not None and max_tokens < 1:
        raise ApiError(400, f"max_tokens must be at least 1, got {max_tokens}.", param="max_tokens")
    if not tokens:
        raise ApiError(400, "The decoder prompt cannot be empty", param="prompt")
    usage = body.stream_options is not None and body.stream_options.include_usage
    return Ask(kind, tokens, max_tokens, body.stream, usage, body.cache_salt or "", bool(body.return_token_ids))


def _turns(messages: list[_Message]) -> list[tuple[str, str]]:
    return [(message.role, _content(message.content)) for message in messages]


def _content(content: str | list[_Part] | None) -> str:
    if not isinstance(content, list):
        return content or ""
    for part in content:
        if part.type != "text" or part.text is None:
            raise ApiError(400, f"content of type {part.type[:_MAX_ID]!r} is not supported", param="messages")
    return "\n".join(part.text or "" for part in content)


def _prompt(prompt: str | list[int | str | list[int]] | None) -> list[int]:
    """One prompt in any of the forms that the API knows."""
    if isinstance(prompt, list) and len(prompt) == 1 and not isinstance(prompt[0], int):
        prompt = prompt[0] if isinstance(prompt[0], str) else list(prompt[0])
    if isinstance(prompt, str):
        return toy.encode(prompt)
    ids = [token for token in prompt or () if isinstance(token, int) and 0 <= token <= toy.MAX_TOKEN]
    if prompt is None or len(ids) != len(prompt):
        raise ApiError(400, "prompt must be one text or one list of token ids", param="prompt")
    return ids


@dataclass(frozen=True, slots=True)
class Voice:
    """Writes one answer's bodies. `created` is Unix time, in seconds."""

    kind: Kind
    id: str
    model: str
    created: int

    @classmethod
    def of(cls, kind: Kind, model: str, request_id: str, created: float) -> "Voice":
        prefix = "chatcmpl" if kind == "chat" else "cmpl"
        return cls(kind, f"{prefix}-{request_id[:_MAX_ID] or uuid.uuid4().hex}", model, int(created))

    def whole(self, text: str, finish: str, usage: dict[str, Any]) -> bytes:
        """The body of an answer that is not streamed."""
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": finish, "stop_reason": None}
        choice |= {"message": {"role": "assistant", "content": text}} if self.kind == "chat" else {"text": text}
        return msgspec.json.encode(self._envelope([choice], "") | {"usage": usage})

    def opening(self, prompt: list[int] | None) -> bytes:
        """The first chunk of a streamed chat answer: the role; nothing for a completion. `prompt` None is not told."""
        if self.kind == "completion":
            return b""
        choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        return _event(self._envelope([choice], ".chunk") | ({} if prompt is None else {"prompt_token_ids": prompt}))

    def chunk(
        self, text: str, finish: str | None, ids: list[int] | None = None, prompt: list[int] | None = None
    ) -> bytes:
        """Some text, with its token ids if they are told; of a completion the first chunk has the prompt's, too."""
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": finish}
        choice |= {"delta": {"content": text}} if self.kind == "chat" else {"text": text}
        choice |= {"prompt_token_ids": prompt} if prompt is not None and self.kind == "completion" else {}
        choice |= {} if ids is None else {"token_ids": ids}
        return _event(self._envelope([choice], ".chunk"))

    def usage(self, usage: dict[str, Any]) -> bytes:
        """The chunk that `stream_options.include_usage` asks for."""
        return _event(self._envelope([], ".chunk") | {"usage": usage})

    def _envelope(self, choices: list[dict[str, Any]], suffix: str) -> dict[str, Any]:
        kind = f"chat.completion{suffix}" if self.kind == "chat" else "text_completion"
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}


DONE = b"data: [DONE]\n\n"


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def usage(prompt: int, completion: int, cached: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
