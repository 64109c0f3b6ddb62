"""Every workload is recognised by its content, and what is wrong with one is said."""

import contextlib
import gzip
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.simulator.events import Crash, Join, parse_events
from picker.simulator.pool_spec import EngineTypes, parse_pool
from picker.simulator.steptime import load_table
from picker.simulator.workload import Job, Workload, chain, single_ids, unshared
from picker.simulator.workload_files import parse_workload

MOONCAKE = b"""\
{"timestamp":0,"input_length":1100,"output_length":5,"hash_ids":[0,7,9]}
{"timestamp":3000,"input_length":1000,"output_length":6,"hash_ids":[0,8]}
"""
TURNS = [
    {"t": 0.0, "in": 130, "out": 3, "think": 0.0, "h": [[1, 2]]},
    {"t": 9.0, "in": 256, "out": 0, "think": 7.0, "h": [[1, 2], [5, 2]]},
]
LENGTHS = b"t,input_length,output_length\n0.5,30,4\n2.5,40,5\n"


def sessions(*requests: list[dict[str, object]]) -> bytes:
    return b"\n".join(json.dumps({"id": "x", "block_size": 64, "requests": turns}).encode() for turns in requests)


def followed(job: Job | None) -> list[Job]:
    jobs = []
    while job is not None:
        jobs.append(job)
        job = job.then
    return jobs


def test_mooncake_blocks_of_512_become_engine_blocks() -> None:
    workload = parse_workload(MOONCAKE, "m")
    (_, first), (_, second) = workload.arrivals
    blocks, others = chain(first, 16), chain(second, 16)
    assert (len(blocks), len(others)) == (1100 // 16, 1000 // 16)
    assert (blocks[:32] == others[:32]).all()
    assert not set(blocks[32:].tolist()) & set(others[32:].tolist())


@pytest.mark.parametrize("data", [MOONCAKE, LENGTHS, sessions(TURNS)], ids=["mooncake", "lengths", "sessions"])
def test_gzip_makes_no_difference(data: bytes) -> None:
    plain, packed = parse_workload(data, "a"), parse_workload(gzip.compress(data), "a")
    assert [at for at, _ in plain.arrivals] == [at for at, _ in packed.arrivals]


def test_csv_has_lengths_and_shares_nothing() -> None:
    workload = parse_workload(LENGTHS, "l")
    assert [(at, j.prompt_tokens, j.output_tokens) for at, j in workload.arrivals] == [(0.0, 30, 4), (2000.0, 40, 5)]
    (_, first), (_, second) = workload.arrivals
    assert not set(chain(first, 16).tolist()) & set(chain(second, 16).tolist())


def test_our_own_decision_log_is_replayed_where_the_answer_told_its_length() -> None:
    log = [
        {"at": 12.0, "prompt_tokens": 99.6, "outcome": {"completion_tokens": 7}, "policy": "x"},
        {"at": 11.0, "prompt_tokens": 50, "outcome": {"completion_tokens": 3}},
        {"at": 13.0, "prompt_tokens": 50, "outcome": None},
    ]
    workload = parse_workload(json.dumps(log).encode(), "log")
    assert [(at, j.prompt_tokens, j.output_tokens) for at, j in workload.arrivals] == [(0.0, 50, 3), (1000.0, 100, 7)]


def test_a_session_is_a_closed_loop_by_think_time() -> None:
    workload = parse_workload(sessions(TURNS), "s")
    assert workload.closed_loop
    assert workload.jobs == 2
    ((at, first),) = workload.arrivals
    assert at == 0.0
    assert first.think_ms == 7000.0
    assert first.then is not None
    assert first.then.output_tokens == 1
    assert (chain(first, 16) == chain(first.then, 16)[:8]).all()


def test_sessions_share_no_blocks() -> None:
    (_, one), (_, other) = parse_workload(sessions(TURNS, TURNS), "s").arrivals
    assert not set(chain(one, 16).tolist()) & set(chain(other, 16).tolist())


def agent(tools: int, system: int, *runs: list[int]) -> bytes:
    """A session of one request, in blocks of 64 tokens."""
    turn = {"in": 64 * sum(count for _, count in runs), "out": 1, "h": runs}
    return json.dumps({"tool_tokens": tools, "system_tokens": system, "requests": [turn]}).encode()


def blocks_in_common(one: bytes, other: bytes, *, share_system: bool = True) -> int:
    """Blocks of 64 tokens with which both sessions' prompts begin."""
    arrivals = parse_workload(b"\n".join((one, other)), "a", share_system=share_system).arrivals
    a, b = (chain(job, 64) for _, job in arrivals)
    unlike = np.flatnonzero(a[: len(b)] != b[: len(a)])
    return int(unlike[0]) if len(unlike) else min(len(a), len(b))


@pytest.mark.parametrize(
    ("other", "common"),
    [
        (agent(640, 320, [1, 30]), 15),
        (agent(640, 384, [1, 30]), 10),
        (agent(704, 256, [1, 30]), 0),
        (agent(640, 320, [1, 12], [40, 18]), 12),
        (agent(640, 320, [7, 30]), 0),
        (agent(0, 0, [1, 30]), 0),
    ],
    ids=["alike", "another system prompt", "other tools", "departs early", "begins otherwise", "unknown"],
)
def test_sessions_share_equally_long_tools_and_system_prompts_if_so_assumed(other: bytes, common: int) -> None:
    one = agent(640, 320, [1, 30])
    assert blocks_in_common(one, other) == blocks_in_common(other, one) == common
    assert blocks_in_common(one, other, share_system=False) == 0


def test_what_sessions_share_changes_nothing_within_one() -> None:
    turns = {"tool_tokens": 128, "system_tokens": 64, "requests": TURNS}
    both = b"\n".join([json.dumps(turns).encode()] * 2)
    for _, first in parse_workload(both, "a", share_system=True).arrivals:
        assert first.then is not None
        assert (chain(first, 16) == chain(first.then, 16)[:8]).all()
        assert len(set(chain(first.then, 16).tolist())) == 256 // 16


def test_a_sub_agent_runs_inside_its_parents_think_time() -> None:
    """Recorded: answer at 9, the sub-agent from 11 to 14, the next request at 20, 11 s after the answer."""
    inner = [
        {"t": 0.0, "in": 64, "out": 1, "think": 0.0, "h": [[90, 1]]},
        {"t": 3.0, "in": 64, "think": 2.0, "h": [[91, 1]]},
    ]
    turns = [
        {"t": 0.0, "in": 64, "out": 1, "think": 0.0, "h": [[1, 1]]},
        {"sub": True, "t": 11.0, "requests": inner},
        {"t": 20.0, "in": 64, "out": 1, "think": 11.0, "h": [[1, 1]]},
    ]
    ((_, first),) = parse_workload(sessions(turns), "s").arrivals
    assert [job.think_ms for job in followed(first)] == [2000.0, 2000.0, 6000.0, 0.0]


def test_a_limit_counts_requests_within_sessions_too() -> None:
    assert parse_workload(sessions(TURNS, TURNS, TURNS), "s", limit=3).jobs == 3
    assert parse_workload(LENGTHS, "l", limit=1).jobs == 1


@pytest.mark.parametrize("data", [MOONCAKE, LENGTHS], ids=["mooncake", "lengths"])
def test_after_a_skip_requests_are_numbered_and_timed_from_there(data: bytes) -> None:
    _, (_, second) = parse_workload(data, "w").arrivals
    ((at, job),) = parse_workload(data, "w", skip=1).arrivals
    assert (at, job.index, job.prompt_tokens) == (0.0, 0, second.prompt_tokens)


def test_a_skip_leaves_out_the_files_first_sessions_whatever_the_seed() -> None:
    many = sessions(*([{"t": 0.0, "in": 64 + i, "out": 1, "h": [[1, 2]]}] * 3 for i in range(6)))
    for seed in range(3):
        kept = {job.prompt_tokens for _, job in parse_workload(many, "s", seed=seed, skip=10).arrivals}
        assert kept == {64 + 4, 64 + 5}


def test_turns_keep_the_beginning_of_each_session() -> None:
    workload = parse_workload(sessions(TURNS, TURNS), "s", turns=1)
    assert workload.jobs == 2
    assert [job.prompt_tokens for _, job in workload.arrivals] == [130, 130]


def test_a_skip_past_the_end_leaves_nothing() -> None:
    for data in (MOONCAKE, LENGTHS, sessions(TURNS)):
        with pytest.raises(ValueError, match="after the first 2"):
            parse_workload(data, "w", skip=2)


def test_a_seed_orders_the_sessions() -> None:
    many = sessions(*([{"t": 0.0, "in": 64 + i, "out": 1, "h": [[1, 2]]}] for i in range(9)))
    orders = [[j.prompt_tokens for _, j in parse_workload(many, "s", seed=seed).arrivals] for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


def test_time_scale_spares_think_times() -> None:
    faster = parse_workload(sessions(TURNS, TURNS), "s", seed=3).faster(2.0)
    usual = parse_workload(sessions(TURNS, TURNS), "s", seed=3)
    assert faster.arrivals[1][0] == usual.arrivals[1][0] / 2
    assert faster.arrivals[0][1].think_ms == usual.arrivals[0][1].think_ms


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "neither"),
        (b"hello", "neither"),
        (b"[]", "no request"),
        (b'[{"at": 1}]', "decision log"),
        (b"t,input_length,output_length\n1,x,3\n", "line 2"),
        (b"t,input_length\n1,3\n", "output_length"),
        (b"t,input_length,output_length\nnan,3,3\n", "line 2"),
        (b'{"timestamp":0}\n', "line 1"),
        (b'{"timestamp":0,"input_length":9,"output_length":5,"hash_ids":[99999999999999999]}', "hash id"),
        (sessions([{"t": 0.0, "in": 640, "out": 1, "h": [[1, 2]]}]), "too few blocks"),
        (b'{"requests":[{"in":-5}]}', "line 1"),
        (b'{"requests":[]}', "no request"),
        (b"\x1f\x8bxx", "gzip"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_workload(data, "bad")


@given(st.binary(max_size=200))
def test_no_bytes_do_worse_than_a_value_error(data: bytes) -> None:
    for start in (b"", b"[", b'{"requests":[', b"t,input_length,output_length\n"):
        with contextlib.suppress(ValueError):
            assert isinstance(parse_workload(start + data, "fuzz"), Workload)


@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=20), st.sampled_from([16, 32, 64, 512]))
def test_equal_ids_give_equal_blocks_and_no_others(ids: list[int], size: int) -> None:
    job = Job(0, 512 * len(ids), 1, single_ids(ids))
    blocks = chain(job, size).reshape(len(ids), -1)
    assert (blocks[:, 0] == np.array(ids, np.uint64) * np.uint64(512 // size)).all()
    assert (np.diff(blocks.astype(np.int64), axis=1) == 1).all()


def test_a_block_size_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="does not divide"):
        chain(Job(0, 100, 1, unshared(1, 100)), 24)


def test_a_pool_lists_its_engines_in_order() -> None:
    types = EngineTypes(load_table(), alpha=0.055, host_ms=0.5)
    rows = parse_pool("h100_sxm/llama-3-8b tp1:2, l40s/llama-3-8b tp1", types)
    assert [row.gpu for row in rows] == ["h100_sxm", "h100_sxm", "l40s"]
    assert {(row.alpha, row.host_ms) for row in rows} == {(0.055, 0.5)}


@pytest.mark.parametrize(
    "spec", ["", "nosuch:2", *(f"l40s/llama-3-8b tp1:{count}" for count in ("0", "x", "²", "2000"))]
)
def test_a_pool_that_cannot_be_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match=r"pool|engine type"):
        parse_pool(spec, EngineTypes(load_table()))


def test_events_come_in_order_of_time_and_may_name_joined_engines() -> None:
    text = "[{at_s: 60, kind: crash, engine: 2}, {at_s: 5, kind: join, type: any}]"
    assert parse_events(text, 2, str) == (Join(5.0, "any"), Crash(60.0, 2))


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "3",
        "[{at_s: 1, kind: nosuch, engine: 0}]",
        "[{at_s: -1, kind: crash, engine: 0}]",
        "[{at_s: 1, kind: crash, engine: 2}]",
        "[{at_s: 1, kind: crash, engine: 0}, {at_s: 2, kind: leave, engine: 0}]",
        "[{at_s: 1, kind: slow, engine: 0, factor: 0}]",
        "[{at_s: 1, kind: crash, engine: 0, who: me}]",
        "a: &a [*a]",
    ],
)
def test_events_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="events"):
        parse_events(text, 2, str)
