"""An answer in one piece, through two engines."""

import json

import model_engine

from picker.handoff.asked import Asked, read
from picker.handoff.stream import Stream
from picker.handoff.whole import Whole


def test_a_whole_answer_moved_is_that_of_one_engine() -> None:
    asked = read("chat", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 12, "logprobs": True})
    assert isinstance(asked, Asked)
    stream, whole = Stream(asked), Whole("chat")
    for event in model_engine.answer("chat", asked.first(), [1, 2], "1")[:5]:
        for out in stream.feed(event):
            whole.feed(out)
    stream.cut()
    stream.go_on()
    rest = stream.rest(room=50)
    for event in model_engine.answer("completion", rest, rest["prompt"], "2"):
        for out in stream.feed(event):
            whole.feed(out)
    body = json.loads(whole.body())
    tokens = [token for token, *_ in model_engine.steps([1, 2], {"max_tokens": 12})]
    (choice,) = body["choices"]
    assert choice["message"] == {"role": "assistant", "content": model_engine.decode(tokens)}
    assert len(choice["logprobs"]["content"]) == len(tokens)
    assert (body["id"], body["object"], choice["token_ids"]) == ("1", "chat.completion", None)
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (2, len(tokens))
