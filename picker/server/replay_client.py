"""Replays a trace through a URL, open loop: requests leave when the trace says so, however slow the answers are."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp
import msgspec
import numpy as np

from picker.simulator.trace import TraceRequest, laps, load_shipped, prompt_text, scaled

Api = Literal["chat", "completions"]

MAX_LINE_BYTES = 1 << 20
MAX_ERROR_CHARS = 300


@dataclass(frozen=True, slots=True)
class Replay:
    """What to send, where, how fast. `speedup` divides the gaps between arrivals, `scale` multiplies lengths, those of
    answers `answer_scale` if there is one."""

    url: str
    model: str
    requests: Sequence[TraceRequest]
    speedup: float = 1.0
    scale: float = 1.0
    answer_scale: float | None = None
    chars_per_token: int = 4
    api: Api = "chat"
    max_in_flight: int = 1024
    """Beyond it requests leave late, and say so."""
    timeout_s: float = 600.0
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def shipped(
        cls,
        *,
        url: str,
        model: str,
        requests: int,
        speedup: float = 1.0,
        scale: float = 1.0,
        answer_scale: float | None = None,
        seed: int = 0,
    ) -> "Replay":
        """So many requests of the trace that ships with the package: its 600, then the same with other prompts."""
        sent = laps(load_shipped(seed=seed), requests)
        return cls(url, model, sent, speedup=speedup, scale=scale, answer_scale=answer_scale)

    def answer_tokens(self, request: TraceRequest) -> int:
        """How long the answer shall be."""
        return scaled(request.output_tokens, self.scale if self.answer_scale is None else self.answer_scale)


@dataclass(frozen=True, slots=True)
class Sent:
    """One request as its client saw it. Times in ms from the moment it was sent; None where it did not get so far."""

    index: int
    status: int = 0
    """HTTP status; 0 when there was no answer."""
    error: str = ""
    """Why it is not `ok`; empty when it is."""
    late_ms: float = 0.0
    """How much later than the trace says it was sent."""
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    """Mean time per output token after the first; None for a single token."""
    e2e_ms: float | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0

    @property
    def ok(self) -> bool:
        """A complete answer: 200, [DONE], and the tokens that were asked for unless the model stopped by itself."""
        return not self.error


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """All requests of one replay, in the order they ended."""

    sent: tuple[Sent, ...]
    elapsed_s: float


async def replay(plan: Replay, *, on_done: Callable[[Sent], None] = lambda _: None) -> ReplayResult:
    """Send everything; `on_done` sees each request as it ends. Failures are results, never exceptions.

    Raises ValueError for a plan that cannot be sent at all.
    """
    if not plan.speedup > 0 or not plan.scale > 0 or plan.max_in_flight < 1:
        raise ValueError("speedup, scale and max_in_flight must be positive")
    done: list[Sent] = []
    seats = asyncio.Semaphore(plan.max_in_flight)
    begin = time.monotonic()

    async def one(session: aiohttp.ClientSession, request: TraceRequest, due: float) -> None:
        try:
            sent = await _send(session, plan, request, max(0.0, time.monotonic() - due) * 1e3)
        finally:
            seats.release()
        done.append(sent)
        on_done(sent)

    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=plan.timeout_s)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout, headers=plan.headers) as session,
        asyncio.TaskGroup() as tasks,
    ):
        for request in plan.requests:
            due = begin + request.at_ms / 1e3 / plan.speedup
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await seats.acquire()
            tasks.create_task(one(session, request, due))
    return ReplayResult(tuple(done), time.monotonic() - begin)


def body(plan: Replay, request: TraceRequest) -> bytes:
    """The JSON body of one request: a streamed answer of exactly the trace's (scaled) length, with usage."""
    text = prompt_text(request, chars_per_token=plan.chars_per_token, scale=plan.scale)
    asked: dict[str, Any] = {"prompt": text} if plan.api == "completions" else {"messages": [_user(text)]}
    return msgspec.json.encode(
        {
            "model": plan.model,
            **asked,
            "max_tokens": plan.answer_tokens(request),
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    )


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


async def _send(session: aiohttp.ClientSession, plan: Replay, request: TraceRequest, late_ms: float) -> Sent:
    path = "/v1/chat/completions" if plan.api == "chat" else "/v1/completions"
    wanted = plan.answer_tokens(request)
    data = body(plan, request)
    headers = {"Content-Type": "application/json", "X-Request-Id": f"replay-{request.index}"}
    reader = _Reader(request.index, late_ms, time.monotonic())
    try:
        async with session.post(plan.url.rstrip("/") + path, data=data, headers=headers) as response:
            reader.status = response.status
            if response.status != 200:
                reader.error = (await response.content.read(MAX_ERROR_CHARS)).decode(errors="replace") or "no body"
            else:
                async for line in _lines(response.content):
                    reader.line(line)
                reader.ended(wanted)
    except TimeoutError:
        reader.error = "timed out"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        reader.error = f"{type(error).__name__}: {error}"[:MAX_ERROR_CHARS]
    return reader.sent()


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any chunking. Raises ValueError for one that is longer than 1 MiB."""
    rest = b""
    async for piece in content.iter_any():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line
        if len(rest) > MAX_LINE_BYTES:
            raise ValueError("a line of the answer is longer than 1 MiB")


class _Usage(msgspec.Struct):
    class Details(msgspec.Struct):
        cached_tokens: int | None = None

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: Details | None = None


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


class _Reader:
    """Follows one streamed answer."""

    def __init__(self, index: int, late_ms: float, begin: float) -> None:
        self.status = 0
        self.error = ""
        self._index = index
        self._late_ms = late_ms
        self._begin = begin
        self._first: float | None = None
        self._latest: float | None = None
        self._done = False
        self._finish: str | None = None
        self._usage = _Usage()

    def line(self, line: bytes) -> None:
        """Raises ValueError for an event that is not the API's, or that carries an error."""
        if not line.startswith(b"data:"):
            return
        data = line[5:].strip()
        if data == b"[DONE]":
            self._done = True
            return
        try:
            chunk = msgspec.json.decode(data, type=_Chunk)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ValueError(f"not an API event: {error}") from None
        if chunk.error is not None:
            raise ValueError(f"the stream carried an error: {chunk.error}")
        self._usage = chunk.usage or self._usage
        for choice in chunk.choices:
            self._finish = choice.finish_reason or self._finish
            if choice.text or (choice.delta is not None and choice.delta.content):
                self._latest = time.monotonic()
                self._first = self._first or self._latest

    def ended(self, wanted: int) -> None:
        """The body has ended: say what is missing."""
        got = self._usage.completion_tokens
        if not self._done:
            self.error = "the stream ended without [DONE]"
        elif self._finish is None:
            self.error = "the stream ended without a finish reason"
        elif self._finish == "length" and got != wanted:
            self.error = f"{got} tokens instead of {wanted}"

    def sent(self) -> Sent:
        details = self._usage.prompt_tokens_details
        first, latest, tokens = self._first, self._latest, self._usage.completion_tokens
        complete = first is not None and latest is not None and not self.error
        return Sent(
            index=self._index,
            status=self.status,
            error=self.error,
            late_ms=self._late_ms,
            ttft_ms=None if first is None else (first - self._begin) * 1e3,
            tpot_ms=(latest - first) * 1e3 / (tokens - 1) if complete and latest and first and tokens > 1 else None,
            e2e_ms=(latest - self._begin) * 1e3 if complete and latest else None,
            prompt_tokens=self._usage.prompt_tokens,
            cached_tokens=(details.cached_tokens or 0) if details is not None else 0,
            completion_tokens=tokens,
        )


def summary(result: ReplayResult) -> dict[str, Any]:
    """Figures of the complete answers: mean, p50 and p99 in ms (None when there are none), and the token-weighted
    prefix hit ratio from the answers' own usage (None when no answer carried any)."""
    good = [sent for sent in result.sent if sent.ok]
    prompt = sum(sent.prompt_tokens for sent in good)
    return {
        "requests": len(result.sent),
        "ok": len(good),
        "errors": len(result.sent) - len(good),
        "ttft_ms": _spread([sent.ttft_ms for sent in good]),
        "tpot_ms": _spread([sent.tpot_ms for sent in good]),
        "e2e_ms": _spread([sent.e2e_ms for sent in good]),
        "prefix_hit_ratio": sum(sent.cached_tokens for sent in good) / prompt if prompt else None,
    }


def _spread(values: Sequence[float | None]) -> dict[str, float | None]:
    known = np.array([value for value in values if value is not None])
    if not len(known):
        return {"mean": None, "p50": None, "p99": None}
    p50, p99 = np.percentile(known, [50, 99])
    return {"mean": float(known.mean()), "p50": float(p50), "p99": float(p99)}
