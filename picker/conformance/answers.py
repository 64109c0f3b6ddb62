"""The answer's side in full duplex: every byte that came goes back, streams at once, and each part gets its reply."""

from collections.abc import Mapping

from picker.conformance import heard, messages
from picker.conformance.case import Broken, Pack
from picker.conformance.epp import Epp, Stream, many

PACK: Pack[Epp] = Pack("answers")
DUPLEX = "Envoy ext_proc, full duplex"
PLAIN = b'{"id": "1", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}'
SSE = 'data: {"choices": [{"text": "Grüße"}]}\n\ndata: [DONE]\n\n'.encode()


async def _comes_back(
    epp: Epp, pieces: list[bytes], headers: Mapping[str, str] = messages.JSON, *, trailers: bool = False
) -> None:
    """An answer of these pieces comes back byte by byte, its headers answered first."""
    last = messages.response_trailers() if trailers else messages.response_body(b"", end=True)
    async with epp.answering() as stream:
        asked = len(stream.replies)
        await stream.say(messages.response_headers(headers), *map(messages.response_body, pieces), last)
        await stream.until(lambda replies: _over(replies[asked:], trailers))
        replies = (await stream.ended())[asked:]
    if heard.kind(replies[0]) != "response_headers":
        raise Broken(f"the replies were {heard.kinds(replies)}")
    sent, got = b"".join(pieces), heard.streamed_body(replies, "response_body", trailers=trailers)
    if got != sent:
        raise Broken(f"the client would get another answer: {heard.difference(sent, got)}")


def _over(replies: heard.Replies, trailers: bool) -> bool:
    if heard.refusal(replies) is not None:
        raise Broken("the answer was cut off by an immediate response")
    if trailers:
        return any(heard.kind(reply) == "response_trailers" for reply in replies)
    return any(chunk.end_of_stream for chunk in heard.streamed(replies, "response_body"))


@PACK.case(DUPLEX)
async def plain_answer_comes_back(epp: Epp) -> None:
    """A JSON answer comes back as it was, its end on the last chunk alone."""
    await _comes_back(epp, [PLAIN])


@PACK.case(DUPLEX)
async def plain_answer_is_cut_at_every_byte(epp: Epp) -> None:
    """A JSON answer in two messages comes back whole, wherever the cut is."""
    await many(lambda cut: _comes_back(epp, [PLAIN[:cut], PLAIN[cut:]]), range(len(PLAIN) + 1))


@PACK.case(DUPLEX)
async def event_stream_is_cut_at_every_byte(epp: Epp) -> None:
    """An event stream in two messages comes back whole, wherever the cut is."""
    await many(lambda cut: _comes_back(epp, [SSE[:cut], SSE[cut:]], messages.EVENTS), range(len(SSE) + 1))


@PACK.case("GIE: answers that stream are echoed chunk by chunk")
async def events_come_back_at_once(epp: Epp) -> None:
    """Each chunk of an event stream comes back before the next one is there."""
    async with epp.answering() as stream:
        await stream.say(messages.response_headers(messages.EVENTS))
        await _hear(stream, "response_headers")
        for number in range(5):
            event = f'data: {{"number": {number}}}\n\n'.encode()
            await stream.say(messages.response_body(event))
            await _hear(stream, "response_body")
            got = stream.replies[-1].response_body.response.body_mutation.streamed_response
            if got.body != event or got.end_of_stream:
                raise Broken(f"{got.body[:60]!r} for {event!r}")


@PACK.case(DUPLEX)
async def long_answer_comes_back(epp: Epp) -> None:
    """An answer of 500,000 bytes, in messages of up to 200,000, comes back in chunks that a gateway takes."""
    body = PLAIN[:-1] + b" " * (500_000 - len(PLAIN)) + b"}"
    await _comes_back(epp, [body[:200_000], body[200_000:400_000], body[400_000:]])


@PACK.case(DUPLEX)
async def trailers_of_an_answer_are_replied_to(epp: Epp) -> None:
    """An answer with trailers comes back without an end mark, and the trailers get a reply."""
    await _comes_back(epp, [SSE], messages.EVENTS, trailers=True)


@PACK.case(DUPLEX)
async def answer_without_a_body_is_replied_to(epp: Epp) -> None:
    """Headers that end the answer get their reply, and the stream ends with OK."""
    async with epp.answering() as stream:
        await stream.say(messages.response_headers({":status": "204"}, end=True))
        await _hear(stream, "response_headers")
        await stream.ended()


@PACK.case(DUPLEX)
async def answer_of_an_engines_error_comes_back(epp: Epp) -> None:
    """An engine's own 500 reaches the client as the engine wrote it."""
    await _comes_back(epp, [b'{"error": "out of memory"}'], {":status": "500", "content-type": "application/json"})


async def _hear(stream: Stream, part: str) -> None:
    reply = await stream.hear()
    if heard.kind(reply) != part:
        raise Broken(f"{heard.kind(reply)} instead of a reply to {part}")
