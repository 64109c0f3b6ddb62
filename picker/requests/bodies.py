"""Bodies as typed structs: what the pick needs is decoded, the rest is skipped or kept raw.

Only the model's name must make sense here. Other values are the engine's to judge: what it would refuse is read as
absent, so that a client hears one voice about its mistakes.
"""

import re
from typing import Any

import msgspec
from msgspec import Raw, Struct

from picker.requests.request import BadRequest
from picker.requests.route import Shape

ABSENT = Raw(b"")


class Sampling(Struct, gc=False, frozen=True):
    """The part of vLLM's sampling parameters that matters to a pick."""

    max_tokens: Any = None
    n: Any = None
    extra_args: Raw = ABSENT


class Body(Struct, gc=False, frozen=True):
    """What all shapes share. The fields from `kv_transfer_params` on are steering.py's."""

    model: Any = None
    stream: Any = None
    stream_options: Raw = ABSENT
    n: Any = None
    cache_salt: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None
    vllm_xargs: Raw = ABSENT
    kv_transfer_params: Raw = ABSENT
    ec_transfer_params: Raw = ABSENT
    bootstrap_host: Raw = ABSENT
    bootstrap_port: Raw = ABSENT
    bootstrap_room: Raw = ABSENT
    data_parallel_rank: Raw = ABSENT
    routed_dp_rank: Raw = ABSENT
    disagg_prefill_dp_rank: Raw = ABSENT
    disaggregated_params: Raw = ABSENT


class Chat(Body, gc=False, frozen=True):
    """OpenAI chat completions, and what resembles them."""

    messages: Raw = ABSENT
    tools: Raw = ABSENT


class Prompt(Body, gc=False, frozen=True):
    """OpenAI completions. vLLM also takes `prompt_embeds` in place of a prompt."""

    prompt: Raw = ABSENT
    prompt_embeds: Raw = ABSENT


class Input(Body, gc=False, frozen=True):
    """Embeddings; vLLM also takes `messages`."""

    input: Raw = ABSENT
    messages: Raw = ABSENT


class Responses(Body, gc=False, frozen=True):
    """OpenAI responses."""

    input: Raw = ABSENT
    instructions: Raw = ABSENT
    tools: Raw = ABSENT
    previous_response_id: Any = None


class Messages(Body, gc=False, frozen=True):
    """Anthropic messages."""

    messages: Raw = ABSENT
    system: Raw = ABSENT
    tools: Raw = ABSENT


class TokenIds(Body, gc=False, frozen=True):
    """vLLM generate: token ids in."""

    token_ids: Raw = ABSENT
    sampling_params: Sampling = Sampling()
    features: Raw = ABSENT
    content_parts: Raw = ABSENT


_DECODERS: dict[Shape, msgspec.json.Decoder[Any]] = {
    Shape.CHAT: msgspec.json.Decoder(Chat),
    Shape.PROMPT: msgspec.json.Decoder(Prompt),
    Shape.INPUT: msgspec.json.Decoder(Input),
    Shape.RESPONSES: msgspec.json.Decoder(Responses),
    Shape.MESSAGES: msgspec.json.Decoder(Messages),
    Shape.TOKEN_IDS: msgspec.json.Decoder(TokenIds),
    Shape.MODEL_ONLY: msgspec.json.Decoder(Body),
}
_WHERE = re.compile(r"^(.*?)(?: - at `\$\.?(.*)`)?$", re.DOTALL)


def decode(shape: Shape, body: bytes) -> Body:
    """Decode a body of this shape. Raises BadRequest, and nothing else, with a reason that a person understands."""
    if not body.strip():
        raise bad("the request body is empty; a JSON object is expected", code="empty_body")
    try:
        if not body.isascii():
            body.decode()
        decoded: Body = _DECODERS[shape].decode(body)
    except UnicodeDecodeError as error:
        raise bad(f"the request body is not valid UTF-8 (byte {error.start})", code="invalid_encoding") from error
    except RecursionError as error:
        raise bad("the request body is nested too deeply", code="nested_too_deeply") from error
    except msgspec.ValidationError as error:
        raise _mistyped(str(error)) from error
    except msgspec.DecodeError as error:
        reason = str(error)
        if "truncated" in reason:
            raise bad("the request body ends in the middle of its JSON", code="truncated_json") from error
        reason = reason.removeprefix("JSON is malformed: ")
        raise bad(f"the request body is not valid JSON: {reason}", code="invalid_json") from error
    except ValueError as error:
        raise bad(f"the request body is not valid JSON: {error}", code="invalid_json") from error
    return decoded


def bad(message: str, *, param: str | None = None, code: str) -> BadRequest:
    """A 400 with this reason."""
    return BadRequest(message, param=param, code=code)


def _mistyped(reason: str) -> BadRequest:
    match = _WHERE.match(reason)
    what, where = (match[1], match[2]) if match else (reason, None)
    what = what.replace("`", "").lower()
    if not where:
        return bad(f"the request body must be a JSON object: {what}", code="invalid_json")
    return bad(f"'{where}': {what}", param=where, code="invalid_type")


def kind(raw: Raw) -> bytes:
    """The first byte of a raw value, which tells its type; empty where absent."""
    return bytes(memoryview(raw)[:1])


def positive(value: Any) -> int | None:
    """A count that makes sense, else None."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31 else None
