"""A run that was measured on a real engine, replayed on the step model: how far off is the model?

Nothing of the run but its input reaches the model: arrivals, lengths, prefix blocks and the engine's flags. All times
are taken on the engine's own clock, from the moment it queued a request.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

import msgspec
import numpy as np
import zstandard

from picker.simulator.engine import Engine
from picker.simulator.replay import Timing, replay
from picker.simulator.sequence import EngineRequest, Limits
from picker.simulator.steptime import StepTime

BLOCK_SIZE = 16
"""Tokens that one id of the workload's `hash16` stands for."""
MAX_BYTES = 1 << 28
MEASURES = ("ttft", "tpot", "e2e")

Line = TypeVar("Line", bound=msgspec.Struct)
Positive = Annotated[int, msgspec.Meta(ge=1)]
Milliseconds = dict[str, float]


@dataclass(frozen=True, slots=True)
class MeasuredRequest:
    """Arrival in ms from the first one, lengths in tokens, prefix blocks (equal id, equal prefix), and what it took."""

    id: str
    at_ms: float
    prompt_tokens: int
    output_tokens: int
    hashes: tuple[int, ...]
    ttft_ms: float
    e2e_ms: float


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """The engine's flags and its requests in order of arrival."""

    limits: Limits
    requests: tuple[MeasuredRequest, ...]


class _Flags(msgspec.Struct):
    max_num_seqs: Positive
    max_num_batched_tokens: Positive
    max_model_len: Positive | None = None


class _Meta(msgspec.Struct):
    engine_kwargs: _Flags


class _Row(msgspec.Struct):
    request_id: str
    input_toks: Positive
    output_toks: Positive
    queued_ts: float
    first_token_ts: float
    last_token_ts: float


class _Prompt(msgspec.Struct):
    input_toks: Positive
    output_toks: Positive
    hash16: list[Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]]


def parse_run(meta: bytes, requests: bytes, workload: bytes | None = None) -> MeasuredRun:
    """A run from its `meta.json`, `requests.jsonl` and, for prefix hits, `workload.jsonl`.

    Each may be plain, gzip or zstd, told apart by content. Without a workload no prompt shares a block.
    Raises ValueError, with file and line, for anything else, and when workload and requests are not about the same.
    """
    try:
        flags = msgspec.json.decode(_inflate("meta", meta), type=_Meta).engine_kwargs
        limits = Limits(BLOCK_SIZE, flags.max_num_seqs, flags.max_num_batched_tokens, flags.max_model_len)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"meta: {error}") from None
    rows = _lines("requests", requests, _Row)
    if not rows:
        raise ValueError("requests: the run is empty")
    prompts: Sequence[_Prompt | None] = (
        [None] * len(rows) if workload is None else _lines("workload", workload, _Prompt)
    )
    if len(prompts) != len(rows):
        raise ValueError(f"workload: {len(prompts)} prompts for {len(rows)} requests")
    if len({row.request_id for row in rows}) < len(rows):
        raise ValueError("requests: two of them have the same request_id")
    start = min(row.queued_ts for row in rows)
    read = (_request(line, *pair, start) for line, pair in enumerate(zip(rows, prompts, strict=True), 1))
    return MeasuredRun(limits, tuple(sorted(read, key=lambda request: request.at_ms)))


def _request(line: int, row: _Row, prompt: _Prompt | None, start: float) -> MeasuredRequest:
    if not -math.inf < row.queued_ts < row.first_token_ts <= row.last_token_ts < math.inf:
        raise ValueError(f"requests line {line}: queued, first and last token are not in this order")
    hashes: tuple[int, ...] = ()
    if prompt is not None:
        if (prompt.input_toks, prompt.output_toks) != (row.input_toks, row.output_toks):
            raise ValueError(f"workload line {line}: other lengths than in requests")
        if len(prompt.hash16) != row.input_toks // BLOCK_SIZE:
            raise ValueError(f"workload line {line}: {len(prompt.hash16)} blocks for {row.input_toks} tokens")
        hashes = tuple(prompt.hash16)
    return MeasuredRequest(
        row.request_id,
        (row.queued_ts - start) * 1e3,
        row.input_toks,
        row.output_toks,
        hashes,
        (row.first_token_ts - row.queued_ts) * 1e3,
        (row.last_token_ts - row.queued_ts) * 1e3,
    )


def _lines(name: str, data: bytes, kind: type[Line]) -> list[Line]:
    decoder = msgspec.json.Decoder(kind)
    read = []
    for number, line in enumerate(_inflate(name, data).splitlines(), 1):
        if line.strip():
            try:
                read.append(decoder.decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise ValueError(f"{name} line {number}: {error}") from None
    return read


def _inflate(name: str, data: bytes) -> bytes:
    try:
        if data.startswith(b"\x1f\x8b"):
            data = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(data, MAX_BYTES + 1)
        elif data.startswith(b"\x28\xb5\x2f\xfd"):
            data = zstandard.ZstdDecompressor().stream_reader(data).read(MAX_BYTES + 1)
    except (zlib.error, zstandard.ZstdError) as error:
        raise ValueError(f"{name}: cannot be decompressed: {error}") from None
    if len(data) > MAX_BYTES:
        raise ValueError(f"{name}: more than {MAX_BYTES >> 20} MiB")
    return data


def simulate(run: MeasuredRun, step_time: StepTime) -> list[Timing]:
    """The run's input through one engine with the run's own flags; in the run's order.

    Raises ValueError when the modelled engine refuses a request that the real one served.
    """
    arrivals = [(r.at_ms, EngineRequest(r.id, r.prompt_tokens, r.output_tokens, r.hashes)) for r in run.requests]
    timings = {timing.id: timing for timing in replay(Engine(step_time, run.limits), arrivals)}
    if refused := [request.id for request in run.requests if request.id not in timings]:
        raise ValueError(f"{step_time.name} refuses {len(refused)} requests that the real engine served: {refused[0]}")
    return [timings[request.id] for request in run.requests]


def measured(run: MeasuredRun) -> dict[str, Milliseconds]:
    """Mean, P50, P90 and P99 of TTFT, TPOT and end-to-end time as measured, in ms."""
    return _summary([(r.ttft_ms, r.e2e_ms, r.output_tokens) for r in run.requests])


def simulated(timings: Sequence[Timing]) -> dict[str, Milliseconds]:
    """The same figures of a simulation, in ms."""
    return _summary([(t.ttft_ms, t.e2e_ms, t.output_tokens) for t in timings])


def errors_pct(real: dict[str, Milliseconds], model: dict[str, Milliseconds]) -> dict[str, dict[str, float]]:
    """Per measure and statistic: by how many per cent the model is too slow (+) or too fast (-)."""
    return {
        f"{measure}_error_pct": {
            statistic: (model[measure][statistic] / real[measure][statistic] - 1) * 100
            for statistic in ("mean", "p50", "p99")
        }
        for measure in MEASURES
    }


def _summary(times: list[tuple[float, float, int]]) -> dict[str, Milliseconds]:
    per_token = [(e2e - ttft) / (tokens - 1) for ttft, e2e, tokens in times if tokens > 1]
    if not per_token or not any(per_token):
        raise ValueError("requests: nobody got a second token, so there is no time per token")
    return {
        "ttft": _statistics([ttft for ttft, _e2e, _tokens in times]),
        "tpot": _statistics(per_token),
        "e2e": _statistics([e2e for _ttft, e2e, _tokens in times]),
    }


def _statistics(values: list[float]) -> Milliseconds:
    p50, p90, p99 = (float(value) for value in np.quantile(values, (0.5, 0.9, 0.99)))
    return {"mean": float(np.mean(values)), "p50": p50, "p90": p90, "p99": p99}
