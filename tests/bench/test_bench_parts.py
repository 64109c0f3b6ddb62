"""The pure parts of the bench: statistics, prompts, framing, the table and the page made of a record."""

import doctest
import importlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import page
from bench.figures import Figure, machine, quantile, slope
from bench.http1 import MessageReader
from bench.prompts import chat_requests
from bench.record import comparison, lines, load_record
from bench.rounds import Measured


def record() -> dict[str, Any]:
    figures = {f"{path}_{size}": Figure((600.0, 700.0, 900.0)) for path in ("none", "duplex") for size in ("2k", "32k")}
    figures |= {f"peer_{kind}": Figure((100.0,)) for kind in ("2k", "32k", "chunk")}
    figures |= {"duplex_chunk": Figure((60.0,))}
    loads = Measured(own=figures, envoy=figures, messages=figures, loads=[0.5, 1.5], yardsticks=[9.0, 9.5])
    return {
        "machine": machine(),
        **load_record(loads, {"peer": "1.0"}),
        "pick_us": {"64": Figure((120.0,), {"p99": 300.0}).as_json()},
    }


def bodies(requests: list[bytes]) -> list[bytes]:
    return [request.partition(b"\r\n\r\n")[2] for request in requests]


def system(body: bytes) -> str:
    return str(json.loads(body)["messages"][0]["content"])


@pytest.mark.parametrize("module", ["figures", "record"])
def test_examples_print_what_they_say(module: str) -> None:
    assert doctest.testmod(importlib.import_module(f"bench.{module}")).failed == 0


@given(st.lists(st.floats(0, 1e9), min_size=1))
def test_a_figure_lies_between_its_least_and_greatest_run(runs: list[float]) -> None:
    shown = Figure(tuple(runs)).as_json()
    assert shown["min"] <= shown["median"] <= shown["max"]
    assert len(shown["runs"]) == len(runs)


def test_the_p99_is_a_value_that_one_in_a_hundred_exceeds() -> None:
    assert quantile(range(100), 0.99) == 99
    assert quantile(range(1000), 0.99) == 990
    assert quantile([7.0], 0.99) == 7.0
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


@given(st.floats(1, 1e6), st.floats(0, 1e3), st.floats(1, 1e3))
def test_the_slope_does_not_see_what_both_points_share(fixed: float, per_chunk: float, extra: float) -> None:
    few, many = (8.0, fixed + 8 * per_chunk), (8 + extra, fixed + (8 + extra) * per_chunk)
    assert slope(few, many) == pytest.approx(per_chunk, abs=1e-6 * fixed)


def test_a_slope_needs_two_different_points() -> None:
    with pytest.raises(ValueError, match="must grow"):
        slope((8, 1.0), (8, 2.0))


@pytest.mark.parametrize("size", [2048, 32768])
def test_prompts_share_three_quarters_within_a_group_and_nothing_is_sent_twice(size: int) -> None:
    sent = bodies(chat_requests(300, size, seed=1))
    assert all(abs(len(body) - size) <= 16 for body in sent)
    assert len(set(sent)) == len(sent)
    systems = {system(body) for body in sent}
    assert 48 <= len(systems) <= 64
    assert all(0.6 * size < len(each) < 0.8 * size for each in systems)


def test_two_rounds_share_their_groups_but_no_body() -> None:
    one, two = (bodies(chat_requests(200, 2048, seed=seed)) for seed in (1, 2))
    assert not set(one) & set(two)
    assert len({system(body) for body in one + two}) <= 64


@given(st.binary(max_size=400), st.lists(st.integers(1, 90), max_size=8), st.integers(1, 50), st.booleans())
def test_a_message_is_read_whole_however_it_is_cut(body: bytes, cuts: list[int], step: int, chunked: bool) -> None:
    if chunked:
        parts, rest = [], body
        for cut in cuts:
            part, rest = rest[:cut], rest[cut:]
            parts += [part] if part else []
        parts += [rest] if rest else []
        framed = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + framed
    else:
        wire = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    reader, found = MessageReader(), []
    for start in range(0, len(wire), step):
        message = reader.feed(wire[start : start + step])
        found += [message] if message else []
    assert [message.body for message in found] == [body]
    assert found[0].start_line == b"HTTP/1.1 200 OK"


def test_the_table_says_which_targets_are_met() -> None:
    said = {line.title: line for line in lines(record())}
    assert said["request, 2 KB, echo"].met is True
    assert said["request, 2 KB, echo"].spread == "600 – 900"
    assert said["pick, 64 endpoints, text mode"].met is False
    assert said["pick, 64 endpoints, text mode"].p99 == "300"
    assert "KV blocks indexed" not in said


def test_peers_stand_beside_picker_and_its_envoy() -> None:
    header, *rows = comparison(record())
    assert header[-1] == "peer 1.0"
    assert [row[0] for row in rows] == ["request, 2 KB", "request, 32 KB", "streamed chunk"]
    assert rows[0][1:] == ("700", "700", "700", "700", "100")
    assert all(len(row) == len(header) for row in rows)


def test_a_transport_that_was_measured_stands_beside_the_other() -> None:
    found = record()
    found["lean"] = {"cpu_us_per_request": {"learned_64_2k": Figure((110.0,)).as_json()}}
    assert {line.title: line.met for line in lines(found)}["request, 2 KB, access log, learned, 64 endpoints, lean"]
    header, *rows = comparison(found)
    assert header[5] == "picker, lean, access log"
    assert all(len(row) == len(header) for row in rows)


def test_the_page_is_what_the_record_says() -> None:
    written = page.PAGE.read_text()
    assert written == page.updated(written, msgspec.json.decode(page.RESULTS.read_bytes())), "run: python -m bench.page"


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="no <!-- results"):
        page.updated("# Bench\n", record())
