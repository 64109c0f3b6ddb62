"""CPU time of one request in our own code alone: Envoy's messages through the whole service, without sockets.

What `cpu_us_per_request` has beyond this is gRPC, the event loop, the kernel and the scraping of engines.
"""

import time

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
RESPONSE_HEADERS = {":status": "200", "content-type": "application/json", "content-length": "384"}


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
        report = _report(service.router.log.last(1)[0].flight)
        start = time.thread_time_ns()
        for record in access_log.decode(report):
            service.logged(record)
        spent += time.thread_time_ns() - start
    return spent / 1000


def words(body: bytes, echo: bool) -> list[bytes]:
    """What Envoy says of one request, as observed: the whole body, an empty end, the answer's headers, its body."""
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
        ext_proc.ProcessingRequest(response_headers=_headers(RESPONSE_HEADERS)),
    ]
    if echo:
        said += [
            ext_proc.ProcessingRequest(response_body=ext_proc.HttpBody(body=completion(8))),
            ext_proc.ProcessingRequest(response_body=ext_proc.HttpBody(end_of_stream=True)),
        ]
    return [message.SerializeToString() for message in said]


def _headers(headers: dict[str, str]) -> ext_proc.HttpHeaders:
    values = [ext_proc.HeaderValue(key=name, raw_value=value.encode()) for name, value in headers.items()]
    return ext_proc.HttpHeaders(headers=ext_proc.HeaderMap(headers=values))


def _report(flight: int) -> bytes:
    """The access log's word of an end; each comes in a message of its own here, several at once from Envoy."""
    entry = als.HTTPAccessLogEntry()
    common = entry.common_properties
    common.access_log_type = als.DOWNSTREAM_END
    common.upstream_remote_address.socket_address.address = "10.0.0.1"
    common.upstream_remote_address.socket_address.port_value = 8000
    common.custom_tags[keys.FIRST_BODY_BYTE] = "125000"
    common.duration.FromMilliseconds(150)
    common.metadata.filter_metadata[keys.LB_NAMESPACE].update({keys.FLIGHT: str(flight)})
    usage = {keys.PROMPT_TOKENS: 512.0, keys.CACHED_TOKENS: 384.0, keys.COMPLETION_TOKENS: 8.0}
    common.metadata.filter_metadata[keys.USAGE_NAMESPACE].update(usage)
    entry.response.response_code.value = 200
    logs = als.StreamAccessLogsMessage.HTTPAccessLogEntries(log_entry=[entry])
    return als.StreamAccessLogsMessage(http_logs=logs).SerializeToString()
