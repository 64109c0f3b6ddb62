"""Who really served: the gateway's report, and the two headers by which conformance suites steer and see."""

from picker.conformance import heard, messages
from picker.conformance.case import Broken, NotAsked, Pack
from picker.conformance.epp import Epp, many
from picker.exchange import keys

PACK: Pack[Epp] = Pack("served")
PROTOCOL = "GIE proposal 004, served endpoint"
SUITE = "GIE conformance suite"


@PACK.case(PROTOCOL)
async def report_of_another_endpoint_is_taken(epp: Epp) -> None:
    """A gateway that fell back says so with the answer; the answer goes on as ever."""
    for served in (*epp.several()[:2], "192.0.2.1:1", "nonsense"):
        await _answers(epp, served)


@PACK.case(PROTOCOL)
async def missing_report_is_taken(epp: Epp) -> None:
    """A gateway that does not report who served gets the same replies."""
    await _answers(epp, None)


@PACK.case(SUITE)
async def served_header_tells_the_report(epp: Epp) -> None:
    """With the verifier on, x-conformance-test-served-endpoint is what the gateway reports, not what was picked."""
    _testing(epp)
    for served in (*epp.endpoints[:3], "192.0.2.1:1"):
        if (told := await _answers(epp, served)) != [served]:
            raise Broken(f"the header says {told} where {served} served")


@PACK.case(SUITE)
async def served_header_fails_without_a_report(epp: Epp) -> None:
    """With the verifier on and no report, the header names no endpoint: a silent gateway must not pass."""
    _testing(epp)
    told = await _answers(epp, None)
    if any(heard.is_endpoint(value) for value in told):
        raise Broken(f"the header says {told}")


@PACK.case(SUITE)
async def steering_header_names_the_endpoint(epp: Epp) -> None:
    """With the filter on, test-epp-endpoint-selection with an ip:port sends the request there."""
    _testing(epp)
    await many(lambda one: _steered(epp, one, {one}), epp.endpoints)


@PACK.case(SUITE)
async def steering_header_names_pods(epp: Epp) -> None:
    """With the filter on, a bare ip stands for all ports of that pod, and a list for all that it names."""
    _testing(epp)
    ips = sorted({each.rpartition(":")[0] for each in epp.endpoints})
    for count in range(1, min(3, len(ips)) + 1):
        wanted = ips[:count]
        await _steered(epp, ",".join(wanted), {each for each in epp.endpoints if each.rpartition(":")[0] in wanted})


def _testing(epp: Epp) -> None:
    if not epp.testing:
        raise NotAsked("the EPP's plugins for conformance tests are not on")


async def _steered(epp: Epp, value: str, allowed: set[str]) -> None:
    for _ in range(4):
        listed = heard.destinations(await epp.ask(more={keys.TEST_SELECTION: value}))
        if not set(listed) <= allowed:
            raise Broken(f"{value} was sent to {', '.join(listed)}")


async def _answers(epp: Epp, served: str | None) -> list[str]:
    """An answer goes through; the values of the served header on it."""
    async with epp.answering() as stream:
        await stream.say(messages.response_headers(served=served))
        reply = await stream.hear()
        if heard.kind(reply) != "response_headers":
            raise Broken(f"{heard.kind(reply)} instead of a reply to the answer's headers")
        told = heard.header(heard.mutations([reply], "response_headers"), keys.TEST_SERVED)
        await stream.say(messages.response_body(b"{}", end=True))
        await stream.hear()
        return told
