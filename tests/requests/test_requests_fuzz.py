"""Whatever bytes come, a request is read or BadRequest says why."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.requests.reader import Reader, ReaderSettings
from picker.requests.request import BadRequest, Request
from picker.requests.route import SUFFIXES, route
from picker.requests.usage import UsageReader

NAMES = ["model", "messages", "prompt", "input", "system", "tools", "instructions", "token_ids", "sampling_params"]
NAMES += ["stream", "stream_options", "n", "max_tokens", "cache_salt", "vllm_xargs", "kv_transfer_params"]
NAMES += ["extra_args", "prompt_embeds", "role", "content", "type", "text"]

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**20, 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["m", "user", "assistant", "system", "text", "image_url", "data:;base64," + "A" * 2000])
)
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=20,
)
objects = st.dictionaries(st.sampled_from(NAMES), trees, max_size=8)
paths = st.sampled_from(["/v1/" + suffix for suffix in SUFFIXES])
headers = st.dictionaries(
    st.sampled_from(["x-request-id", "content-encoding", "x-llm-d-model-name-rewrite", "x-slo-ttft-ms"]),
    st.text(max_size=8) | st.just("identity"),
)
READERS = [Reader(ReaderSettings(steering=policy)) for policy in ("refuse", "strip", "pass")]


def attempt(reader: Reader, path: str, body: bytes, asked: dict[str, str]) -> Request | BadRequest:
    try:
        draft = reader.parse(path, asked, body)
        reader.is_slow(draft)
        return reader.finish(draft)
    except BadRequest as error:
        return error


def check(path: str, body: bytes, asked: dict[str, str]) -> None:
    for reader in READERS:
        outcome = attempt(reader, path, body, asked)
        if isinstance(outcome, BadRequest):
            assert outcome.status == 400
            assert outcome.message
        else:
            assert outcome.prompt_tokens >= 0
            assert outcome.block_tokens > 0


@given(paths, st.binary(max_size=200), headers)
def test_arbitrary_bytes(path: str, body: bytes, asked: dict[str, str]) -> None:
    check(path, body, asked)


@given(paths, objects, headers)
def test_objects_with_the_right_names_and_the_wrong_values(
    path: str, body: dict[str, Any], asked: dict[str, str]
) -> None:
    check(path, json.dumps(body).encode(), asked)


@given(paths, objects, st.data())
def test_mutated_json(path: str, content: dict[str, Any], data: st.DataObject) -> None:
    body = bytearray(json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}], **content}).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body)))
        cut = data.draw(st.integers(0, 3))
        body[at : at + cut] = data.draw(st.binary(max_size=3))
    check(path, bytes(body), {})


@given(st.text(max_size=60).filter(lambda path: not route(path).checked), st.binary(max_size=60))
def test_other_paths_never_fail(path: str, body: bytes) -> None:
    assert isinstance(attempt(READERS[0], path, body, {}), Request)


@given(st.lists(st.binary(max_size=40) | st.sampled_from([b'"usage"', b":", b"{", b"}", b"data:", b"\n"]), max_size=30))
def test_no_answer_fails_the_usage_reader(chunks: list[bytes]) -> None:
    reader = UsageReader()
    for chunk in chunks:
        reader.feed(chunk)
    usage = reader.finish()
    assert usage is None or usage.prompt_tokens is None or usage.prompt_tokens >= 0


@pytest.mark.parametrize("depth", [100, 900, 100_000])
def test_deep_nesting_in_any_field(depth: int) -> None:
    nest = b"[" * depth + b"]" * depth
    for name in (b"messages", b"prompt", b"input", b"vllm_xargs", b"stream_options", b"n", b"token_ids"):
        for path in ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/inference/v1/generate", "/tokenize"):
            check(path, b'{"model":"m","' + name + b'":' + nest + b"}", {})
