"""What an OpenAI client gets through the gateway when all is well."""

import pytest
from client import CHAT, COMPLETIONS, EMBEDDINGS, Client, new_words


async def test_the_model_is_listed(gateway: Client) -> None:
    listed = await gateway.get("/v1/models")
    assert listed.status == 200
    assert gateway.model in [model["id"] for model in listed.json()["data"]]


async def test_a_chat_is_answered(gateway: Client) -> None:
    answer = await gateway.post(CHAT, gateway.chat())
    assert answer.status == 200
    told = answer.json()
    assert told["choices"][0]["message"]["role"] == "assistant"
    assert told["model"] == gateway.model
    usage = answer.usage
    assert 1 <= usage["completion_tokens"] <= 8
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


async def test_a_completion_is_answered(gateway: Client) -> None:
    body = {"model": gateway.model, "prompt": new_words(), "max_tokens": 5}
    answer = await gateway.post(COMPLETIONS, body)
    assert answer.status == 200
    assert isinstance(answer.json()["choices"][0]["text"], str)
    assert 1 <= answer.usage["completion_tokens"] <= 5


async def test_a_streamed_chat_comes_event_by_event_and_whole(gateway: Client) -> None:
    answer = await gateway.post(CHAT, gateway.streamed(max_tokens=20))
    assert answer.status == 200
    chunks = [event for event in answer.events if event["choices"]]
    assert len(chunks) > 2
    assert chunks[-1]["choices"][0]["finish_reason"] in ("length", "stop")
    assert len({event["id"] for event in answer.events}) == 1
    assert 1 <= answer.usage["completion_tokens"] <= 20


async def test_a_streamed_completion_is_whole(gateway: Client) -> None:
    body = {"model": gateway.model, "prompt": new_words(), "max_tokens": 12, "stream": True}
    answer = await gateway.post(COMPLETIONS, body)
    chunks = [event for event in answer.events if event["choices"]]
    assert chunks[-1]["choices"][0]["finish_reason"] in ("length", "stop")


async def test_first_words_come_before_the_last(gateway: Client) -> None:
    """Nothing on the way holds a stream back until it is complete."""
    async with gateway.session.post(CHAT, json=gateway.streamed(max_tokens=64)) as response:
        pieces = [piece async for piece in response.content.iter_any()]
    assert len(pieces) > 3
    assert pieces[-1].endswith(b"data: [DONE]\n\n")
    assert b"[DONE]" not in pieces[0]


async def test_streamed_and_whole_count_the_same_prompt_alike(gateway: Client) -> None:
    words = new_words()
    whole = await gateway.post(CHAT, gateway.chat(words))
    streamed = await gateway.post(CHAT, gateway.streamed(words))
    assert whole.usage["prompt_tokens"] == streamed.usage["prompt_tokens"]


@pytest.mark.parametrize("header", ["x-llm-d-inference-objective", "x-gateway-inference-objective"])
async def test_an_objective_that_nobody_knows_is_no_reason_to_refuse(gateway: Client, header: str) -> None:
    assert (await gateway.post(CHAT, gateway.chat(), {header: "nobody-knows-it"})).status == 200


async def test_a_client_cannot_choose_its_engine(gateway: Client) -> None:
    elsewhere = {
        "x-gateway-destination-endpoint": "192.0.2.1:1",
        "x-gateway-destination-endpoint-subset": "192.0.2.1:1",
    }
    assert (await gateway.post(CHAT, gateway.chat(), elsewhere)).status == 200


@pytest.mark.needs("embeddings")
async def test_texts_are_embedded(gateway: Client) -> None:
    answer = await gateway.post(EMBEDDINGS, {"model": gateway.model, "input": ["one text", "another"]})
    assert answer.status == 200
    first, second = (entry["embedding"] for entry in answer.json()["data"])
    assert len(first) == len(second) > 1
