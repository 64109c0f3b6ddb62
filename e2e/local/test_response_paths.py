"""What every response path gives: the same answers to clients, the same facts to the decision log, an empty ledger."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from gateway import CHAT, COMPLETIONS, PATIENCE_S, Gateway, chat, gateway, new_words

pytestmark = pytest.mark.asyncio(loop_scope="module")
WAYS = [
    ("access-log", "full-duplex"),
    ("access-log", "buffered"),
    ("detach", "full-duplex"),
    ("detach", "buffered"),
    ("echo", "full-duplex"),
    ("echo", "buffered"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=WAYS, ids="-".join)
async def way(request: pytest.FixtureRequest) -> AsyncIterator[Gateway]:
    async with gateway(*request.param) as running:
        # Envoy connects its access log with the first record; from then on answers can be detached.
        await running.ask(chat())
        await running.at_rest()
        yield running


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_an_answer_reaches_its_client_and_its_facts_reach_the_decision_log(
    way: Gateway, path: str, stream: bool
) -> None:
    body = chat(stream=stream, max_tokens=12)
    if path == COMPLETIONS:
        body["prompt"] = new_words()
        del body["messages"]
    reply = await way.ask(body, path)
    assert reply.ok
    usage, decision = reply.usage(), await way.decided(reply.request_id)
    outcome = decision["outcome"]
    assert outcome["status"] == 200
    assert outcome["complete"] is True
    assert outcome["streamed"] is stream
    assert outcome["served"] == decision["chosen"]
    assert outcome["prompt_tokens"] == usage["prompt_tokens"] > 0
    assert outcome["completion_tokens"] == usage["completion_tokens"] == 12
    assert outcome["cached_tokens"] == usage["prompt_tokens_details"]["cached_tokens"]
    assert 0 < outcome["ttft_ms"] <= outcome["e2e_ms"]
    assert (outcome["tpot_ms"] is not None) is stream
    await way.at_rest()


async def test_cached_tokens_of_a_repeated_prompt_are_learned(way: Gateway) -> None:
    body = chat(new_words(400), max_tokens=2)
    first = await way.ask(body)
    await way.at_rest()
    second = await way.ask(body)
    outcome = (await way.decided(second.request_id))["outcome"]
    assert outcome["served"] == (await way.decided(first.request_id))["outcome"]["served"]
    assert outcome["cached_tokens"] == second.usage()["prompt_tokens_details"]["cached_tokens"] > 0


async def test_a_request_without_a_body_is_picked_for(way: Gateway) -> None:
    reply = await way.ask(path="/v1/models")
    assert reply.ok
    assert reply.json()["data"][0]["id"] == "sim"
    assert (await way.decided(reply.request_id))["outcome"]["complete"] is True
    await way.at_rest()


async def test_a_body_of_300_kilobytes_is_answered(way: Gateway) -> None:
    reply = await way.ask(chat(new_words(60_000), max_tokens=2))
    assert reply.ok
    assert reply.usage()["prompt_tokens"] > 70_000
    await way.at_rest()


@pytest.mark.parametrize("body", [b"{", b'{"model": 7, "messages": []}', b"\xff\xfe", b"[" * 100_000])
async def test_a_body_that_cannot_be_read_gets_an_openai_error(way: Gateway, body: bytes) -> None:
    reply = await way.ask(body)
    assert reply.status == 400
    assert reply.json()["error"]["type"] == "invalid_request_error"
    assert reply.json()["error"]["message"]
    await way.at_rest()


async def test_an_unknown_path_is_the_engines_own_affair(way: Gateway) -> None:
    reply = await way.ask({"anything": [1, 2]}, path="/v1/not/known")
    assert reply.status == 404
    outcome = (await way.decided(reply.request_id))["outcome"]
    assert (outcome["status"], outcome["complete"]) == (404, True)


async def test_a_client_that_goes_away_mid_stream_leaves_nothing_in_the_ledger(way: Gateway) -> None:
    reply, task = await way.begin(chat(new_words(), stream=True, max_tokens=5000))
    assert sum(row["in_flight"] for row in (await way.pool()).values()) == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    outcome = (await way.decided(reply.request_id))["outcome"]
    assert (outcome["status"], outcome["complete"]) == (200, False)
    await way.at_rest()


async def test_a_client_that_goes_away_before_the_answer_leaves_nothing_in_the_ledger(way: Gateway) -> None:
    async def leave_early() -> None:
        task = asyncio.create_task(way.ask(chat(new_words(20_000), max_tokens=5000)))
        async with asyncio.timeout(PATIENCE_S):
            while not any(row["in_flight"] for row in (await way.pool()).values()):
                await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    await asyncio.gather(*(leave_early() for _ in range(3)))
    await way.at_rest()


async def test_many_answers_at_once_arrive_whole(way: Gateway) -> None:
    replies = await asyncio.gather(*(way.ask(chat(new_words(), stream=i % 2 == 0, max_tokens=20)) for i in range(40)))
    assert all(reply.ok for reply in replies)
    assert {reply.usage()["completion_tokens"] for reply in replies} == {20}
    await way.at_rest()
    served = [row["ended"] for row in (await way.pool()).values()]
    assert min(served) > 0
