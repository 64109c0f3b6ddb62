"""Which requests may go to another engine, and what is asked there."""

from typing import Any

import pytest

from picker.handoff.asked import Asked, read, without_transfer

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
TEXT: dict[str, Any] = {"model": "m", "prompt": "hi", "stream": True}


def asked(**more: Any) -> Asked:
    found = read("chat", CHAT | more)
    assert isinstance(found, Asked)
    return found


@pytest.mark.parametrize(
    ("parameter", "reason"),
    [
        ({"n": 2}, "choices"),
        ({"use_beam_search": True}, "beam"),
        ({"response_format": {"type": "json_object"}}, "guided"),
        ({"structured_outputs": {"regex": "a"}}, "guided"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"prompt_logprobs": 1}, "prompt-logprobs"),
        ({"echo": True}, "echo"),
        ({"frequency_penalty": 0.5}, "penalties"),
        ({"logprobs": True, "return_tokens_as_token_ids": True}, "logprobs"),
        ({"bad_words": ["x"]}, "bad-words"),
        ({"never_heard_of": 1}, "parameter"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "media"),
        ({"max_tokens": "many"}, "malformed"),
        ({"stop": [1]}, "malformed"),
    ],
)
def test_what_lives_in_the_engine_stays_with_it(parameter: dict[str, Any], reason: str) -> None:
    assert read("chat", CHAT | parameter) == reason


def test_several_prompts_stay() -> None:
    assert read("completion", TEXT | {"prompt": ["a", "b"]}) == "prompts"


def test_harmless_values_of_the_same_parameters_do_not() -> None:
    asked(n=1, response_format={"type": "text"}, tools=None, tool_choice="auto", frequency_penalty=0.0)


def test_the_rest_has_the_tokens_the_sampling_and_what_is_left_of_the_limits() -> None:
    rest = asked(temperature=0.7, seed=5, max_tokens=10, min_tokens=4, stop="x", top_k=3).rest([1, 2], [3], room=50)
    assert rest["prompt"] == [1, 2, 3]
    assert (rest["max_tokens"], rest["min_tokens"]) == (9, 3)
    assert (rest["temperature"], rest["seed"], rest["top_k"]) == (0.7, 5, 3)
    assert "messages" not in rest
    assert "stop" not in rest


def test_without_a_limit_the_rest_may_fill_the_context() -> None:
    assert asked().rest([1, 2], [3], room=50)["max_tokens"] == 50


def test_a_whole_answer_is_asked_for_as_a_stream_with_usage() -> None:
    first = asked(stream=False).first()
    assert first["stream"] is True
    assert first["stream_options"] == {"include_usage": True}


def test_transfer_parameters_are_found_wherever_they_are() -> None:
    body = {"kv_transfer_params": {}, "vllm_xargs": {"kv_transfer_params": 1, "a": [{"kv_transfer_params": 2}]}}
    assert without_transfer(body) == {"vllm_xargs": {"a": [{}]}}
