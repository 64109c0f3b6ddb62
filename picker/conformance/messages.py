"""What a gateway says: ext_proc messages as Envoy 1.40 sends them."""

import json
from collections.abc import Mapping
from typing import Any

from google.protobuf.struct_pb2 import Struct

from picker.exchange import keys
from picker.proto.ext_proc_pb2 import (
    FULL_DUPLEX_STREAMED,
    BodySendMode,
    HeaderMap,
    HttpBody,
    HttpHeaders,
    HttpTrailers,
    ProcessingRequest,
)

CHAT = "/v1/chat/completions"
JSON = {":status": "200", "content-type": "application/json"}
EVENTS = {":status": "200", "content-type": "text/event-stream"}
UNSET: Any = object()
"""No subset at all, which differs from an empty one."""


def request_headers(
    *,
    method: str = "POST",
    path: str = CHAT,
    more: Mapping[str, str] | None = None,
    end: bool = False,
    subset: object = UNSET,
    modes: tuple[BodySendMode, BodySendMode] = (FULL_DUPLEX_STREAMED, FULL_DUPLEX_STREAMED),
) -> ProcessingRequest:
    """The first message of a stream. `subset` is what the gateway allows, `modes` those of the two bodies."""
    headers = {":method": method, ":path": path, ":scheme": "http", ":authority": "conformance"}
    if not end:
        headers["content-type"] = "application/json"
    said = ProcessingRequest(request_headers=HttpHeaders(headers=_map({**headers, **(more or {})}), end_of_stream=end))
    said.protocol_config.request_body_mode, said.protocol_config.response_body_mode = modes
    if subset is not UNSET:
        _metadata(said, keys.SUBSET_NAMESPACE, {keys.SUBSET: subset})
    return said


def request_body(body: bytes, *, end: bool = False) -> ProcessingRequest:
    return ProcessingRequest(request_body=HttpBody(body=body, end_of_stream=end))


def request_trailers() -> ProcessingRequest:
    return ProcessingRequest(request_trailers=HttpTrailers(trailers=_map({"x-trailer": "1"})))


def response_headers(
    headers: Mapping[str, str] = JSON, *, served: str | None = None, end: bool = False
) -> ProcessingRequest:
    """`served` is the endpoint that the gateway reports."""
    said = ProcessingRequest(response_headers=HttpHeaders(headers=_map(headers), end_of_stream=end))
    if served is not None:
        _metadata(said, keys.LB_NAMESPACE, {keys.SERVED: served})
    return said


def response_body(body: bytes, *, end: bool = False) -> ProcessingRequest:
    return ProcessingRequest(response_body=HttpBody(body=body, end_of_stream=end))


def response_trailers() -> ProcessingRequest:
    return ProcessingRequest(response_trailers=HttpTrailers(trailers=_map({"grpc-status": "0"})))


def chat(model: str, text: str = "What is an endpoint picker?") -> bytes:
    """A chat completion's body."""
    return json.dumps({"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 1}).encode()


def sized_chat(model: str, size: int) -> bytes:
    """A chat body of exactly `size` bytes, which must leave room for an empty text."""
    return chat(model, "x" * (size - len(chat(model, ""))))


def _map(headers: Mapping[str, str]) -> HeaderMap:
    found = HeaderMap()
    for name, value in headers.items():
        found.headers.add(key=name, raw_value=value.encode())
    return found


def _metadata(said: ProcessingRequest, namespace: str, values: dict[str, Any]) -> None:
    struct = Struct()
    struct.update(values)
    said.metadata_context.filter_metadata[namespace].CopyFrom(struct)
