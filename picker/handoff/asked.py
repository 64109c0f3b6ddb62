"""What a client asked, whether another engine could go on with it, and how to ask for the rest.

Only parameters that are known can be carried over; one that is not, or whose state lives in the engine (a grammar, a
parser of tool calls, penalties on what was generated), makes a request stay where it is.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["chat", "completion"]
KINDS: Mapping[str, Kind] = {"/v1/chat/completions": "chat", "/v1/completions": "completion"}

TRANSFER = "kv_transfer_params"
_UNNAMED_COMPLETION_TOKENS = 16

_CARRIED = frozenset(
    {
        "model",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "repetition_penalty",
        "length_penalty",
        "stop_token_ids",
        "ignore_eos",
        "include_stop_str_in_output",
        "skip_special_tokens",
        "spaces_between_special_tokens",
        "logit_bias",
        "allowed_token_ids",
        "cache_salt",
        "priority",
        "user",
        "session_id",
        "return_tokens_as_token_ids",
    }
)
_SETTLED = frozenset(
    {
        "messages",
        "prompt",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "min_tokens",
        "stop",
        "logprobs",
        "top_logprobs",
        "return_token_ids",
        "request_id",
        "truncate_prompt_tokens",
        "truncation_side",
        "add_special_tokens",
        "chat_template",
        "chat_template_kwargs",
        "documents",
        "add_generation_prompt",
        "continue_final_message",
        "reasoning_effort",
        "parallel_tool_calls",
        "metadata",
        "store",
    }
)
"""Answered by the prompt's token ids, or rewritten for the rest."""
_ONLY: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "n": ((None, 1), "choices"),
    "best_of": ((None, 1), "choices"),
    "use_beam_search": ((None, False), "beam"),
    "echo": ((None, False), "echo"),
    "suffix": ((None, ""), "suffix"),
    "prompt_logprobs": ((None,), "prompt-logprobs"),
    "logprob_token_ids": ((None, []), "logprobs"),
    "presence_penalty": ((None, 0), "penalties"),
    "frequency_penalty": ((None, 0), "penalties"),
    "bad_words": ((None, []), "bad-words"),
    "structured_outputs": ((None,), "guided"),
    "response_format": ((None, {"type": "text"}), "guided"),
    "tools": ((None, []), "tools"),
    "tool_choice": ((None, "none", "auto"), "tools"),
    "thinking_token_budget": ((None,), "reasoning"),
    "include_reasoning": ((None, True), "reasoning"),
    "prompt_embeds": ((None,), "embeddings"),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that can be moved: its body, checked. `stops` are never empty strings; `limit` None is the model's."""

    kind: Kind
    body: Mapping[str, Any]
    stops: tuple[str, ...]
    limit: int | None
    least: int
    """Tokens before which no stop string counts."""
    top: int | None
    """`top_logprobs` of a chat, `logprobs` of a completion; None without log-probabilities."""

    @property
    def stream(self) -> bool:
        return bool(self.body.get("stream"))

    @property
    def wants_ids(self) -> bool:
        return bool(self.body.get("return_token_ids"))

    @property
    def wants_usage(self) -> bool:
        return not self.stream or bool((self.body.get("stream_options") or {}).get("include_usage"))

    @property
    def prompt_tokens(self) -> int | None:
        """Where the prompt is given as token ids; None for text."""
        prompt = self.body.get("prompt")
        if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], list):
            prompt = prompt[0]
        return len(prompt) if isinstance(prompt, list) and not any(isinstance(one, str) for one in prompt) else None

    def first(self) -> dict[str, Any]:
        """The body for the first engine: streamed, with token ids."""
        streamed = {} if self.stream else {"stream": True, "stream_options": {"include_usage": True}}
        return {**self.body, **streamed, "return_token_ids": True}

    def rest(self, prompt: Sequence[int], tokens: Sequence[int], room: int) -> dict[str, Any]:
        """The body of a completion that goes on after `tokens`; `room` is what the model's context leaves besides."""
        options = self.first().get("stream_options")
        rest = {name: value for name, value in self.body.items() if name in _CARRIED}
        rest |= {"prompt": [*prompt, *tokens], "stream": True, "return_token_ids": True}
        rest["max_tokens"] = room if self.limit is None else self.limit - len(tokens)
        rest["min_tokens"] = max(0, self.least - len(tokens))
        return rest | ({} if options is None else {"stream_options": options}) | self._logprobs()

    def once(self, prompt: Sequence[int], tokens: Sequence[int]) -> dict[str, Any]:
        """The body of a completion of one token, for the KV that it leaves behind."""
        kept = {name: self.body[name] for name in ("model", "cache_salt", "priority") if name in self.body}
        return kept | {"prompt": [*prompt, *tokens], "max_tokens": 1, "temperature": 0, "ignore_eos": True}

    def _logprobs(self) -> dict[str, Any]:
        return {} if self.top is None else {"logprobs": self.top}


def read(kind: Kind, body: Mapping[str, Any]) -> Asked | str:
    """The request, or in a word why it stays with the engine that has it. What is malformed is that one's to refuse."""
    for name, value in body.items():
        harmless, reason = _ONLY.get(name, ((), ""))
        if reason and value not in harmless:
            return reason
        if not reason and name not in _CARRIED | _SETTLED:
            return "parameter"
    options = body.get("stream_options")
    stops = body.get("stop") or []
    stops = [stops] if isinstance(stops, str) else stops
    limit = body.get("max_tokens", None if kind == "chat" else _UNNAMED_COMPLETION_TOKENS)
    if body.get("max_completion_tokens") is not None and kind == "chat":
        limit = body["max_completion_tokens"]
    least, top = body.get("min_tokens") or 0, body.get("logprobs")
    if kind == "chat":
        top = (body.get("top_logprobs") or 0) if top else None
        if top is not None and body.get("return_tokens_as_token_ids"):
            # A completion's tokens do not tell their bytes then.
            return "logprobs"
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        return "malformed"
    if options is not None and not isinstance(options, dict):
        return "malformed"
    if not all(number is None or (type(number) is int and number >= 0) for number in (limit, least, top)):
        return "malformed"
    if not (_one_prompt(body.get("prompt")) if kind == "completion" else _only_text(body.get("messages"))):
        return "prompts" if kind == "completion" else "media"
    return Asked(kind, body, tuple(stops), limit, least, top)


def without_transfer(value: Any) -> Any:
    """The same JSON without KV transfer parameters, at any depth: they can kill an engine, and name hosts to it."""
    if isinstance(value, dict):
        return {name: without_transfer(inner) for name, inner in value.items() if name != TRANSFER}
    return [without_transfer(inner) for inner in value] if isinstance(value, list) else value


def _one_prompt(prompt: Any) -> bool:
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    return isinstance(prompt, str) or (isinstance(prompt, list) and all(type(token) is int for token in prompt))


def _only_text(messages: Any) -> bool:
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return False
    return all(_is_text(message.get("content")) for message in messages)


def _is_text(content: Any) -> bool:
    if content is None or isinstance(content, str):
        return True
    parts: Iterable[Any] = content if isinstance(content, list) else [content]
    return all(isinstance(part, dict) and part.get("type") == "text" for part in parts)
