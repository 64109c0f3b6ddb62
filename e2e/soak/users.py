"""Who asks: most as they should, and a few who leave, stop in the midst of a word, or send what is none."""

import asyncio
import contextlib

from bench.client import send_all
from bench.prompts import chat_requests

SHORT, LONG = 2048, 32768
LEAVES_AFTER = 200
"""Chunks of the answer that nobody stays for."""


async def ask_all(port: int, count: int, seed: int) -> int:
    """About so many requests, among them the other kind; how many there were. Every one of those who ask as they should
    gets a whole answer. Raises LoadError, OSError; AssertionError where another is not told what is wrong."""
    whole = chat_requests(count * 8 // 10, SHORT, seed=seed)
    streamed = chat_requests(count // 10, SHORT, seed=seed + 1, stream=True, answer_tokens=20)
    long = chat_requests(count // 50, LONG, seed=seed + 2)
    requests = [request for some in (whole, streamed, long) for request in some]
    others = count // 30
    stay_for_little = chat_requests(others, SHORT, seed=seed + 3, stream=True, answer_tokens=LEAVES_AFTER)
    stop = chat_requests(others, SHORT, seed=seed + 4)
    await asyncio.gather(
        send_all(port, requests),
        _one_by_one(port, stay_for_little, stop),
    )
    return len(requests) + 3 * others


async def _one_by_one(port: int, stay_for_little: list[bytes], stop: list[bytes]) -> None:
    for leaves, stops in zip(stay_for_little, stop, strict=True):
        await _said_until(port, leaves, b"data: ")
        await _said_until(port, stops[: len(stops) // 2], None)
        answer = await _said_until(port, _with_body(b'{"model": "sim", "messages": [{'), b"}")
        assert answer.startswith(b"HTTP/1.1 400 "), answer


async def _said_until(port: int, request: bytes, enough: bytes | None) -> bytes:
    """Ask, read until there is `enough`, and be gone without a word."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        await writer.drain()
        return b"" if enough is None else await reader.readuntil(enough)
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def _with_body(body: bytes) -> bytes:
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: soak\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%b" % (len(body), body)
    )
