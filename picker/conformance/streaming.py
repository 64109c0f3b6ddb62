"""Bodies in pieces: wherever a message ends, what goes on is what came, in chunks that a gateway takes."""

from picker.conformance import heard, messages
from picker.conformance.case import Broken, Pack
from picker.conformance.epp import Epp, many, settled

PACK: Pack[Epp] = Pack("streaming")
DUPLEX = "Envoy ext_proc, full duplex"
LIMIT = heard.CHUNK_BYTES
SIZES = (LIMIT - 1, LIMIT, LIMIT + 1, 2 * LIMIT, 2 * LIMIT + 1, 64 * 1024, 500_000)


async def _goes_on(epp: Epp, pieces: list[bytes], *, trailers: bool = False) -> None:
    replies = await epp.ask(pieces, trailers=trailers)
    heard.destination(replies)
    heard.same_request(b"".join(pieces), heard.streamed_body(replies, "request_body", trailers=trailers))


@PACK.case(DUPLEX)
async def body_is_cut_at_every_byte(epp: Epp) -> None:
    """A body in two messages goes on whole, wherever the cut is."""
    body = messages.chat(epp.model, "Grüße")
    await many(lambda cut: _goes_on(epp, [body[:cut], body[cut:]]), range(len(body) + 1))


@PACK.case(DUPLEX)
async def body_comes_byte_by_byte(epp: Epp) -> None:
    """A body of one byte a message goes on whole."""
    await _goes_on(epp, [bytes([byte]) for byte in messages.chat(epp.model)])


@PACK.case(DUPLEX)
async def end_is_on_the_last_bytes(epp: Epp) -> None:
    """A body whose last message has bytes and the end at once goes on like one that ends with an empty message."""
    body = messages.chat(epp.model)
    async with epp.stream() as stream:
        await stream.say(messages.request_headers(), messages.request_body(body, end=True))
        replies = await stream.until(settled)
    heard.destination(replies)
    heard.same_request(body, heard.streamed_body(replies, "request_body"))


@PACK.case("GIE: chunks of at most 62,000 bytes")
async def chunks_are_small_enough(epp: Epp) -> None:
    """Bodies around multiples of 62,000 bytes go on whole, in chunks of no more, the end on the last alone."""
    await many(lambda size: _goes_on(epp, [messages.sized_chat(epp.model, size)]), SIZES)


@PACK.case(DUPLEX)
async def small_messages_make_a_long_body(epp: Epp) -> None:
    """A body of 300,000 bytes in messages of 1,000 goes on whole."""
    body = messages.sized_chat(epp.model, 300_000)
    await _goes_on(epp, [body[i : i + 1000] for i in range(0, len(body), 1000)])


@PACK.case(DUPLEX)
async def trailers_end_a_body(epp: Epp) -> None:
    """With trailers no chunk is marked as the end, and the reply to the trailers comes last."""
    async with epp.asked([messages.chat(epp.model)], trailers=True) as stream:
        replies = stream.replies
    heard.destination(replies)
    heard.streamed_body(replies, "request_body", trailers=True)
    if heard.kind(replies[-1]) != "request_trailers":
        raise Broken(f"the replies were {heard.kinds(replies)}")


@PACK.case(DUPLEX)
async def gateway_that_goes_leaves_nothing_behind(epp: Epp) -> None:
    """Streams that break off, before the body, within it, after the pick and within the answer, harm no other one."""

    async def break_off(when: int) -> None:
        body = messages.chat(epp.model)
        if when % 4 < 2:
            async with epp.stream() as stream:
                await stream.say(messages.request_headers(), *[messages.request_body(body[:50])][: when % 4])
            return
        async with epp.asked([body]) as stream:
            if when % 4 == 3:
                await stream.say(messages.response_headers(), messages.response_body(b"{"))

    await many(break_off, range(40))
    heard.destinations(await epp.ask())


@PACK.case(DUPLEX)
async def stream_ends_when_its_gateway_says_no_more(epp: Epp) -> None:
    """A stream whose gateway ends it, before and after the pick, is ended by the EPP too, not kept."""
    async with epp.stream() as stream:
        await stream.say(messages.request_headers(), messages.request_body(b"{"))
        await stream.ended()
    async with epp.asked() as stream:
        await stream.ended()
