"""Workloads from files, recognised by content.

- Mooncake: jsonl of `timestamp` (ms), `input_length`, `output_length`, `hash_ids` (one per 512 tokens);
- agentic sessions: jsonl of sessions, each a closed loop: a request arrives `think` seconds after the previous answer;
- lengths: CSV with the columns `t` (s), `input_length`, `output_length`; nothing is shared;
- our own decision log, as the admin port gives it: a JSON list with `at`, `prompt_tokens`, `outcome`; nothing is
  shared, since the log keeps no block identities.

Any of them may be gzipped. Files are hostile: what is wrong is a ValueError that names the line or the place.
"""

import csv
import math
import random
from collections.abc import Iterator, Sequence
from typing import Annotated

import msgspec
import numpy as np

from picker.simulator.trace import inflate, parse_trace
from picker.simulator.workload import NAMESPACE, Arrival, Job, Runs, Workload, linked, single_ids, stretch, unshared

SESSION_GAP_MS = 10_000.0
"""Mean time between the starts of sessions, which their trace does not tell, at a time scale of 1."""
MAX_TOKENS = 1 << 24
MAX_ID = 1 << 53

Tokens = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


def parse_workload(
    data: bytes,
    name: str,
    *,
    seed: int = 0,
    limit: int | None = None,
    skip: int = 0,
    turns: int | None = None,
    share_system: bool = False,
) -> Workload:
    """The workload in a file's bytes, its first `limit` requests only. `seed` draws what the file leaves open: times
    inside Mooncake's rounding, order and starts of sessions. Raises ValueError.

    `skip` leaves out the first so many requests, and of a file of sessions those that begin among them. Of each session
    only the first `turns` requests are kept. `share_system` takes sessions with equally long tools to have the same
    ones, and with an equally long system prompt after them to have that in common, too.
    """
    if skip < 0 or any(least is not None and least < 1 for least in (limit, turns)):
        raise ValueError("a limit and turns must be at least 1, a skip at least 0")
    text = inflate(data)
    head = text[:4096].lstrip()
    closed_loop = False
    arrivals: Sequence[Arrival]
    if head.startswith(b"["):
        arrivals = _decisions(text)
    elif head.startswith(b"{"):
        closed_loop = b'"requests"' in text.split(b"\n", 1)[0]
        sessions = _sessions(text, skip, share_system) if closed_loop else []
        arrivals = _in_turn(sessions, seed, limit, turns) if closed_loop else _mooncake(text, seed)
    elif b"input_length" in head.split(b"\n", 1)[0]:
        arrivals = _lengths(text)
    else:
        raise ValueError("neither jsonl of requests or sessions, nor a CSV of lengths, nor a decision log")
    if not closed_loop:
        arrivals = stretch(arrivals, skip, limit)
    if not arrivals:
        raise ValueError(f"no request in it{f' after the first {skip}' if skip else ''}")
    return Workload(name, arrivals, closed_loop)


def _mooncake(text: bytes, seed: int) -> list[Arrival]:
    requests = parse_trace(text, seed=seed)
    if any(id_ >= MAX_ID for request in requests for id_ in request.hash_ids):
        raise ValueError(f"a hash id is not below {MAX_ID}")
    return [(r.at_ms, Job(r.index, r.input_tokens, r.output_tokens, single_ids(r.hash_ids))) for r in requests]


def _lengths(text: bytes) -> list[Arrival]:
    reader = csv.DictReader(text.decode("utf-8", "replace").splitlines())
    arrivals: list[Arrival] = []
    for row in reader:
        try:
            at, prompt, output = float(row["t"]), int(row["input_length"]), int(row["output_length"])
        except KeyError as missing:
            raise ValueError(f"no column {missing}") from None
        except (TypeError, ValueError) as error:
            raise ValueError(f"line {reader.line_num}: {error}") from None
        if not (math.isfinite(at) and 0 < prompt <= MAX_TOKENS and 0 <= output <= MAX_TOKENS):
            raise ValueError(f"line {reader.line_num}: a time or length out of range")
        arrivals.append((at * 1e3, _alone(len(arrivals), prompt, output)))
    return sorted(arrivals, key=lambda arrival: arrival[0])


class _Outcome(msgspec.Struct):
    completion_tokens: Tokens | None = None


class _Decision(msgspec.Struct):
    at: float
    prompt_tokens: float
    outcome: _Outcome | None = None


def _decisions(text: bytes) -> list[Arrival]:
    """Requests whose answer told its length; the others cannot be replayed."""
    try:
        decisions = msgspec.json.decode(text, type=list[_Decision])
    except msgspec.DecodeError as error:
        raise ValueError(f"decision log: {error}") from None
    arrivals: list[Arrival] = []
    for decision in sorted(decisions, key=lambda d: d.at):
        if decision.outcome is None or not decision.outcome.completion_tokens:
            continue
        prompt = max(1, round(min(decision.prompt_tokens, MAX_TOKENS)))
        arrivals.append((decision.at * 1e3, _alone(len(arrivals), prompt, decision.outcome.completion_tokens)))
    return arrivals


def _alone(index: int, prompt: int, output: int) -> Job:
    return Job(index, prompt, max(1, output), unshared(index + 1, prompt))


Run = tuple[Annotated[int, msgspec.Meta(ge=0, lt=NAMESPACE // 2)], Annotated[int, msgspec.Meta(ge=0, lt=1 << 24)]]


class _Turn(msgspec.Struct):
    """A request of a session, or a sub-agent's own requests in its place. Times in seconds."""

    t: Seconds = 0.0
    tokens_in: Tokens = msgspec.field(name="in", default=0)
    out: Tokens = 0
    think: Seconds | None = None
    h: list[Run] = []
    sub: bool = False
    requests: "list[_Turn]" = []


class _Session(msgspec.Struct):
    requests: list[_Turn]
    block_size: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 64
    tool_tokens: Tokens = 0
    system_tokens: Tokens = 0
    """Prompts begin with the tools, then comes the system prompt."""


Owned = tuple[tuple[int, int], ...]
"""(block, owner): whose the blocks up to this one are, in order. Those after the last are the session's own."""


def _sessions(text: bytes, skip: int, share_system: bool) -> list[tuple[int, _Session, Owned]]:
    """(line, session, whose its first blocks are) of those that begin after the first `skip` requests."""
    owners: dict[tuple[int, ...], int] = {}
    kept, before = [], 0
    for number, session in _read_sessions(text):
        owned = _first_blocks(number, session, owners) if share_system else ()
        if before >= skip:
            kept.append((number, session, owned))
        before += sum(1 for _ in _in_order(session.requests))
    return kept


def _first_blocks(number: int, session: _Session, owners: dict[tuple[int, ...], int]) -> Owned:
    """They are those of the first session in the file with tools, and then a system prompt, of the same lengths."""
    tools, whole = session.tool_tokens, session.tool_tokens + session.system_tokens
    of_tools = owners.setdefault((session.block_size, tools), number)
    of_whole = owners.setdefault((session.block_size, tools, whole), number)
    return (tools // session.block_size, of_tools), (whole // session.block_size, of_whole)


def _in_turn(
    sessions: list[tuple[int, _Session, Owned]], seed: int, limit: int | None, most_turns: int | None
) -> list[Arrival]:
    draw = random.Random(seed)
    draw.shuffle(sessions)
    arrivals: list[Arrival] = []
    index, at = 0, 0.0
    for number, session, owned in sessions:
        jobs = []
        turns = list(_in_order(session.requests))[:most_turns]
        for gap_s, turn in turns[: None if limit is None else limit - index]:
            runs = _runs(turn, number, session.block_size, owned)
            job = Job(index, max(1, turn.tokens_in), max(1, turn.out), runs, session.block_size)
            jobs.append((gap_s * 1e3, job))
            index += 1
        if jobs:
            arrivals.append((at, linked(jobs)))
            at += draw.expovariate(1 / SESSION_GAP_MS)
        if index == limit:
            break
    return arrivals


def _read_sessions(text: bytes) -> Iterator[tuple[int, _Session]]:
    """Every session and its line."""
    decoder = msgspec.json.Decoder(_Session)
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            session = decoder.decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ValueError(f"line {number}: {error}") from None
        yield number, session


def _runs(turn: _Turn, session: int, block_size: int, owned: Owned) -> Runs:
    if sum(count for _, count in turn.h) < turn.tokens_in // block_size:
        raise ValueError(f"line {session}: too few blocks for {turn.tokens_in} tokens")
    runs = [(session * NAMESPACE + first, count) for first, count in turn.h]
    if turn.h and turn.h[0][0] == 1:
        # Blocks are numbered from 1: this prompt begins as its session does.
        runs[:1] = _by_owner(turn.h[0][1], (*owned, (turn.h[0][1], session)))
    return np.array(runs, np.uint64).reshape(-1, 2)


def _by_owner(count: int, owned: Owned) -> Iterator[tuple[int, int]]:
    """The blocks 1 to `count` as runs."""
    done = 0
    for until, owner in owned:
        end = min(until, count)
        if end > done:
            yield owner * NAMESPACE + done + 1, end - done
            done = end


def _in_order(turns: Sequence[_Turn]) -> Iterator[tuple[float, _Turn]]:
    """(seconds after the previous answer, request), with sub-agents played in their place, one after another.

    The think time of a request spans whatever sub-agents ran before it; what these took in the recording is taken off.
    """
    answered = 0.0  # when the previous answer ended in the recording
    for i, turn in enumerate(turns):
        if not turn.sub:
            yield max(0.0, turn.t - answered) if i and turns[i - 1].sub else turn.think or 0.0, turn
            following = turns[i + 1] if i + 1 < len(turns) else None
            nearest = next((later for later in turns[i + 1 :] if not later.sub), None)
            answered = turn.t
            if following is not None and nearest is not None and nearest.think is not None:
                answered = max(turn.t, nearest.t - nearest.think)
            continue
        for j, (gap, inner) in enumerate(_in_order(turn.requests)):
            yield (max(0.0, turn.t - answered) if j == 0 else gap), inner
        if turn.requests:
            answered = max(answered, turn.t + turn.requests[-1].t)
