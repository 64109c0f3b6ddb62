"""Envoy's side of the conversation: messages to send, and replies read back with the compiled protos."""

from collections.abc import Iterable, Mapping

from google.protobuf.struct_pb2 import Struct

from picker.exchange.decode import BodyMode
from picker.exchange.encode import Json
from picker.exchange.machine import Answer, Exchange
from picker.proto.ext_proc_pb2 import (
    HeaderMap,
    HeaderMutation,
    HttpBody,
    HttpHeaders,
    HttpTrailers,
    ProtocolConfiguration,
)
from picker.proto.ext_proc_pb2 import ProcessingRequest as Said
from picker.proto.ext_proc_pb2 import ProcessingResponse as Reply

Metadata = Mapping[str, Mapping[str, Json]]
"""Values by namespace and key."""

POST = {":method": "POST", ":path": "/v1/completions", "x-request-id": "r1"}
OK = {":status": "200", "content-type": "application/json"}
SSE = {":status": "200", "content-type": "text/event-stream; charset=utf-8"}
PICK = Answer(("10.0.0.1:8000", "10.0.0.2:8000"), flight="7")

FDS, BUFFERED, STREAMED, NONE = (
    BodyMode.FULL_DUPLEX_STREAMED,
    BodyMode.BUFFERED,
    BodyMode.STREAMED,
    BodyMode.NONE,
)


def header_map(headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> HeaderMap:
    found = HeaderMap()
    for name, value in headers.items() if isinstance(headers, Mapping) else headers:
        found.headers.add(key=name, raw_value=value.encode())
    return found


def request_headers(
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = POST,
    *,
    end: bool = False,
    request: BodyMode | None = FDS,
    response: BodyMode = NONE,
    metadata: Metadata | None = None,
) -> bytes:
    said = Said(
        request_headers=HttpHeaders(headers=header_map(headers), end_of_stream=end),
        protocol_config=announced(request, response),
    )
    add_metadata(said, metadata)
    return said.SerializeToString()


def announced(request: BodyMode | None, response: BodyMode = NONE) -> ProtocolConfiguration | None:
    """How bodies are sent, as a proxy says it; None from one that does not."""
    if request is None:
        return None
    return ProtocolConfiguration(request_body_mode=request.name, response_body_mode=response.name)


def add_metadata(said: Said, metadata: Metadata | None) -> None:
    for namespace, values in (metadata or {}).items():
        struct = Struct()
        struct.update(values)
        said.metadata_context.filter_metadata[namespace].CopyFrom(struct)


def request_body(body: bytes, *, end: bool = False) -> bytes:
    return Said(request_body=HttpBody(body=body, end_of_stream=end)).SerializeToString()


def response_headers(
    headers: Mapping[str, str] = OK,
    *,
    end: bool = False,
    metadata: Metadata | None = None,
    attributes: Mapping[str, Json] | None = None,
) -> bytes:
    said = Said(response_headers=HttpHeaders(headers=header_map(headers), end_of_stream=end))
    add_metadata(said, metadata)
    if attributes:
        said.attributes["envoy.filters.http.ext_proc"].update(attributes)
    return said.SerializeToString()


def response_body(body: bytes, *, end: bool = False) -> bytes:
    return Said(response_body=HttpBody(body=body, end_of_stream=end)).SerializeToString()


REQUEST_TRAILERS = Said(request_trailers=HttpTrailers()).SerializeToString()
RESPONSE_TRAILERS = Said(response_trailers=HttpTrailers()).SerializeToString()


def replies(exchange: Exchange) -> list[Reply]:
    return [Reply.FromString(data) for data in exchange.data_to_send()]


def kinds(found: list[Reply]) -> list[str]:
    return [str(reply.WhichOneof("response")) for reply in found]


def set_headers(mutation: HeaderMutation) -> dict[str, str]:
    return {each.header.key: each.header.raw_value.decode() for each in mutation.set_headers}


def streamed_body(found: list[Reply], part: str) -> bytes:
    """All bytes of the streamed replies of one side, in order."""
    chunks = [getattr(reply, part) for reply in found if reply.WhichOneof("response") == part]
    return b"".join(chunk.response.body_mutation.streamed_response.body for chunk in chunks)


def ends(found: list[Reply], part: str) -> list[bool]:
    """end_of_stream of the streamed replies of one side, in order."""
    chunks = [getattr(reply, part) for reply in found if reply.WhichOneof("response") == part]
    return [chunk.response.body_mutation.streamed_response.end_of_stream for chunk in chunks]


def forwarded(request: BodyMode = FDS, response: BodyMode = NONE, exchange: Exchange | None = None) -> Exchange:
    """An exchange whose request has been picked for and passed on."""
    exchange = exchange or Exchange()
    exchange.receive(request_headers(request=request, response=response))
    exchange.receive(request_body(b"{}", end=True))
    assert exchange.answer(PICK)
    exchange.data_to_send()
    return exchange
