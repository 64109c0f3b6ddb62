"""Engines that cost next to nothing: `python -m bench.backends PORT... [--pace-ms 3]`.

One process serves all ports and answers OpenAI chat requests at once: JSON, or an event stream of `max_tokens` chunks
`pace` apart, each in a write of its own. Also /health, /metrics with vLLM's names, and what the peers ask at start.
"""

import argparse
import asyncio
import re
from collections.abc import Sequence
from typing import cast

import uvloop

from bench.http1 import Message, MessageReader

HOST = "127.0.0.1"
PACE_MS = 3.0

# The second spelling is what sglang-router makes of the first.
_TOKENS = re.compile(rb'"max_(?:completion_)?tokens":\s*(\d{1,6})')
_STREAM = re.compile(rb'"stream":\s*true')
_USAGE = (
    b'"usage":{"prompt_tokens":512,"total_tokens":%d,"completion_tokens":%d,'
    b'"prompt_tokens_details":{"cached_tokens":384}}'
)
CHUNK = (
    b'data: {"id":"chatcmpl-0","object":"chat.completion.chunk","created":1700000000,"model":"sim",'
    b'"choices":[{"index":0,"delta":{"content":" tok"},"logprobs":null,"finish_reason":null}]}\n\n'
)
_LAST = (
    b'data: {"id":"chatcmpl-0","object":"chat.completion.chunk","created":1700000000,"model":"sim","choices":[],%b}\n\n'
    b"data: [DONE]\n\n"
)
_METRICS = b"""# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="sim"} 1.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="sim"} 0.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="sim"} 0.25
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",num_gpu_blocks="65536",engine="0"} 1.0
"""
_GETS = {
    b"/health": b"{}",
    b"/health_generate": b"{}",
    b"/v1/models": b'{"object":"list","data":[{"id":"sim","object":"model","created":1700000000,"owned_by":"bench"}]}',
    b"/get_model_info": b'{"model_path":"sim","tokenizer_path":"sim","is_generation":true}',
    b"/model_info": b'{"model_path":"sim","tokenizer_path":"sim","is_generation":true}',
    b"/get_server_info": b'{"model_path":"sim","served_model_name":"sim","tp_size":1,"dp_size":1,"version":"0"}',
    b"/server_info": b'{"model_path":"sim","served_model_name":"sim","tp_size":1,"dp_size":1,"version":"0"}',
}


class Connection(asyncio.Protocol):
    """One keep-alive connection: a request, its answer, the next request."""

    def __init__(self, pace_s: float) -> None:
        self._pace_s = pace_s
        self._reader = MessageReader()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        message = self._reader.feed(data)
        if message is not None:
            self._answer(message)

    def _answer(self, message: Message) -> None:
        method, path, _ = message.start_line.split(b" ", 2)
        if method == b"POST":
            tokens = int(found[1]) if (found := _TOKENS.search(message.body)) else 8
            if _STREAM.search(message.body):
                self._begin_stream(tokens)
            else:
                self._send(b"200 OK", b"application/json", completion(tokens))
        elif path == b"/metrics":
            self._send(b"200 OK", b"text/plain; version=0.0.4", _METRICS)
        elif path in _GETS:
            self._send(b"200 OK", b"application/json", _GETS[path])
        else:
            self._send(b"404 Not Found", b"application/json", b"{}")

    def _send(self, status: bytes, content_type: bytes, body: bytes) -> None:
        self._transport.write(
            b"HTTP/1.1 %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (status, content_type, len(body), body)
        )

    def _begin_stream(self, chunks: int) -> None:
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        self._next_chunk(chunks, chunks)

    def _next_chunk(self, left: int, total: int) -> None:
        if left:
            self._transport.write(_framed(CHUNK))
            self._timer = asyncio.get_running_loop().call_later(self._pace_s, self._next_chunk, left - 1, total)
        else:
            self._timer = None
            self._transport.write(_framed(_LAST % (_USAGE % (512 + total, total))) + b"0\r\n\r\n")


def completion(tokens: int) -> bytes:
    """A chat completion of `tokens` tokens, as vLLM words it."""
    return (
        b'{"id":"chatcmpl-0","object":"chat.completion","created":1700000000,"model":"sim","choices":[{"index":0,'
        b'"message":{"role":"assistant","content":"%b"},"logprobs":null,"finish_reason":"length"}],%b}'
        % (b" tok" * tokens, _USAGE % (512 + tokens, tokens))
    )


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def serve(ports: Sequence[int], pace_s: float) -> None:
    """Serve all ports until cancelled. Raises OSError for a port that is taken."""
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(lambda: Connection(pace_s), HOST, port) for port in ports]
    await asyncio.gather(*(server.serve_forever() for server in servers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ports", type=int, nargs="+")
    parser.add_argument("--pace-ms", type=float, default=PACE_MS)
    given = parser.parse_args()
    uvloop.run(serve(given.ports, given.pace_ms / 1000))


if __name__ == "__main__":
    main()
