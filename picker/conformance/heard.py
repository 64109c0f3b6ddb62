"""What an EPP said, read: pure functions of its replies. Raise Broken where the replies make no sense."""

import ipaddress
import json
from collections.abc import Sequence
from itertools import groupby

from picker.conformance.case import Broken
from picker.exchange import keys
from picker.proto.ext_proc_pb2 import HeaderMutation, ImmediateResponse, ProcessingResponse, StreamedBodyResponse

Replies = Sequence[ProcessingResponse]
CHUNK_BYTES = 62_000
"""Largest body of one streamed reply."""


def kind(reply: ProcessingResponse) -> str:
    """`request_headers`, `immediate_response` and so on; `nothing` for a reply without a part."""
    return str(reply.WhichOneof("response") or "nothing")


def kinds(replies: Replies) -> str:
    """The replies in a few words: `request_headers, 3 x request_body`."""
    runs = [(name, len(list(run))) for name, run in groupby(map(kind, replies))]
    return ", ".join(name if count == 1 else f"{count} x {name}" for name, count in runs) or "no reply"


def refusal(replies: Replies) -> ImmediateResponse | None:
    """The answer that the EPP gave in place of an endpoint, if it did."""
    return next((reply.immediate_response for reply in replies if kind(reply) == "immediate_response"), None)


def mutations(replies: Replies, part: str) -> list[HeaderMutation]:
    """Header mutations in the replies to this part, in order."""
    return [getattr(reply, part).response.header_mutation for reply in replies if kind(reply) == part]


def header(found: Sequence[HeaderMutation], name: str) -> list[str]:
    """Every value that these mutations set for a header."""
    options = [option.header for mutation in found for option in mutation.set_headers]
    return [_text(each.raw_value or each.value) for each in options if each.key.lower() == name]


def destination(replies: Replies) -> str:
    """The destination header of a request that was picked for."""
    if (no := refusal(replies)) is not None:
        raise Broken(f"refused with {no.status.code}: {_text(no.body)[:200]}")
    values = header([*mutations(replies, "request_headers"), *mutations(replies, "request_body")], keys.DESTINATION)
    if len(values) != 1:
        raise Broken(f"{keys.DESTINATION} is set {len(values)} times in: {kinds(replies)}")
    return values[0]


def destination_metadata(replies: Replies) -> str | None:
    """The destination in dynamic metadata, None where there is none."""
    for reply in replies:
        value = reply.dynamic_metadata.fields.get(keys.LB_NAMESPACE)
        if value is not None and keys.DESTINATION in value.struct_value.fields:
            return value.struct_value.fields[keys.DESTINATION].string_value
    return None


def destinations(replies: Replies) -> tuple[str, ...]:
    """The endpoints of the destination header, best first; each is `ip:port`."""
    listed = tuple(part.strip() for part in destination(replies).split(","))
    for each in listed:
        if not is_endpoint(each):
            raise Broken(f"{keys.DESTINATION} names {each!r}, which is not ip:port")
    return listed


def is_endpoint(text: str) -> bool:
    """Whether this is `ip:port`, IPv6 in brackets.

    >>> is_endpoint("10.0.0.1:3000"), is_endpoint("[fd00::1]:3000"), is_endpoint("pod-1:3000")
    (True, True, False)
    """
    host, _, port = text.rpartition(":")
    try:
        ip = ipaddress.ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    except ValueError:
        return False
    return (ip.version == 6) == host.startswith("[") and port.isascii() and port.isdigit() and 0 < int(port) < 65536


def streamed(replies: Replies, part: str) -> list[StreamedBodyResponse]:
    """The streamed bodies among the replies to this part."""
    found = [getattr(reply, part).response.body_mutation for reply in replies if kind(reply) == part]
    for mutation in found:
        if mutation.WhichOneof("mutation") != "streamed_response":
            raise Broken(f"a {part} reply without a streamed response in full duplex")
    return [mutation.streamed_response for mutation in found]


def streamed_body(replies: Replies, part: str, *, trailers: bool = False) -> bytes:
    """All bytes of a streamed body. Its end must be marked on the last chunk and there alone, or by trailers."""
    chunks = streamed(replies, part)
    ends = [chunk.end_of_stream for chunk in chunks]
    expected = [False] * len(ends) if trailers else [False] * (len(ends) - 1) + [True]
    if ends != expected:
        place = "on none, trailers being the end" if trailers else "on the last of them alone"
        raise Broken(f"end_of_stream must be set {place}: {kinds(replies)}, set on {sum(ends)}")
    longest = max((len(chunk.body) for chunk in chunks), default=0)
    if longest > CHUNK_BYTES:
        raise Broken(f"a streamed {part} of {longest} bytes; at most {CHUNK_BYTES} are allowed")
    return b"".join(chunk.body for chunk in chunks)


def same_request(sent: bytes, forwarded: bytes) -> None:
    """An EPP may put another model into a JSON body, and nothing else."""
    if sent != forwarded and _without_model(sent) != _without_model(forwarded):
        raise Broken(f"the engine would get another body: {difference(sent, forwarded)}")


def difference(sent: bytes, got: bytes) -> str:
    """Where two bodies part, in a few words."""
    common = next((i for i, (a, b) in enumerate(zip(sent, got, strict=False)) if a != b), min(len(sent), len(got)))
    return f"{len(got)} bytes for {len(sent)}, alike up to byte {common}"


def _without_model(body: bytes) -> object:
    try:
        decoded = json.loads(body)
    except (ValueError, RecursionError):
        return body
    return {k: v for k, v in decoded.items() if k != "model"} if isinstance(decoded, dict) else body


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
