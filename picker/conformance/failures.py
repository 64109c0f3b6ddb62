"""Failures: each is an answer to the client. A gRPC error would let a gateway that fails open send anywhere at all."""

from collections.abc import Callable

from picker.conformance import heard, messages
from picker.conformance.case import Broken, Check, NotAsked, Pack
from picker.conformance.epp import Epp, settled

PACK: Pack[Epp] = Pack("failures")
PROTOCOL = "GIE proposal 004, failures"
FAIL_OPEN = "InferencePool failureMode"
MIB = 1 << 20


@PACK.case(PROTOCOL)
async def empty_pool_is_answered_with_503(epp: Epp) -> None:
    """Without any ready endpoint, requests are answered with 503."""
    if epp.empty is None:
        raise NotAsked("no EPP with an empty pool was given")
    await epp.refuses(503, channel=epp.empty)


@PACK.case(PROTOCOL)
async def bodyless_request_to_an_empty_pool_is_answered_with_503(epp: Epp) -> None:
    """The same for requests without a body."""
    if epp.empty is None:
        raise NotAsked("no EPP with an empty pool was given")
    await epp.refuses(503, channel=epp.empty, method="GET", path="/v1/models")


Body = Callable[[Epp], bytes]

STRANGE: dict[str, tuple[str, str, dict[str, str], Body]] = {
    "no-json": ("A body that is not JSON", messages.CHAT, {}, lambda epp: b"{"),
    "no-utf-8": ("A body that is not text", messages.CHAT, {}, lambda epp: b"\xff\xfe\x00"),
    "deep-json": ("JSON nested 100,000 deep", messages.CHAT, {}, lambda epp: b"[" * 100_000),
    "no-body": ("A body of no bytes", messages.CHAT, {}, lambda epp: b""),
    "no-messages": ("A chat without messages", messages.CHAT, {}, lambda epp: b'{"model": "%s"}' % epp.model.encode()),
    "no-model": ("A chat without a model", messages.CHAT, {}, lambda epp: b'{"messages": []}'),
    "model-is-a-number": ("A model that is a number", messages.CHAT, {}, lambda epp: b'{"model": 1, "messages": []}'),
    "unknown-model": ("A model that nobody serves", messages.CHAT, {}, lambda epp: messages.chat("nobody/serves-this")),
    "unknown-path": ("A path of no known API", "/not/an/api", {}, lambda epp: b"anything at all"),
    "unknown-objective": (
        "An objective that does not exist",
        messages.CHAT,
        {"x-llm-d-inference-objective": "no-such-objective"},
        lambda epp: messages.chat(epp.model),
    ),
    "if-available": (
        "A prompt that must be cached already",
        messages.CHAT,
        {"prefer": "if-available"},
        lambda epp: messages.chat(epp.model),
    ),
}
"""Requests that an EPP may send on or refuse: rule, path, headers, body."""


def _strange(path: str, headers: dict[str, str], body: Body) -> Check[Epp]:
    async def check(epp: Epp) -> None:
        sent = body(epp)
        async with epp.asked([sent], path=path, more=headers) as stream:
            no = heard.refusal(stream.replies)
            if no is None:
                heard.destinations(stream.replies)
                heard.same_request(sent, heard.streamed_body(stream.replies, "request_body"))
                return
            if not 400 <= no.status.code <= 499:
                raise Broken(f"answered with {no.status.code}")
            await stream.ended()

    return check


for _name, (_what, _path, _headers, _body) in STRANGE.items():
    _rule = f"{_what} is sent on as it is, or answered with 4xx; the stream does not end with an error."
    PACK.add(f"strange-{_name}", _rule, FAIL_OPEN, _strange(_path, _headers, _body))


@PACK.case(FAIL_OPEN)
async def long_body_is_carried_or_answered(epp: Epp) -> None:
    """A body of 24 MiB in messages of 1 MiB is sent on whole or answered with 4xx, be it over a limit or not."""
    body = messages.sized_chat(epp.model, 24 * MIB)
    async with epp.stream() as stream:
        pieces = [messages.request_body(body[i : i + MIB]) for i in range(0, len(body), MIB)]
        await stream.say(messages.request_headers(), *pieces, messages.request_body(b"", end=True))
        replies = await stream.until(settled)
        if (no := heard.refusal(replies)) is None:
            heard.same_request(body, heard.streamed_body(replies, "request_body"))
        elif not 400 <= no.status.code <= 499:
            raise Broken(f"answered with {no.status.code}")


@PACK.case(FAIL_OPEN)
async def refusal_has_a_status_for_the_client(epp: Epp) -> None:
    """A refusal comes as an immediate response with an HTTP status of failure, before any other reply."""
    async with epp.asked(subset=[]) as stream:
        no = heard.refusal(stream.replies)
        if no is None or not 400 <= no.status.code <= 599:
            raise Broken(f"status {no.status.code}" if no is not None else heard.kinds(stream.replies))
        if len(stream.replies) != 1:
            raise Broken(f"the replies were {heard.kinds(stream.replies)}")
