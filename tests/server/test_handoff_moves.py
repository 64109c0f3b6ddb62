"""Agents of two proxies, over real sockets: who moves, by which way the KV goes, and when nobody does."""

import asyncio
import re
from typing import Any

import pytest
from handoff_pool import ASKED, CHAT, EXPORTED, PAGE, TEXT, Pool, pool
from structlog.testing import capture_logs

from picker.server import handoff_flights
from picker.stages.bids import Agent

STEP = {"fixed_ms": 5.0, "decode_ms": 5.0, "context_ms": 100.0, "prefill_ms": 0.1}
STAGES: dict[str, Any] = {"a": {"step_model": STEP, "high": 8, "following": ["b"]}, "b": {"step_model": STEP}}


async def three_streams(there: Pool) -> list[tuple[int, bytes]]:
    there.engines["a"].every_s = there.engines["b"].every_s = 0.03
    return await asyncio.gather(*(there.post(CHAT, ASKED | {"stream": True}) for _ in range(3)))


async def until_known(there: Pool, name: str) -> None:
    """The agent of that engine has looked at it and at its line."""
    seen = asked_of(there, name, "/metrics")
    while asked_of(there, name, "/metrics") < seen + 2:
        await asyncio.sleep(0.02)


def asked_of(there: Pool, name: str, path: str = TEXT) -> int:
    """How often that engine was asked there."""
    return sum(heard == path for heard, _ in there.engines[name].heard)


@pytest.mark.parametrize("pull", [True, False])
async def test_a_request_that_outgrows_its_stage_moves_after_its_kv(pull: bool) -> None:
    async with pool(pull=pull, stages=STAGES) as there:
        assert await three_streams(there) == [(200, there.alone())] * 3
    heard = there.engines["b"].heard
    copies = [body for _, body in heard if body.get("max_tokens") == 1 and not body.get("stream")]
    rests = [body for path, body in heard if path == TEXT and body.get("stream")]
    assert rests
    assert [body.get("kv_transfer_params") for body in copies] == [EXPORTED if pull else None] * len(copies)
    assert copies[0]["prompt"] == rests[0]["prompt"][: len(copies[0]["prompt"])]


async def test_a_request_whose_kv_cannot_be_brought_stays() -> None:
    async with pool(stages=STAGES) as there:
        there.engines["b"].status = 500
        assert await three_streams(there) == [(200, there.alone())] * 3
        assert not [body for _, body in there.engines["b"].heard if body.get("stream")]


async def test_an_engine_with_a_long_line_takes_nobody() -> None:
    slow = STAGES | {"b": {"step_model": STEP | {"prefill_ms": 100.0}}}
    async with pool(stages=slow) as there:
        there.engines["b"].prefills.clear()
        long = {"model": "m", "prompt": [1] * 20_000, "max_tokens": 1, "stream": True}
        waiting = asyncio.create_task(there.post(TEXT, long, name="b"))
        while not there.proxies["b"].site.line:
            await asyncio.sleep(0.01)
        await until_known(there, "b")
        assert await three_streams(there) == [(200, there.alone())] * 3
        assert asked_of(there, "b") == 1
        async with there.session.get(there.url("b") + "/handoff/metrics") as page:
            [waits] = re.findall(r"^picker_handoff_wait_seconds (\S+)$", await page.text(), re.MULTILINE)
        assert 1000 < float(waits) < 2100
        there.engines["b"].prefills.set()
        await waiting
        assert await three_streams(there) == [(200, there.alone())] * 3
        assert asked_of(there, "b") > 1


async def test_who_waits_there_without_having_come_by_the_proxy_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pool(stages=STAGES) as there:
        monkeypatch.setattr("handoff_pool.PAGE", PAGE.replace("waiting 0", "waiting 500"))
        await there.post(TEXT, {"model": "m", "prompt": [1] * 500, "max_tokens": 1, "stream": True}, name="b")
        await until_known(there, "b")
        assert await three_streams(there) == [(200, there.alone())] * 3
        assert asked_of(there, "b") == 1


async def test_a_peer_that_never_answers_holds_no_stream_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handoff_flights, "PAUSE_S", 0.05)
    async with pool() as there:
        there.engines["a"].every_s = 0.01
        asking = asyncio.create_task(there.post(CHAT, ASKED | {"stream": True}))
        while not any(flight.ready for flight in there.proxies["a"].flights.here()):
            await asyncio.sleep(0.01)
        next(there.proxies["a"].flights.here()).pause()
        assert await asking == (200, there.alone())


async def test_streams_go_on_when_the_agent_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(Agent, "tick", fail)
    with capture_logs() as told:
        async with pool(stages=STAGES) as there:
            assert await three_streams(there) == [(200, there.alone())] * 3
    assert [entry["event"] for entry in told] == ["the agent failed"] * 2


async def test_nobody_moves_for_less_than_it_costs() -> None:
    cheap = {"fixed_ms": 5.0, "decode_ms": 0.001, "context_ms": 0.0, "prefill_ms": 0.1}
    stages = {name: stage | {"step_model": cheap} for name, stage in STAGES.items()}
    async with pool(stages=stages) as there:
        await three_streams(there)
        assert not [path for path, _ in there.engines["b"].heard if path == TEXT]
