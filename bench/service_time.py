"""CPU time of one request in our own code alone: Envoy's messages through the whole service, without sockets.

What `cpu_us_per_request` has beyond this is gRPC, the event loop, the kernel and the scraping of engines.
"""

import time
from collections.abc import Sequence

from bench.backends import completion
from bench.figures import Figure, quantile
from bench.pick_time import warm
from bench.prompts import chat_requests
from picker.exchange import access_log, keys
from picker.exchange.machine import ExchangeSettings
from picker.proto import access_log_pb2 as als
from picker.proto import ext_proc_pb2 as ext_proc
from picker.requests.reader import Reader
from picker.server.conversation import Conversation
from picker.server.service import Service
from picker.telemetry.metrics import RequestMetrics

ENDPOINTS = 4
REQUEST_HEADERS = {
    ":authority": "bench",
    ":path": "/v1/chat/completions",
    ":method": "POST",
    ":scheme": "http",
    "user-agent": "bench",
    "accept": "*/*",
    "content-type": "application/json",
    "content-length": "2048",
    "x-forwarded-proto": "http",
    "x-request-id": "5b1f4a3e-9f33-4a62-b2b4-0d9ad61f9d02",
}
RESPONSE_HEADERS = {
    ":status": "200",
    "content-type": "application/json",
    "content-length": "384",
    "x-envoy-upstream-service-time": "7",
}
SERVED = "10.0.0.1:8000"


def service_us(path: str, size: int, runs: int, requests: int) -> Figure:
    """Microseconds per request on a response path, "none" (with the access log's word of the end) or "duplex".

    A run's figure is the median of single requests.
    """
    metrics = RequestMetrics()
    router = warm(ENDPOINTS, "text", watchers=(metrics,)).router
    service = Service(Reader(), router, metrics, ExchangeSettings())
    if path == "none":
        service.access_log_opened()
    medians = []
    for run in range(runs + 1):
        bodies = (request.partition(b"\r\n\r\n")[2] for request in chat_requests(requests, size, seed=run))
        medians.append(quantile([_microseconds(service, body, path == "duplex") for body in bodies], 0.5))
    return Figure(tuple(medians[1:]))


def _microseconds(service: Service, body: bytes, echo: bool) -> float:
    messages = words(body, echo)
    start = time.thread_time_ns()
    conversation = Conversation(service)
    for message in messages:
        conversation.receive(message)
    conversation.close()
    spent = time.thread_time_ns() - start
    if not echo:
        decision = service.router.log.last(1)[0]
        report = record(decision.flight, decision.addresses[0])
        start = time.thread_time_ns()
        for ended in access_log.decode(report):
            service.logged(ended)
        spent += time.thread_time_ns() - start
    return spent / 1000


def words(body: bytes, echo: bool) -> list[bytes]:
    """What Envoy says of one request, as observed: headers, the whole body, an empty end; with the echo the answer,
    too."""
    said = [
        ext_proc.ProcessingRequest(
            request_headers=_headers(REQUEST_HEADERS),
            protocol_config=ext_proc.ProtocolConfiguration(
                request_body_mode=ext_proc.FULL_DUPLEX_STREAMED,
                response_body_mode=ext_proc.FULL_DUPLEX_STREAMED if echo else ext_proc.NONE,
            ),
        ),
        ext_proc.ProcessingRequest(request_body=ext_proc.HttpBody(body=body)),
        ext_proc.ProcessingRequest(request_body=ext_proc.HttpBody(end_of_stream=True)),
    ]
    for message in said:
        message.metadata_context.SetInParent()
    return [message.SerializeToString() for message in said] + (answered([completion(8)]) if echo else [])


def answered(pieces: Sequence[bytes], served: str = SERVED, flight: int = 0) -> list[bytes]:
    """What Envoy says of an answer: its headers, its body in pieces, an empty end, each with the load balancer's
    metadata."""
    said = [
        ext_proc.ProcessingRequest(response_headers=_headers(RESPONSE_HEADERS)),
        *(ext_proc.ProcessingRequest(response_body=ext_proc.HttpBody(body=piece)) for piece in pieces),
        ext_proc.ProcessingRequest(response_body=ext_proc.HttpBody(end_of_stream=True)),
    ]
    for message in said:
        message.metadata_context.filter_metadata[keys.LB_NAMESPACE].update(_balancer(served, flight))
    return [message.SerializeToString() for message in said]


def _balancer(served: str, flight: int) -> dict[str, str]:
    listed = f"{served},10.0.0.8:8000,10.0.0.9:8000"
    return {keys.DESTINATION: listed, keys.SERVED: served, keys.FLIGHT: str(flight)}


def _headers(headers: dict[str, str]) -> ext_proc.HttpHeaders:
    values = [ext_proc.HeaderValue(key=name, raw_value=value.encode()) for name, value in headers.items()]
    return ext_proc.HttpHeaders(headers=ext_proc.HeaderMap(headers=values))


def record(flight: int, served: str = SERVED) -> bytes:
    """The access log's word of an end; each comes in a message of its own here, several at once from Envoy."""
    entry = als.HTTPAccessLogEntry()
    common = entry.common_properties
    common.access_log_type = als.DOWNSTREAM_END
    host, _, port = served.partition(":")
    common.upstream_remote_address.socket_address.address = host
    common.upstream_remote_address.socket_address.port_value = int(port)
    common.custom_tags[keys.FIRST_BODY_BYTE] = "125000"
    common.duration.FromMilliseconds(150)
    common.metadata.filter_metadata[keys.LB_NAMESPACE].update(_balancer(served, flight))
    usage = {keys.PROMPT_TOKENS: 512.0, keys.CACHED_TOKENS: 384.0, keys.COMPLETION_TOKENS: 8.0}
    common.metadata.filter_metadata[keys.USAGE_NAMESPACE].update(usage)
    entry.response.response_code.value = 200
    logs = als.StreamAccessLogsMessage.HTTPAccessLogEntries(log_entry=[entry])
    return als.StreamAccessLogsMessage(http_logs=logs).SerializeToString()
