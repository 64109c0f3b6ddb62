import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.requests.usage import Usage, UsageReader


def sse(*events: dict[str, Any], name: bool = False) -> bytes:
    heads = [f"event: {event['type']}\n" if name else "" for event in events]
    return "".join(f"{head}data: {json.dumps(event)}\n\n" for head, event in zip(heads, events, strict=True)).encode()


def delta(**content: str) -> dict[str, Any]:
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": content}], "usage": None}


OPENAI_USAGE = {
    "prompt_tokens": 120,
    "completion_tokens": 7,
    "total_tokens": 127,
    "prompt_tokens_details": {"cached_tokens": 96},
}
CHAT = (
    sse(
        delta(role="assistant", content=""),
        delta(content="Hello"),
        delta(content=' "usage": {"prompt_tokens": 1} '),
        {"choices": [], "usage": OPENAI_USAGE},
    )
    + b"data: [DONE]\n\n"
)
COMPLETION = sse({"choices": [{"text": ""}]}, {"choices": [{"text": "Hi"}]}, {"choices": [], "usage": OPENAI_USAGE})
ANTHROPIC = sse(
    {
        "type": "message_start",
        "message": {"content": [], "usage": {"input_tokens": 24, "output_tokens": 1, "cache_read_input_tokens": 96}},
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}},
    name=True,
)
RESPONSES = sse(
    {"type": "response.created", "response": {"usage": None}},
    {"type": "response.output_text.delta", "delta": "Hello"},
    {
        "type": "response.completed",
        "response": {
            "output": [{"content": [{"text": "Hello"}]}],
            "usage": {
                "input_tokens": 120,
                "input_tokens_details": {"cached_tokens": 96},
                "output_tokens": 7,
                "note": 'braces } in { text "',
            },
        },
    },
    name=True,
)
STREAMS = {"chat": CHAT, "completion": COMPLETION, "anthropic": ANTHROPIC, "responses": RESPONSES}
WHOLE = json.dumps({"choices": [{"message": {"content": 'x "usage": {} y'}}], "usage": OPENAI_USAGE, "z": "a" * 9000})
ALL = Usage(prompt_tokens=120, completion_tokens=7, cached_tokens=96)


def told(chunks: Iterable[bytes]) -> Usage | None:
    reader = UsageReader()
    for chunk in chunks:
        reader.feed(chunk)
    return reader.finish()


def cut(body: bytes, places: Iterable[int]) -> list[bytes]:
    bounds = [0, *sorted(places), len(body)]
    return [body[start:end] for start, end in pairwise(bounds)]


@pytest.mark.parametrize("name", STREAMS)
def test_each_api_tells_its_usage_in_a_stream(name: str) -> None:
    assert told([STREAMS[name]]) == ALL


@pytest.mark.parametrize("name", STREAMS)
def test_chunks_of_a_single_byte_tell_the_same(name: str) -> None:
    assert told(cut(STREAMS[name], range(1, len(STREAMS[name])))) == ALL


@given(st.sampled_from(sorted(STREAMS)), st.data())
def test_chunks_may_be_cut_anywhere(name: str, data: st.DataObject) -> None:
    body = STREAMS[name]
    assert told(cut(body, data.draw(st.lists(st.integers(0, len(body)), max_size=12)))) == ALL


@given(st.lists(st.integers(0, len(WHOLE)), max_size=8))
def test_a_whole_answer_tells_its_usage_wherever_it_is_cut(places: list[int]) -> None:
    assert told(cut(WHOLE.encode(), places)) == ALL


def test_an_indented_answer_tells_its_usage_too() -> None:
    assert told([json.dumps(json.loads(WHOLE), indent=4).encode()]) == ALL


def test_an_answer_without_usage_tells_nothing() -> None:
    assert told([sse(delta(content="x"))]) is None
    assert told([]) is None


def test_an_answer_that_breaks_off_tells_what_it_told() -> None:
    cut_off = ANTHROPIC[: ANTHROPIC.index(b"message_delta")]
    assert told([cut_off]) == Usage(prompt_tokens=120, completion_tokens=1, cached_tokens=96)


@pytest.mark.parametrize("count", [-1, 1.5, "7", True, None, 2**60, [7]])
def test_a_count_that_cannot_be_is_not_told(count: object) -> None:
    assert told([json.dumps({"usage": {"prompt_tokens": count, "completion_tokens": 3}}).encode()]) == Usage(
        completion_tokens=3
    )


def test_a_usage_object_without_end_is_given_up_and_the_next_one_read() -> None:
    endless = b'{"usage": {"x": "' + b"a" * 100_000
    assert told([endless, json.dumps({"usage": OPENAI_USAGE}).encode()]) == ALL
