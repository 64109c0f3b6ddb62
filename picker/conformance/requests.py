"""The request side: where it goes, said twice alike, and the body as it came."""

import asyncio

from picker.conformance import heard, messages
from picker.conformance.case import Broken, NotAsked, Pack
from picker.conformance.epp import Epp, many, settled
from picker.exchange import keys

PACK: Pack[Epp] = Pack("requests")
PROTOCOL = "GIE proposal 004"
ORDER = "Envoy ext_proc, full duplex"
AT_ONCE = 32


@PACK.case(PROTOCOL)
async def header_equals_metadata(epp: Epp) -> None:
    """The destination is a request header and, with the same value, dynamic metadata in envoy.lb."""
    for replies in (await epp.ask(), await epp.ask_bodyless()):
        header, metadata = heard.destination(replies), heard.destination_metadata(replies)
        if header != metadata:
            raise Broken(f"the header says {header!r}, the metadata {metadata!r}")


@PACK.case(PROTOCOL)
async def destinations_are_of_the_pool(epp: Epp) -> None:
    """The destination is an ip:port of the pool."""
    for replies in (await epp.ask(), await epp.ask_bodyless()):
        first = heard.destinations(replies)[0]
        if first not in epp.endpoints:
            raise Broken(f"{first} is not among {', '.join(epp.endpoints)}")


@PACK.case(PROTOCOL)
async def fallbacks_are_of_the_pool(epp: Epp) -> None:
    """What follows the first destination are other endpoints of the same pool, each once."""
    listed = heard.destinations(await epp.ask())
    if len(listed) == 1:
        raise NotAsked("the EPP names one endpoint only")
    if len(set(listed)) != len(listed) or not set(listed) <= set(epp.endpoints):
        raise Broken(f"the list is {', '.join(listed)}")


@PACK.case(ORDER)
async def header_reply_comes_first(epp: Epp) -> None:
    """One reply to the headers comes, and before any to the body: Envoy fails the request otherwise."""
    found = [heard.kind(reply) for reply in await epp.ask()]
    if found[0] != "request_headers" or found.count("request_headers") != 1:
        raise Broken(f"the replies were {', '.join(found)}")


@PACK.case(ORDER)
async def bodyless_request_is_picked_for_at_once(epp: Epp) -> None:
    """A request that ends with its headers gets its destination in the reply to them, and no other reply."""
    async with epp.stream() as stream:
        await stream.say(messages.request_headers(method="GET", path="/v1/models", end=True))
        await stream.hear()
        heard.destination(stream.replies)
        if len(replies := await stream.ended()) != 1:
            raise Broken(f"the replies were {heard.kinds(replies)}")


@PACK.case(ORDER)
async def body_arrives_as_it_was_sent(epp: Epp) -> None:
    """The engine gets the client's JSON, but perhaps another model's name."""
    body = messages.chat(epp.model, 'Grüße, 世界 \u0000 \\ " \n' * 20)
    heard.same_request(body, heard.streamed_body(await epp.ask([body]), "request_body"))


@PACK.case("RFC 9110 section 8.6")
async def content_length_is_the_bodys(epp: Epp) -> None:
    """A content-length that the EPP sets is that of the body which it sends on."""
    body = messages.chat(epp.model)
    replies = await epp.ask([body], more={"content-length": str(len(body))})
    forwarded = len(heard.streamed_body(replies, "request_body"))
    found = heard.header(heard.mutations(replies, "request_headers"), "content-length")
    if any(value != str(forwarded) for value in found):
        raise Broken(f"content-length {', '.join(found)} for {forwarded} bytes")


@PACK.case(PROTOCOL)
async def client_cannot_choose(epp: Epp) -> None:
    """A destination header that the client wrote has no effect: the EPP sets its own over it."""
    replies = await epp.ask(more={keys.DESTINATION: "192.0.2.1:1"})
    if not set(heard.destinations(replies)) <= set(epp.endpoints):
        raise Broken(f"sent to {heard.destination(replies)}")


@PACK.case(PROTOCOL)
async def completions_are_picked_for(epp: Epp) -> None:
    """A completion with a prompt is picked for like a chat."""
    body = b'{"model": "%s", "prompt": "once upon a time", "max_tokens": 1}' % epp.model.encode()
    heard.destinations(await epp.ask([body], path="/v1/completions"))


@PACK.case(ORDER)
async def streams_at_once_do_not_mix(epp: Epp) -> None:
    """Requests at the same time on one connection each get their own body back."""
    all_open = asyncio.Barrier(AT_ONCE)

    async def one(number: int) -> None:
        body = messages.chat(epp.model, f"number {number} " * 50)
        async with epp.stream() as stream:
            await stream.say(messages.request_headers(), messages.request_body(body[:100]))
            async with asyncio.timeout(epp.patience_s):
                await all_open.wait()
            await stream.say(messages.request_body(body[100:], end=True))
            await stream.until(settled)
            heard.destination(stream.replies)
            heard.same_request(body, heard.streamed_body(stream.replies, "request_body"))

    await many(one, range(AT_ONCE), at_once=AT_ONCE)
