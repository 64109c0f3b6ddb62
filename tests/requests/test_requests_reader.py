import json
from typing import Any

import numpy as np
import pytest

from picker.requests.blocks import chain_tokens, root
from picker.requests.reader import MEDIA_TOKENS, Reader, ReaderSettings
from picker.requests.request import Api, BadRequest, Request

CHAT = "/v1/chat/completions"


def read(path: str, body: bytes | dict[str, Any], headers: dict[str, str] | None = None, **settings: Any) -> Request:
    reader = Reader(ReaderSettings(**settings))
    return reader.finish(
        reader.parse(path, headers or {}, body if isinstance(body, bytes) else json.dumps(body).encode())
    )


def refused(
    path: str, body: bytes | dict[str, Any], headers: dict[str, str] | None = None, **settings: Any
) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        read(path, body, headers, **settings)
    assert caught.value.status == 400
    return caught.value


def turns(*texts: str) -> list[dict[str, Any]]:
    return [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]


def chat(*texts: str, model: str = "m", **more: object) -> dict[str, Any]:
    return {"model": model, "messages": turns(*texts), **more}


def test_a_chat_request_is_reduced_to_what_a_pick_needs() -> None:
    body = chat("x" * 2000, stream=True, max_tokens=9, max_completion_tokens=7, n=2)
    request = read(CHAT, body | {"stream_options": {"include_usage": True}}, {"x-request-id": "r"})
    assert (request.api, request.model, request.stream, request.max_tokens, request.n) == (Api.CHAT, "m", True, 7, 2)
    assert request.include_usage
    assert request.hints.request_id == "r"
    assert request.tokens_source == "ratio"
    assert request.prompt_tokens == pytest.approx(500, rel=0.05)
    assert request.body is None


@pytest.mark.parametrize(
    ("path", "body", "api"),
    [
        ("/v1/completions", {"prompt": "p"}, Api.COMPLETIONS),
        ("/v1/completions", {"prompt": ["p", "q"]}, Api.COMPLETIONS),
        ("/v1/completions", {"prompt_embeds": "AAAA"}, Api.COMPLETIONS),
        ("/v1/responses", {"input": "p", "instructions": "i"}, Api.RESPONSES),
        ("/v1/responses", {"input": [{"role": "user", "content": "p"}]}, Api.RESPONSES),
        ("/v1/embeddings", {"input": ["p", "q"]}, Api.EMBEDDINGS),
        ("/v1/embeddings", {"messages": turns("p")}, Api.EMBEDDINGS),
        ("/v1/messages", {"system": "s", "messages": turns("p"), "max_tokens": 5}, Api.MESSAGES),
    ],
)
def test_every_api_that_is_read(path: str, body: dict[str, Any], api: Api) -> None:
    request = read(path, {"model": "m"} | body)
    assert (request.api, request.model) == (api, "m")
    assert request.prompt_tokens >= 1


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (CHAT, {"model": "m"}, "messages"),
        (CHAT, {"model": "m", "messages": None}, "messages"),
        (CHAT, {"model": "m", "messages": []}, "messages"),
        (CHAT, {"model": "m", "messages": "hi"}, "messages"),
        ("/v1/completions", {"model": "m"}, "prompt"),
        ("/v1/completions", {"model": "m", "prompt": 5}, "prompt"),
        ("/v1/completions", {"model": "m", "prompt": []}, "prompt"),
        ("/v1/completions", {"model": "m", "prompt": [1, "a"]}, "prompt"),
        ("/v1/responses", {"model": "m"}, "input"),
        ("/v1/embeddings", {"model": "m"}, "input"),
        ("/v1/messages", {"model": "m"}, "messages"),
        ("/inference/v1/generate", {"model": "m"}, "token_ids"),
        ("/inference/v1/generate", {"model": "m", "token_ids": [-1]}, "token_ids"),
        ("/inference/v1/generate", {"model": "m", "token_ids": [1], "sampling_params": 3}, "sampling_params"),
        (CHAT, {"messages": turns("p")}, "model"),
        (CHAT, {"model": "", "messages": turns("p")}, "model"),
        (CHAT, {"model": 3, "messages": turns("p")}, "model"),
        (CHAT, {"model": "m" * 1000, "messages": turns("p")}, "model"),
    ],
)
def test_what_a_pick_cannot_do_without_is_asked_for_by_name(path: str, body: dict[str, Any], param: str) -> None:
    error = refused(path, body)
    assert error.param == param
    assert param in error.message


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "empty_body"),
        (b" \n ", "empty_body"),
        (b'{"model":"m"', "truncated_json"),
        (b'{"model":"m",}', "invalid_json"),
        (b"hello", "invalid_json"),
        (b"[]", "invalid_json"),
        (b"null", "invalid_json"),
        (b'{"model":"m"}{}', "invalid_json"),
        (b'{"model":"m","messages":[{"content":"\xff"}]}', "invalid_encoding"),
        ('{"model":"m","messages":[1]}'.encode("utf-16"), "invalid_encoding"),
        (b'{"model":"m","x":' + b"[" * 200_000, "nested_too_deeply"),
        (b'{"model":"m","messages":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested_too_deeply"),
        (b'{"model":"\\ud800","messages":[1]}', "invalid_json"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused_with_its_reason(body: bytes, code: str) -> None:
    assert refused(CHAT, body).code == code


def test_a_body_above_the_limit_is_refused() -> None:
    assert "1024" in refused(CHAT, chat("x" * 2000), max_body_bytes=1024).message


def test_a_compressed_body_is_refused_by_name() -> None:
    assert "gzip" in refused(CHAT, b"\x1f\x8b", {"content-encoding": "gzip"}).message


def test_the_content_type_does_not_matter() -> None:
    assert read(CHAT, chat("p"), {"content-type": "text/plain"}).model == "m"


def test_limits_that_make_no_sense_count_as_none() -> None:
    request = read(CHAT, chat("p", max_tokens="many", n=-1, stream="yes", stream_options=[1]))
    assert (request.max_tokens, request.n, request.stream, request.include_usage) == (None, 1, False, False)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/audio/transcriptions", "/tokenize", "/v1/messages/count_tokens"])
@pytest.mark.parametrize("body", [b"", b"\xff", b"{", b'{"model":3}', b'{"a":' + b"[" * 200_000, b'{"model":"m"}'])
def test_passthrough_never_fails_and_changes_nothing(path: str, body: bytes) -> None:
    request = read(path, body, {"content-encoding": "gzip"}, max_body_bytes=100)
    assert request.body is None
    assert request.prompt_tokens == 0
    assert len(request.chain) == 0


def test_a_conversation_keeps_its_blocks_as_it_grows() -> None:
    first = read(CHAT, chat("a" * 3000))
    second = read(CHAT, chat("a" * 3000, "b" * 900, "c" * 900))
    assert len(first.chain) == 11
    np.testing.assert_array_equal(second.chain[: len(first.chain)], first.chain)


def test_pretty_printed_conversations_keep_their_blocks_too() -> None:
    bodies = [json.dumps(chat(*texts), indent=2).encode() for texts in (["a" * 3000], ["a" * 3000, "b"])]
    first, second = (read(CHAT, body) for body in bodies)
    np.testing.assert_array_equal(second.chain[: len(first.chain)], first.chain)


def test_a_longer_prompt_begins_with_the_blocks_of_the_shorter() -> None:
    short, long = (read("/v1/completions", {"model": "m", "prompt": "w" * size}) for size in (3000, 5000))
    np.testing.assert_array_equal(long.chain[: len(short.chain)], short.chain)


@pytest.mark.parametrize(
    "other",
    [
        chat("a" * 3000, model="n"),
        chat("a" * 3000, cache_salt="s"),
        chat("a" * 3000, tools=[{"type": "function", "function": {"name": "f"}}]),
        chat("b" + "a" * 2999),
    ],
)
def test_model_salt_tools_and_first_words_part_chains_from_the_root(other: dict[str, Any]) -> None:
    assert not np.isin(read(CHAT, other).chain, read(CHAT, chat("a" * 3000)).chain).any()


def test_text_blocks_are_worth_the_engines_tokens_but_never_small() -> None:
    assert read(CHAT, chat("a" * 3000), block_tokens=16).block_tokens == 64
    assert read(CHAT, chat("a" * 3000), block_tokens=128).block_tokens == 128


def test_learning_a_ratio_changes_what_a_block_is_worth_but_not_its_key() -> None:
    reader = Reader()
    body = json.dumps(chat("a" * 3000)).encode()
    before = reader.finish(reader.parse(CHAT, {}, body))
    for _ in range(100):
        reader.observe(before, 1500)
    after = reader.finish(reader.parse(CHAT, {}, body))
    np.testing.assert_array_equal(after.chain, before.chain)
    assert after.prompt_tokens == pytest.approx(1500, rel=0.05)
    assert after.block_tokens == pytest.approx(128, rel=0.05)


def test_token_ids_are_matched_exactly() -> None:
    ids = list(range(100))
    expected = chain_tokens(ids, 16, root(None, "s"))
    for path, body in (
        ("/v1/completions", {"prompt": ids}),
        ("/v1/completions", {"prompt": [ids]}),
        ("/inference/v1/generate", {"token_ids": ids, "sampling_params": {"max_tokens": 5}}),
        ("/v1/embeddings", {"input": ids}),
    ):
        request = read(path, {"model": "m", "cache_salt": "s"} | body)
        assert (request.exact, request.tokens_source, request.prompt_tokens) == (True, "ids", 100)
        assert request.block_tokens == 16
        np.testing.assert_array_equal(request.chain, expected)


def test_generate_reads_its_limits_from_the_sampling_parameters() -> None:
    body = {"model": "m", "token_ids": [1], "sampling_params": {"max_tokens": 5, "n": 3}}
    request = read("/inference/v1/generate", body)
    assert (request.max_tokens, request.n) == (5, 3)


def test_an_adapter_has_blocks_of_its_own() -> None:
    body = {"model": "lora", "prompt": list(range(64))}
    request = read("/v1/completions", body, adapters={"lora": "base"})
    np.testing.assert_array_equal(request.chain, chain_tokens(range(64), 16, root("lora")))


def test_a_batch_of_id_prompts_is_counted_whole() -> None:
    assert read("/v1/completions", {"model": "m", "prompt": [[1] * 30, [2] * 12]}).prompt_tokens == 42


def test_inline_media_are_counted_as_media_and_end_the_chain() -> None:
    image = "A" * 400_000
    content = [
        {"type": "text", "text": "word " * 400},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
    ]
    request = read(CHAT, {"model": "m", "messages": [{"role": "user", "content": content}]})
    assert request.prompt_tokens == pytest.approx(500 + MEDIA_TOKENS, rel=0.1)
    assert len(request.chain) < 12


def test_a_long_run_of_letters_is_not_an_image() -> None:
    assert read(CHAT, chat("a" * 40_000)).prompt_tokens == pytest.approx(10_000, rel=0.05)


def test_a_rewritten_model_replaces_only_the_models_name() -> None:
    body = b'{"messages": [{"role":"user","content":"model"}],  "model" : "a" }'
    request = read(CHAT, body, {"x-gateway-model-name-rewrite": "b"})
    assert request.model == "b"
    assert request.body == body.replace(b'"a"', b'"b"')


def test_a_rewrite_to_the_same_name_leaves_the_body_alone() -> None:
    assert read(CHAT, chat("p"), {"x-llm-d-model-name-rewrite": "m"}).body is None


def test_a_rewrite_supplies_a_missing_model() -> None:
    request = read(CHAT, {"messages": turns("p")}, {"x-llm-d-model-name-rewrite": "b"})
    assert request.body is not None
    assert json.loads(request.body) == {"model": "b", "messages": turns("p")}


def test_short_text_is_never_slow_without_a_tokenizer() -> None:
    reader = Reader()
    assert not reader.is_slow(reader.parse(CHAT, {}, json.dumps(chat("x" * 100_000)).encode()))
