"""A stream that goes from engine to engine: the client reads what one engine alone would have said, byte by byte."""

import contextlib
import json
from typing import Any, get_args

import model_engine
from hypothesis import given, settings
from hypothesis import strategies as st

from picker.handoff.asked import Asked, Kind, read
from picker.handoff.stream import Stays, Stream

PROMPTS = st.lists(st.integers(0, 11), min_size=1, max_size=6)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[Kind, dict[str, Any]]:
    kind: Kind = draw(st.sampled_from(get_args(Kind)))
    body: dict[str, Any] = {"model": "m", "stream": True, "max_tokens": draw(st.integers(1, 40)), "temperature": 0}
    body |= {"messages": [{"role": "user", "content": "hi"}]} if kind == "chat" else {"prompt": "hi"}
    if draw(st.booleans()):
        body["stop"] = draw(st.lists(st.sampled_from(["END", "D EN", "N", "xx", "\n c"]), min_size=1, max_size=3))
        body["include_stop_str_in_output"] = draw(st.booleans())
    elif draw(st.booleans()):
        body["return_token_ids"] = True
    if draw(st.booleans()):
        body["min_tokens"] = draw(st.integers(0, 20))
    if draw(st.booleans()):
        body |= {"logprobs": True, "top_logprobs": draw(st.integers(0, 2))} if kind == "chat" else {"logprobs": 1}
    if draw(st.booleans()):
        body["stream_options"] = {"include_usage": True, "continuous_usage_stats": draw(st.booleans())}
    return kind, body


def in_pieces(data: st.DataObject, events: list[bytes]) -> list[bytes]:
    joined = b"".join(events)
    size = data.draw(st.integers(1, max(1, len(joined))))
    return [joined[at : at + size] for at in range(0, len(joined), size)]


def moved(stream: Stream) -> dict[str, Any]:
    """What the next engine is asked, as whoever holds the sockets would find it out."""
    stream.cut()
    if stream.clean:
        stream.go_on()
    else:
        context, tokens = stream.told()
        before = model_engine.decode(context)
        while (text := model_engine.decode(context + tokens)[len(before) :]).endswith("\ufffd"):
            stream.retreat()
            context, tokens = stream.told()
        stream.go_on(text)
    return stream.rest(room=100)


def through_engines(
    kind: Kind, body: dict[str, Any], prompt: list[int], data: st.DataObject, together: int = 1, forced: bool = False
) -> bytes | None:
    """What the client hears while the stream is cut again and again; None where it had to end."""
    asked = read(kind, body)
    assert isinstance(asked, Asked)
    stream, heard = Stream(asked), b""
    engine, ask, begins, asking = 1, asked.first(), prompt, kind
    while not stream.done:
        events = model_engine.answer(asking, ask, begins, str(engine), together, forced)
        moves = engine <= 4
        cut = data.draw(st.integers(0, len(events))) if moves else len(events)
        for piece in in_pieces(data, events[:cut]):
            heard += b"".join(stream.feed(piece))
        if stream.done:
            break
        engine += 1
        if stream.over:
            heard += b"".join(stream.closing())
            break
        if not stream.begun:
            stream.cut()
            stream.restart()
            continue
        try:
            ask = moved(stream)
        except Stays:
            return None
        asking, begins = "completion", ask["prompt"]
    return heard


@settings(max_examples=150, deadline=None)
@given(PROMPTS, bodies(), st.booleans(), st.data())
def test_wherever_it_is_cut_the_clients_bytes_are_those_of_one_engine(
    prompt: list[int], wanted: tuple[Kind, dict[str, Any]], forced: bool, data: st.DataObject
) -> None:
    kind, body = wanted
    heard = through_engines(kind, body, prompt, data, forced=forced)
    if heard is None:
        assert "stop" in body
        assert body.keys() & {"logprobs", "min_tokens"}, "half a character was told of, or no stop string counts yet"
        return
    named = json.loads(heard.split(b"\n")[0].removeprefix(b"data: "))["id"]
    assert heard == b"".join(model_engine.answer(kind, body, prompt, named, forced=forced))


@settings(max_examples=100, deadline=None)
@given(PROMPTS, bodies(), st.integers(2, 4), st.data())
def test_engines_that_say_several_tokens_at_once_lose_and_repeat_nothing(
    prompt: list[int], wanted: tuple[Kind, dict[str, Any]], together: int, data: st.DataObject
) -> None:
    kind, body = wanted
    heard = through_engines(kind, body, prompt, data, together)
    if heard is None:
        assert body.keys() & {"return_token_ids", "logprobs", "min_tokens"}
        return
    assert said(heard) == said(b"".join(model_engine.answer(kind, body, prompt, "1")))


def said(events: bytes) -> tuple[str, list[int], list[str]]:
    """Text, token ids and finish reasons of a stream."""
    chunks = [json.loads(event[6:]) for event in events.split(b"\n\n")[:-2]]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    text = "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices)
    ids = [token for choice in choices for token in choice.get("token_ids") or []]
    return text, ids, [choice["finish_reason"] for choice in choices if choice["finish_reason"]]


def chunk(delta: dict[str, Any], ids: list[int] | None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None, "token_ids": ids}
    head = {"id": "a", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return b"data: " + json.dumps(head | {"choices": [choice]} | more).encode() + b"\n\n"


def opened() -> Stream:
    asked = read("chat", {"messages": [{"role": "user", "content": "hi"}], "stream": True})
    assert isinstance(asked, Asked)
    stream = Stream(asked)
    stream.feed(chunk({"role": "assistant", "content": ""}, None, prompt_token_ids=[1, 2]))
    return stream


NAMES = ["id", "choices", "delta", "content", "token_ids", "logprobs", "usage", "error", "text"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner),
    max_leaves=8,
)


@given(st.lists(st.fixed_dictionaries({"choices": JSON}, optional={"usage": JSON, "error": JSON}), max_size=3))
def test_what_is_no_engines_stream_is_refused_and_nothing_else_happens(chunks: list[Any]) -> None:
    stream = opened()
    with contextlib.suppress(ValueError):
        for each in chunks:
            assert isinstance(stream.feed(b"data: " + json.dumps(each).encode() + b"\n\n"), list)


def test_reasoning_stays_until_the_answer_begins() -> None:
    stream = opened()
    stream.feed(chunk({"reasoning": "well"}, [3]))
    assert stream.stays == "reasoning"
    stream.feed(chunk({"content": "So"}, [4]))
    assert stream.stays is None
    stream.go_on()
    assert stream.rest(room=10)["prompt"] == [1, 2, 3, 4]


def test_what_a_parser_made_nothing_of_yet_is_asked_anew() -> None:
    stream = opened()
    assert stream.feed(chunk({}, [3])) == []
    assert not stream.begun
    stream.feed(chunk({"reasoning": "well"}, [4]))
    assert stream.begun
    assert stream.stays == "reasoning"


def test_a_tool_call_stays_where_its_parser_is() -> None:
    stream = opened()
    stream.feed(chunk({"tool_calls": [{"index": 0, "function": {"name": "f"}}]}, [3]))
    assert stream.stays == "tools"


def test_an_engine_that_gives_no_token_ids_keeps_its_streams() -> None:
    stream = opened()
    stream.feed(chunk({"content": "So"}, None))
    assert stream.stays == "no-token-ids"


def test_a_failing_engines_error_is_not_the_clients() -> None:
    stream = opened()
    assert stream.feed(b'data: {"error": {"message": "EngineCore died", "code": 500}}\n\ndata: [DONE]\n\n') == []
    assert stream.failure == "the engine failed"
    assert not stream.done


def test_a_refusal_in_the_stream_is_passed_on() -> None:
    stream = opened()
    assert b"too long" in b"".join(stream.feed(b'data: {"error": {"message": "too long", "code": 400}}\n\n'))
