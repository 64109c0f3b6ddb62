"""The buffered modes, which the protocol does not demand: asked of an EPP that answers them."""

import asyncio

from picker.conformance import heard, messages
from picker.conformance.case import Broken, NotAsked, Pack
from picker.conformance.epp import Ended, Epp, Stream
from picker.proto.ext_proc_pb2 import BUFFERED, NONE, STREAMED, BodySendMode

PACK: Pack[Epp] = Pack("buffered")
SOURCE = "Envoy ext_proc, processing modes"
PROBE_S = 1.0
"""How long an EPP may take to reply to buffered headers; one that knows full duplex only never does."""


async def _picked(stream: Stream, epp: Epp, response: BodySendMode) -> bytes:
    """Ask a buffered request; the body that the engine gets."""
    body = messages.chat(epp.model)
    await stream.say(messages.request_headers(modes=(BUFFERED, response)))
    try:
        async with asyncio.timeout(PROBE_S):
            first = await stream.hear()
    except TimeoutError:
        raise NotAsked("the EPP holds the reply to buffered headers: it serves full duplex only") from None
    await stream.say(messages.request_body(body, end=True))
    reply = await stream.hear()
    if (found := [heard.kind(first), heard.kind(reply)]) != ["request_headers", "request_body"]:
        raise Broken(f"the replies were {', '.join(found)}")
    changed = reply.request_body.response.body_mutation
    if changed.HasField("streamed_response"):
        raise NotAsked("the EPP answers buffered bodies as in full duplex")
    if not changed.HasField("body"):
        return body
    length = heard.header(heard.mutations([reply], "request_body"), "content-length")
    if length != [str(len(changed.body))]:
        raise Broken(f"content-length {length} for a body of {len(changed.body)} bytes: Envoy answers with 500")
    return changed.body


@PACK.case(SOURCE)
async def header_equals_metadata_buffered(epp: Epp) -> None:
    """The pick rides on the reply to the body, header and metadata alike, and the body stays or has its length."""
    async with epp.stream() as stream:
        heard.same_request(messages.chat(epp.model), await _picked(stream, epp, NONE))
        header, metadata = heard.destination(stream.replies), heard.destination_metadata(stream.replies)
    heard.destinations(stream.replies)
    if header != metadata:
        raise Broken(f"the header says {header!r}, the metadata {metadata!r}")


@PACK.case(SOURCE)
async def streamed_answer_passes(epp: Epp) -> None:
    """Each chunk of an answer in STREAMED mode gets one reply that leaves it as it is, or the stream ends with OK."""
    async with epp.stream() as stream:
        await _picked(stream, epp, STREAMED)
        await stream.say(messages.response_headers(messages.EVENTS))
        await stream.hear()
        for number in range(3):
            await stream.say(messages.response_body(f"data: {number}\n\n".encode()))
            try:
                reply = await stream.hear()
            except Ended:
                return
            if heard.kind(reply) != "response_body" or reply.response_body.response.HasField("body_mutation"):
                raise Broken(f"{heard.kind(reply)} with a mutation" if reply.WhichOneof("response") else "no reply")
        await stream.ended()
