"""A configuration file of llm-d-router, given to picker as it is, behind a real Envoy."""

import base64
from pathlib import Path

import pytest
from gateway import chat, gateway, new_words

SAMPLES = Path(__file__).parents[2] / "tests" / "server" / "samples"

pytestmark = pytest.mark.asyncio


async def test_an_answer_carries_the_token_that_brings_its_session_back() -> None:
    argv = ("--config-file", str(SAMPLES / "payload-agnostic.yaml"))
    async with gateway("echo", argv=argv) as running:
        first = await running.ask(chat(new_words()))
        token = first.headers["x-session-token"]
        home = (await running.decided(first.request_id))["chosen"]
        assert base64.b64decode(token).decode() == home

        served = []
        for _ in range(6):
            reply = await running.ask(chat(new_words()), headers={"x-session-token": token})
            assert reply.ok
            served.append((await running.decided(reply.request_id))["chosen"])

        assert served == [home] * 6


async def test_a_profile_shows_every_scorer_in_the_decision_log() -> None:
    argv = ("--config-file", str(SAMPLES / "llm-d-default.yaml"))
    async with gateway(argv=argv) as running:
        words = new_words()
        asked = [await running.ask(chat(words)) for _ in range(3)]
        last = await running.decided(asked[-1].request_id)

    assert (last["policy"], last["fallbacks"]) == ("composed", [])
    (chosen,) = [row for row in last["endpoints"] if row["address"] == last["chosen"]]
    assert set(chosen["reasons"]) == {"queue-scorer", "kv-cache-utilization-scorer", "prefix-cache-scorer"}
    assert chosen["reasons"]["prefix-cache-scorer"] > 0.9
