"""Exchanges behind a real Envoy: each response path brings the whole answer, and the facts about it."""

import hashlib
import os
from functools import partial
from pathlib import Path

import pytest
from envoy_bench import STREAM, Bench, running

from picker.exchange.access_log import AccessRecord
from picker.exchange.events import Ending, Event, RequestEnded, ResponseData, ResponseStarted
from picker.exchange.failures import Failure, Refusal
from picker.exchange.machine import Answer
from picker.server.envoy import RequestMode, ResponsePath

SIZES = (2_000, 200_000)
EVIL = {"x-gateway-destination-endpoint": "127.0.0.1:1", "x-prefiller-host-port": "127.0.0.1:1", "picker-flight": "9"}


async def ask(bench: Bench, path: str, size: int) -> dict[str, object]:
    """One request with hostile headers; what the engine says it saw ({} for a stream, which must be whole)."""
    body = os.urandom(size)
    async with bench.session.post(bench.url + path, data=body, headers=EVIL) as response:
        assert response.status == 200
        if path == "/stream":
            assert await response.read() == b"".join(STREAM)
            return {}
        seen: dict[str, object] = (await response.json())["seen"]
        assert seen["bytes"] == size
        assert seen["sha"] == hashlib.sha256(body).hexdigest()
        return seen


def names(events: list[Event]) -> list[str]:
    return [type(event).__name__ for event in events if not isinstance(event, ResponseData)]


def over(bench: Bench, flight: int) -> bool:
    return names(bench.picker.events[flight])[-1] == "RequestEnded"


def told(bench: Bench, flight: int) -> list[AccessRecord]:
    return [record for record in bench.picker.records if record.flight == flight]


async def logged(bench: Bench, flight: int) -> AccessRecord:
    """The record of a flight's end, once it is there."""
    await bench.picker.until(lambda: any(record.ended for record in told(bench, flight)))
    return told(bench, flight)[-1]


@pytest.mark.parametrize("mode", ["full-duplex", "buffered"])
@pytest.mark.parametrize("path", ["access-log", "detach"])
async def test_access_log_tells_what_became_of_each_pick(tmp_path: Path, path: ResponsePath, mode: RequestMode) -> None:
    spec = {"response_path": path, "request_mode": mode, "flush_interval_s": 0.05}
    async with running(tmp_path, detach=path == "detach", **spec) as bench:
        flight = 0
        for size in SIZES:
            for route in ("/plain", "/stream"):
                flight += 1
                await ask(bench, route, size)
                record = await logged(bench, flight)
                assert record.complete
                assert (record.status, record.served) == (200, bench.engine_address)
                assert (record.prompt_tokens, record.cached_tokens, record.completion_tokens) == (11, 4, 7)
                assert record.ttft_s is not None
                assert record.duration_s is not None
                assert 0 < record.ttft_s <= record.duration_s
                seen = ["ResponseStarted"] if path == "detach" else []
                assert names(bench.picker.events[flight - 1]) == ["RequestArrived", *seen, "RequestEnded"]
                running_reports = [each.ttft_s for each in told(bench, flight) if not each.ended]
                if route == "/stream":
                    assert record.ttft_s in running_reports
                    assert bench.picker.events[flight - 1][-1] == RequestEnded(Ending.DETACHED)


@pytest.mark.parametrize("mode", ["full-duplex", "buffered"])
async def test_echoed_answer_is_seen_whole(tmp_path: Path, mode: RequestMode) -> None:
    async with running(tmp_path, response_path="echo", request_mode=mode) as bench:
        for flight, (size, route) in enumerate([(s, r) for s in SIZES for r in ("/plain", "/stream")]):
            await ask(bench, route, size)
            await bench.picker.until(partial(over, bench, flight))
            events = bench.picker.events[flight]
            started = events[1]
            assert isinstance(started, ResponseStarted)
            assert (started.status, started.served) == (200, bench.engine_address)
            assert started.streaming == (route == "/stream")
            data = [event for event in events if isinstance(event, ResponseData)]
            assert route == "/plain" or b"".join(each.body for each in data) == b"".join(STREAM)
            assert [each.end for each in data] == [False] * (len(data) - 1) + [True]
            assert events[-1] == RequestEnded(Ending.ANSWERED)


@pytest.mark.parametrize("mode", ["full-duplex", "buffered"])
async def test_the_pick_decides_and_the_client_does_not(tmp_path: Path, mode: RequestMode) -> None:
    async with running(tmp_path, request_mode=mode) as bench:
        headers = (await ask(bench, "/plain", 2_000))["headers"]
        assert isinstance(headers, dict)
        assert headers["x-gateway-destination-endpoint"] == bench.engine_address
        assert not {"x-prefiller-host-port", "picker-flight"} & set(headers)

        # An unknown endpoint at the head of the list is passed over.
        bench.picker.decide = lambda exchange, _, flight: exchange.answer(
            Answer(("127.0.0.1:1", bench.engine_address), flight=str(flight))
        )
        await ask(bench, "/plain", 200_000)
        assert (await logged(bench, 2)).served == bench.engine_address

        bench.picker.decide = lambda exchange, _, flight: exchange.answer(
            Answer((bench.engine_address,), body=b"changed", flight=str(flight))
        )
        async with bench.session.post(f"{bench.url}/plain", data=b"the client's own") as response:
            assert (await response.json())["seen"]["sha"] == hashlib.sha256(b"changed").hexdigest()

        bench.picker.decide = lambda exchange, _, __: exchange.refuse(Refusal(Failure.SATURATED, retry_after_s=3))
        async with bench.session.post(f"{bench.url}/plain", data=b"x" * 200_000) as response:
            assert response.status == 429
            assert response.headers["retry-after"] == "3"
            assert response.headers["x-llm-d-request-dropped-reason"] == "rejected-saturated"
            assert (await response.json())["error"]["code"] == "saturated"


async def test_a_request_handed_back_right_after_its_pick_is_answered(tmp_path: Path) -> None:
    async with running(tmp_path, response_path="detach") as bench:
        bench.picker.decide = lambda exchange, _, flight: (
            exchange.answer(Answer((bench.engine_address,), flight=str(flight))) and exchange.leave()
        )
        for flight, route in enumerate(("/stream", "/plain"), start=1):
            await ask(bench, route, 200_000)
            assert (await logged(bench, flight)).complete


async def test_a_client_that_goes_away_is_told_by_the_log(tmp_path: Path) -> None:
    async with running(tmp_path, flush_interval_s=0.05) as bench:
        bench.engine.midway = lambda: bench.picker.until(lambda: any(each.ended for each in told(bench, 1)))
        async with bench.session.post(f"{bench.url}/stream", data=b"{}") as response:
            await bench.picker.reported()
            response.close()
        record = await logged(bench, 1)
        assert record.status == 200
        assert "downstream_connection_termination" in record.flags
        assert not record.complete
