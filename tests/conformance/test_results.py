"""What people and scripts read of a run, and what becomes of whatever the other side does."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from picker.conformance import heard, report
from picker.conformance.case import Broken, Case, Check, NotAsked, Pack, Result, Verdict
from picker.conformance.messages import sized_chat
from picker.conformance.runner import run
from picker.proto.ext_proc_pb2 import ProcessingResponse


def raising(error: Exception | None) -> Check[str]:
    async def check(subject: str) -> None:
        assert subject == "epp"
        if error is not None:
            raise error

    return check


@pytest.mark.parametrize(
    ("error", "verdict", "seen"),
    [
        (None, Verdict.PASSED, ""),
        (Broken("two headers"), Verdict.FAILED, "two headers"),
        (NotAsked("no health port"), Verdict.NOT_ASKED, "no health port"),
        (ConnectionResetError("by peer"), Verdict.FAILED, "ConnectionResetError: by peer"),
        (TimeoutError(), Verdict.FAILED, "not done within 60 s"),
    ],
)
async def test_whatever_the_other_side_does_becomes_a_verdict(
    error: Exception | None, verdict: Verdict, seen: str
) -> None:
    case = Case("pack", "name", "A rule.", "protocol", raising(error))
    times = iter([1.0, 3.5])
    assert await run([case], "epp", clock=lambda: next(times)) == [
        Result("pack", "name", "A rule.", "protocol", verdict, seen, 2.5)
    ]


def test_a_case_takes_its_name_and_its_rule_from_its_function() -> None:
    pack: Pack[str] = Pack("subset")

    @pack.case("proposal 004")
    async def subset_is_a_list(subject: str) -> None:
        """A list
        restricts."""

    (case,) = pack.cases
    assert (case.pack, case.name, case.rule) == ("subset", "subset-is-a-list", "A list restricts.")


RESULTS = [
    Result("requests", "one", "Rule one.", "004", Verdict.PASSED, "", 0.1),
    Result("requests", "two", "Rule two.", "004", Verdict.FAILED, "a [bold]reply[/]\x1b[31m", 0.1),
    Result("tls", "three", "Rule three.", "GIE", Verdict.NOT_ASKED, "no TLS", 0.1),
]


def test_the_table_shows_every_case_and_what_was_seen_without_obeying_it() -> None:
    screen = io.StringIO()
    Console(file=screen, width=200, force_terminal=False).print(report.table(RESULTS))
    text = screen.getvalue()
    assert all(word in text for word in ("Rule one.", "Rule two.", "a [bold]reply[/]", "no TLS", "not asked"))
    assert "\x1b" not in text


def test_the_json_counts_and_lists_the_cases() -> None:
    found = json.loads(report.as_json(RESULTS))
    assert (found["passed"], found["failed"], found["not_asked"]) == (1, 1, 1)
    assert found["cases"][1]["name"] == "two"
    assert report.summary(RESULTS) == "1 passed, 1 failed, 1 not asked"


@given(st.integers(120, 5000))
def test_a_chat_can_be_made_of_any_size(size: int) -> None:
    assert len(sized_chat("m", size)) == size


def reply(header: bytes, *ends: bool) -> list[ProcessingResponse]:
    """A request's replies: this destination, and chunks with these end marks."""
    first = ProcessingResponse()
    option = first.request_headers.response.header_mutation.set_headers.add()
    option.header.key, option.header.raw_value = "x-gateway-destination-endpoint", header
    chunks = [ProcessingResponse() for _ in ends]
    for chunk, end in zip(chunks, ends, strict=True):
        chunk.request_body.response.body_mutation.streamed_response.end_of_stream = end
    return [first, *chunks]


@given(st.binary(max_size=40))
def test_a_destination_is_a_list_of_ip_and_port_or_it_is_broken(header: bytes) -> None:
    try:
        listed = heard.destinations(reply(header))
    except Broken:
        return
    assert all(each.rpartition(":")[2].isdigit() for each in listed)


@given(st.lists(st.booleans(), max_size=5))
def test_the_end_of_a_body_is_marked_once_and_last(ends: list[bool]) -> None:
    if ends and ends[-1] and not any(ends[:-1]):
        assert heard.streamed_body(reply(b"10.0.0.1:1", *ends), "request_body") == b""
    else:
        with pytest.raises(Broken, match="end_of_stream"):
            heard.streamed_body(reply(b"10.0.0.1:1", *ends), "request_body")


@pytest.mark.parametrize(
    ("sent", "forwarded", "same"),
    [
        (b'{"model": "a", "n": 1}', b'{"n":1,"model":"b"}', True),
        (b'{"model": "a", "n": 1}', b'{"model": "a", "n": 2}', False),
        (b"no json", b"no json", True),
        (b"no json", b"no jsom", False),
        (b"[1]", b"[1, 2]", False),
    ],
)
def test_an_epp_may_change_the_model_and_nothing_else(sent: bytes, forwarded: bytes, same: bool) -> None:
    if same:
        heard.same_request(sent, forwarded)
    else:
        with pytest.raises(Broken, match="another body"):
            heard.same_request(sent, forwarded)
