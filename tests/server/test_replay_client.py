"""The open-loop replay: what it sends, when, and what it makes of answers good and bad."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from picker.server.engine import EngineOptions, running
from picker.server.replay_client import Api, Replay, ReplayResult, Sent, body, replay, summary
from picker.simulator.trace import TraceRequest, load_shipped, prompt_text

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
APIS: tuple[Api, ...] = ("chat", "completions")
ONE = TraceRequest(0, 0.0, 600, 3, (0, 1))


@asynccontextmanager
async def answering(handler: Handler) -> AsyncIterator[str]:
    """A server that answers every POST with `handler`; gives its URL."""
    app = web.Application(client_max_size=1 << 24)
    app.router.add_post("/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def saying(text: str, status: int = 200) -> Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(text=text, status=status, content_type="text/event-stream")

    return handler


def event(**fields: object) -> str:
    return f"data: {json.dumps(fields)}\n\n"


def words(*texts: str, finish: str | None = "length") -> str:
    last = len(texts) - 1
    return "".join(
        event(choices=[{"delta": {"content": text}, "finish_reason": finish if i == last else None}])
        for i, text in enumerate(texts)
    )


def usage(completion: int = 3, cached: int = 16) -> str:
    counts = {"prompt_tokens": 64, "completion_tokens": completion, "prompt_tokens_details": {"cached_tokens": cached}}
    return event(choices=[], usage=counts)


DONE = "data: [DONE]\n\n"


async def outcome(text: str, status: int = 200) -> Sent:
    async with answering(saying(text, status)) as url:
        result = await replay(Replay(url, "m", [ONE], scale=1.0))
    (sent,) = result.sent
    return sent


async def test_the_shipped_trace_goes_through_an_engine_with_every_token() -> None:
    seen: list[Sent] = []
    async with running(EngineOptions(port=0, speedup=100.0)) as server:
        plan = Replay.shipped(url=f"http://{server.address}", model="sim", requests=20, speedup=400, scale=1 / 16)
        result = await replay(plan, on_done=seen.append)
    report = summary(result)
    assert report["requests"] == report["ok"] == 20
    assert report["errors"] == 0
    assert {sent.index for sent in seen} == {request.index for request in plan.requests}
    for figure in ("ttft_ms", "tpot_ms", "e2e_ms"):
        assert 0 < report[figure]["p50"] <= report[figure]["p99"]
    # All share the trace's first block, 32 tokens at this scale: only the first one finds nothing.
    first, *others = sorted(sent.cached_tokens for sent in seen)
    assert first == 0
    assert min(others) == 32
    assert report["prefix_hit_ratio"] == sum(others) / sum(sent.prompt_tokens for sent in seen)


async def test_both_apis_are_spoken() -> None:
    async with running(EngineOptions(port=0, speedup=100.0)) as server:
        for api in APIS:
            (sent,) = (await replay(Replay(f"http://{server.address}/", "sim", [ONE], api=api))).sent
            assert sent.ok
            assert sent.completion_tokens == 3


async def test_a_request_asks_for_exactly_the_lengths_of_the_trace() -> None:
    request = load_shipped()[0]
    asked = json.loads(body(Replay("http://x", "m", [request], scale=0.5), request))
    assert asked["max_tokens"] == request.output_tokens // 2
    assert asked["messages"] == [{"role": "user", "content": prompt_text(request, scale=0.5)}]
    assert asked["stream"]
    assert asked["ignore_eos"]
    assert asked["stream_options"] == {"include_usage": True}


async def test_requests_leave_on_time_although_none_is_answered() -> None:
    release = asyncio.Event()
    arrived = asyncio.Queue[str]()

    async def hold(request: web.Request) -> web.StreamResponse:
        arrived.put_nowait(request.headers["X-Request-Id"])
        await release.wait()
        return web.Response(text=words("a", "b", "c") + usage() + DONE)

    requests = [TraceRequest(i, i * 10.0, 512, 3, (i,)) for i in range(5)]
    async with answering(hold) as url:
        work = asyncio.create_task(replay(Replay(url, "m", requests)))
        assert {await arrived.get() for _ in requests} == {f"replay-{i}" for i in range(5)}
        release.set()
        assert all(sent.ok for sent in (await work).sent)


async def test_no_more_than_max_in_flight_are_open() -> None:
    open_now, most = 0, 0

    async def count(_: web.Request) -> web.StreamResponse:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        await asyncio.sleep(0)
        open_now -= 1
        return web.Response(text=words("a", "b", "c") + usage() + DONE)

    requests = [TraceRequest(i, 0.0, 512, 3, (i,)) for i in range(12)]
    async with answering(count) as url:
        result = await replay(Replay(url, "m", requests, max_in_flight=2))
    assert len(result.sent) == 12
    assert 1 <= most <= 2


async def test_a_complete_answer_is_measured() -> None:
    sent = await outcome(words("a", "b", "c") + usage() + DONE)
    assert sent.ok
    assert sent.ttft_ms is not None
    assert sent.e2e_ms is not None
    assert 0 < sent.ttft_ms <= sent.e2e_ms
    assert (sent.prompt_tokens, sent.cached_tokens, sent.completion_tokens) == (64, 16, 3)


async def test_a_model_that_stops_by_itself_is_complete() -> None:
    assert (await outcome(words("a", finish="stop") + usage(completion=1) + DONE)).ok


@pytest.mark.parametrize(
    ("text", "status", "error"),
    [
        (words("a", "b", "c") + usage(), 200, "without [DONE]"),
        (words("a", "b", finish=None) + usage() + DONE, 200, "without a finish reason"),
        (words("a", "b") + usage(completion=2) + DONE, 200, "2 tokens instead of 3"),
        (words("a", "b", "c") + DONE, 200, "0 tokens instead of 3"),
        (words("a") + event(error={"message": "engine died"}) + DONE, 200, "engine died"),
        ("data: {not json}\n\n", 200, "not an API event"),
        ("data: " + "[" * 100_000 + "\n\n", 200, "not an API event"),
        ("x" * (1 << 21), 200, "longer than 1 MiB"),
        ("", 200, "without [DONE]"),
        ('{"error":{"message":"saturated"}}', 429, "saturated"),
        ("", 503, "no body"),
    ],
)
async def test_an_incomplete_answer_is_an_error_that_says_why(text: str, status: int, error: str) -> None:
    sent = await outcome(text, status)
    assert not sent.ok
    assert sent.status == status
    assert error in sent.error
    assert sent.e2e_ms is None


async def test_nobody_listening_is_an_error_too() -> None:
    async with answering(saying("")) as url:
        pass
    (sent,) = (await replay(Replay(url, "m", [ONE]))).sent
    assert sent.status == 0
    assert "Connect" in sent.error


async def test_an_answer_that_hangs_times_out() -> None:
    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async with answering(hang) as url:
        (sent,) = (await replay(Replay(url, "m", [ONE], timeout_s=0.05))).sent
    assert sent.error == "timed out"


def test_the_summary_counts_errors_but_measures_complete_answers() -> None:
    good = [
        Sent(i, 200, ttft_ms=10.0 * i, tpot_ms=1.0, e2e_ms=20.0, prompt_tokens=100, cached_tokens=i) for i in range(5)
    ]
    report = summary(ReplayResult((*good, Sent(9, 500, error="no", ttft_ms=9e9)), elapsed_s=1.0))
    assert report["requests"] == 6
    assert report["ok"] == 5
    assert report["errors"] == 1
    assert report["ttft_ms"] == {"mean": 20.0, "p50": 20.0, "p99": pytest.approx(39.6)}
    assert report["prefix_hit_ratio"] == pytest.approx(10 / 500)


def test_a_summary_of_nothing_has_no_figures() -> None:
    report = summary(ReplayResult((), elapsed_s=0.0))
    assert report["ttft_ms"] == {"mean": None, "p50": None, "p99": None}
    assert report["prefix_hit_ratio"] is None


@pytest.mark.parametrize(("speedup", "scale", "in_flight"), [(0.0, 1.0, 1), (1.0, -1.0, 1), (1.0, 1.0, 0)])
async def test_a_plan_that_cannot_be_sent_is_refused(speedup: float, scale: float, in_flight: int) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        await replay(Replay("http://x", "m", [ONE], speedup=speedup, scale=scale, max_in_flight=in_flight))
