"""Traces: reading them, spreading their times, and turning hash ids into text."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.simulator import toy
from picker.simulator.trace import (
    TraceRequest,
    block_hashes,
    cut,
    laps,
    load_shipped,
    parse_trace,
    prompt_text,
    scaled,
)


def line(at: float = 0, tokens: int = 600, output: int = 5, ids: tuple[int, ...] = (0, 1)) -> bytes:
    row = {"timestamp": at, "input_length": tokens, "output_length": output, "hash_ids": ids}
    return json.dumps(row).encode() + b"\n"


def trace_request(ids: list[int], tokens: int | None = None) -> TraceRequest:
    return TraceRequest(0, 0.0, len(ids) * 512 if tokens is None else tokens, 1, tuple(ids))


def test_the_shipped_slice_has_600_requests_over_three_minutes_in_order() -> None:
    requests = load_shipped()
    assert len(requests) == 600
    assert requests == sorted(requests, key=lambda request: request.at_ms)
    assert 190_000 < requests[-1].at_ms < 206_000
    assert {request.hash_ids[0] for request in requests} >= {0}


def test_a_trace_goes_on_with_prompts_that_share_nothing_with_those_before() -> None:
    trace = load_shipped()
    assert [(r.at_ms, r.hash_ids) for r in laps(trace, 600)] == [(r.at_ms, r.hash_ids) for r in trace]
    longer = laps(trace, 1000)
    assert [r.index for r in longer] == list(range(1000))
    assert longer == sorted(longer, key=lambda r: r.at_ms)
    assert [r.input_tokens for r in longer[600:]] == [r.input_tokens for r in trace[:400]]
    first, again = ({id for r in lap for id in r.hash_ids} for lap in (longer[:600], longer[600:]))
    assert not first & again


def test_gzip_is_known_by_content() -> None:
    assert parse_trace(gzip.compress(line())) == parse_trace(line())


def test_times_are_spread_inside_their_three_seconds_and_seeded() -> None:
    data = line(at=6000) * 200
    times = [request.at_ms for request in parse_trace(data, seed=3)]
    assert all(6000 <= at < 9000 for at in times)
    assert max(times) - min(times) > 2500
    assert times == [request.at_ms for request in parse_trace(data, seed=3)]
    assert times != [request.at_ms for request in parse_trace(data, seed=4)]


def test_a_cut_counts_time_from_its_start() -> None:
    requests = parse_trace(b"".join(line(at=at) for at in (0, 10, 20, 30)), rounded_ms=0)
    assert [(r.index, r.at_ms) for r in cut(requests, from_ms=10, count=2)] == [(1, 0), (2, 10)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (line() + b"{}\n", "line 2"),
        (b'{"timestamp":1', "line 1"),
        (b"\xff\xfe\n", "line 1"),
        (line(tokens=0, ids=()), "line 1"),
        (line(at=-1), "line 1"),
        (line(ids=(1,)), "1 hash ids for 600 tokens"),
        (gzip.compress(line() * 50)[:-10], "cut short"),
        (b"\x1f\x8b" + b"junk" * 9, "broken gzip"),
    ],
)
def test_a_broken_trace_is_refused_with_the_place(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_trace(data)


@given(st.binary(max_size=200))
def test_no_bytes_surprise_the_reader(data: bytes) -> None:
    try:
        parse_trace(data)
    except ValueError:
        return


IDS = st.lists(st.integers(0, 200_000), min_size=1, max_size=6)


@given(IDS, IDS, st.sampled_from([1.0, 0.25, 1 / 32]))
def test_texts_agree_exactly_as_far_as_the_hash_ids_do(left: list[int], right: list[int], scale: float) -> None:
    texts = [prompt_text(trace_request(ids), scale=scale) for ids in (left, right)]
    width = scaled(512, scale) * 4
    for i in range(min(len(left), len(right))):
        same = texts[0][: (i + 1) * width] == texts[1][: (i + 1) * width]
        assert same == (left[: i + 1] == right[: i + 1])


@given(IDS, st.integers(1, 512), st.sampled_from([1.0, 0.1, 1 / 32]), st.integers(1, 8))
def test_a_prompt_has_the_scaled_length(ids: list[int], tail: int, scale: float, chars: int) -> None:
    request = trace_request(ids, (len(ids) - 1) * 512 + tail)
    text = prompt_text(request, chars_per_token=chars, scale=scale)
    # A block's own length is rounded too, so that many blocks may fall short by less than one token each.
    wanted = scaled(request.input_tokens, scale)
    assert wanted - len(ids) <= len(text) / chars <= wanted


def test_at_full_scale_a_prompt_is_input_length_toy_tokens() -> None:
    request = load_shipped()[0]
    assert len(toy.encode(prompt_text(request))) == request.input_tokens


def test_engine_blocks_follow_the_hash_ids() -> None:
    a, b = trace_request([7, 8], tokens=700), trace_request([7, 9], tokens=1024)
    assert len(block_hashes(a, 16)) == 43
    assert block_hashes(a, 16)[:32] == block_hashes(b, 16)[:32]
    assert not set(block_hashes(a, 16)[32:]) & set(block_hashes(b, 16)[32:])
    with pytest.raises(ValueError, match="does not divide"):
        block_hashes(a, 48)
