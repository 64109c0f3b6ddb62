"""The pack against an honest EPP and wrong ones: a wrong one fails the rules that it breaks, and those alone."""

import itertools
import json
from collections.abc import Callable, Iterable, Sequence

import pytest
from small_epp import NAMES, POOL, Replies, SmallEpp, served

from picker.conformance import epp as epp_module
from picker.conformance.case import Case, Result, Verdict
from picker.conformance.epp import Epp, discover
from picker.conformance.runner import WIRE, run
from picker.exchange.events import RequestArrived
from picker.proto.ext_proc_pb2 import ProcessingRequest, ProcessingResponse

LONG = ("cut-at-every-byte", "long-body-is")
QUICK = [case for case in WIRE if not any(part in case.name for part in LONG)]


async def failed(small: SmallEpp, cases: Sequence[Case[Epp]] = QUICK) -> dict[str, Result]:
    async with served(small, patience_s=1.0) as epp:
        results = await run(cases, epp)
    return {result.name: result for result in results if result.verdict is Verdict.FAILED}


async def test_an_honest_epp_passes_every_case_that_is_asked() -> None:
    async with served(SmallEpp(), patience_s=10.0) as epp:
        results = await run(WIRE, epp)
    assert {result.pack for result in results if result.verdict is Verdict.NOT_ASKED} == {"tls"}
    assert [f"{result.name}: {result.seen}" for result in results if result.verdict is Verdict.FAILED] == []


async def test_what_an_epp_does_not_have_is_not_asked_of_it() -> None:
    async with served(SmallEpp()) as epp:
        bare = type(epp)(epp.channel, POOL[:1])
        results = await run([case for case in QUICK if case.pack in ("subset", "served", "health", "failures")], bare)
    reasons = {result.seen for result in results if result.verdict is Verdict.NOT_ASKED}
    assert reasons == {
        "the pool must have two endpoints",
        "the pool must have two ports of one ip",
        "the EPP's plugins for conformance tests are not on",
        "no health port was given",
        "no EPP with an empty pool was given",
    }


async def test_endpoints_are_discovered_from_what_an_epp_names() -> None:
    async with served(SmallEpp()) as epp:
        assert await discover(epp, requests=2) == POOL


def test_every_case_has_a_name_of_its_own_a_rule_and_a_source() -> None:
    assert len({case.name for case in WIRE}) == len(WIRE)
    assert all(case.rule.endswith(".") and case.source for case in WIRE)


def detached(said: ProcessingRequest, replies: Replies) -> Replies:
    if said.WhichOneof("request") == "response_headers":
        raise StopIteration
    return replies


async def test_an_epp_that_leaves_answers_to_the_gateway_is_not_asked_about_them() -> None:
    async with served(SmallEpp(twist=detached), patience_s=1.0) as epp:
        results = await run([case for case in QUICK if case.pack in ("answers", "served")], epp)
    assert [f"{result.name}: {result.seen}" for result in results if result.verdict is Verdict.FAILED] == []
    assert {result.verdict for result in results if result.pack == "answers"} == {Verdict.NOT_ASKED}


async def test_an_epp_that_never_stops_replying_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epp_module, "MOST_REPLIES", 50)
    flood = SmallEpp(twist=lambda said, replies: itertools.repeat(ProcessingResponse(), 1000))
    found = await failed(flood, [case for case in QUICK if case.name == "header-equals-metadata"])
    assert found["header-equals-metadata"].seen == "more than 50 replies"


# Wrong EPPs


def part(name: str) -> Callable[[ProcessingResponse], bool]:
    return lambda reply: reply.WhichOneof("response") == name


def each(change: Callable[[ProcessingRequest, ProcessingResponse], None]) -> Callable[..., Replies]:
    """A twist that changes replies one by one."""

    def twist(said: ProcessingRequest, replies: Replies) -> Replies:
        for reply in replies:
            change(said, reply)
        return replies

    return twist


@each
def another_metadata(_: ProcessingRequest, reply: ProcessingResponse) -> None:
    if reply.dynamic_metadata.fields:
        inner = reply.dynamic_metadata.fields["envoy.lb"].struct_value
        inner.fields["x-gateway-destination-endpoint"].string_value = POOL[2]


@each
def no_metadata(_: ProcessingRequest, reply: ProcessingResponse) -> None:
    reply.ClearField("dynamic_metadata")


@each
def wrong_length(_: ProcessingRequest, reply: ProcessingResponse) -> None:
    if part("request_headers")(reply):
        option = reply.request_headers.response.header_mutation.set_headers.add()
        option.header.key, option.header.raw_value = "content-length", b"1"


@each
def every_chunk_is_the_end(_: ProcessingRequest, reply: ProcessingResponse) -> None:
    if part("response_body")(reply) and reply.response_body.response.body_mutation.HasField("streamed_response"):
        reply.response_body.response.body_mutation.streamed_response.end_of_stream = True


@each
def lost_byte(_: ProcessingRequest, reply: ProcessingResponse) -> None:
    if part("response_body")(reply) and reply.response_body.response.body_mutation.HasField("streamed_response"):
        chunk = reply.response_body.response.body_mutation.streamed_response
        chunk.body = chunk.body[:-1]


@each
def served_is_the_pick(_: ProcessingRequest, reply: ProcessingResponse) -> None:
    for option in reply.response_headers.response.header_mutation.set_headers:
        option.header.raw_value = POOL[0].encode()


def body_first(_: ProcessingRequest, replies: Replies) -> Replies:
    bodied = len(replies) > 1 and part("request_headers")(replies[0])
    return [replies[1], replies[0], *replies[2:]] if bodied else replies


def one_chunk(_: ProcessingRequest, replies: Replies) -> Replies:
    bodies = [reply for reply in replies if part("request_body")(reply)]
    chunks = [reply.request_body.response.body_mutation.streamed_response for reply in bodies]
    if len(bodies) > 1:
        chunks[-1].body = b"".join(chunk.body for chunk in chunks)
        return [reply for reply in replies if reply not in bodies[:-1]]
    return replies


def silent_about(name: str) -> Callable[..., Iterable[ProcessingResponse]]:
    return lambda said, replies: [reply for reply in replies if not part(name)(reply)]


def held_events(said: ProcessingRequest, replies: Replies) -> Replies:
    held = said.WhichOneof("request") == "response_body" and b'"number": 1' in said.response_body.body
    return [] if held else replies


def by_ip(arrived: RequestArrived) -> tuple[str, ...] | None:
    return None if arrived.subset is None else tuple(name.partition(":")[0] for name in arrived.subset)


def only_json(arrived: RequestArrived) -> tuple[str, ...] | None:
    try:
        json.loads(arrived.body or "{}")
    except (ValueError, RecursionError):
        return ()
    return arrived.subset


REFUSED = {
    "empty-list-is-answered-with-503",
    "empty-string-is-answered-with-503",
    "subset-out-of-the-pool-is-answered-with-503",
    "bodyless-request-out-of-the-pool-is-answered-with-503",
    "refusal-has-a-status-for-the-client",
}
EMPTY = {"empty-pool-is-answered-with-503", "bodyless-request-to-an-empty-pool-is-answered-with-503"}
ONE_BY_ONE = {
    "subset-is-a-list",
    "subset-is-a-string",
    "subset-tells-ports-apart",
    "steering-header-names-the-endpoint",
}
RESTRICTED = {
    *ONE_BY_ONE,
    "subset-is-a-string-of-several",
    "unknown-names-are-passed-over",
    "steering-header-names-pods",
}
METADATA = {"header-equals-metadata", "header-equals-metadata-buffered"}
ANSWERS = {
    "plain-answer-comes-back",
    "events-come-back-at-once",
    "long-answer-comes-back",
    "trailers-of-an-answer-are-replied-to",
    "answer-of-an-engines-error-comes-back",
}
SERVED = {"served-header-tells-the-report", "served-header-fails-without-a-report"}
WRONG = {
    "metadata that says something else": (SmallEpp(twist=another_metadata), METADATA),
    "no metadata": (SmallEpp(twist=no_metadata), METADATA),
    "a gRPC error for 503": (SmallEpp(errors=True), REFUSED | EMPTY),
    "the body before the headers": (SmallEpp(twist=body_first), {"header-reply-comes-first"}),
    "chunks of any size": (
        SmallEpp(twist=one_chunk),
        {"chunks-are-small-enough", "small-messages-make-a-long-body", "strange-deep-json"},
    ),
    "no subset": (SmallEpp(restrict=lambda arrived: None), RESTRICTED | REFUSED),
    "subsets by ip": (SmallEpp(restrict=by_ip), ONE_BY_ONE),
    "a wrong content-length": (SmallEpp(twist=wrong_length), {"content-length-is-the-bodys"}),
    "an end on every chunk of an answer": (SmallEpp(twist=every_chunk_is_the_end), ANSWERS),
    "a lost byte in each chunk of an answer": (SmallEpp(twist=lost_byte), ANSWERS),
    "events that are held": (SmallEpp(twist=held_events), {"events-come-back-at-once"}),
    "no reply to request trailers": (SmallEpp(twist=silent_about("request_trailers")), {"trailers-end-a-body"}),
    "the pick in place of who served": (SmallEpp(twist=served_is_the_pick), SERVED),
    "5xx for what is not JSON": (
        SmallEpp(restrict=only_json),
        {"strange-no-json", "strange-no-utf-8", "strange-deep-json", "strange-unknown-path"},
    ),
    "no health of the suite's name": (SmallEpp(names=NAMES[:-1]), {"health-inference-extension"}),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_wrong_epp_fails_the_rules_that_it_breaks_and_no_other(wrong: str) -> None:
    small, broken = WRONG[wrong]
    assert set(await failed(small)) == broken


async def test_a_failure_says_what_was_seen() -> None:
    (result,) = [each for each in (await failed(SmallEpp(errors=True))).values() if each.name.startswith("empty-list")]
    assert result.seen == "the stream ended with the gRPC error INTERNAL: no endpoints"
