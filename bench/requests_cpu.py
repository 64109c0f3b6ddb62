"""CPU time of reading one request: `python bench/requests_cpu.py [--json FILE]`. Text mode unless said otherwise."""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

from picker.requests.blocks import extend, root
from picker.requests.reader import Reader, ReaderSettings
from picker.requests.steering import apply
from picker.requests.usage import UsageReader

HEADERS = {
    "content-type": "application/json",
    "x-request-id": "5b1f4a3e-9f33-4a62-b2b4-0d9ad61f9d02",
    "x-llm-d-inference-fairness-id": "tenant-a",
    "user-agent": "bench",
    "accept": "*/*",
}


def chat(size: int, word: str = "lorem ipsum dolor ") -> bytes:
    """A conversation of about `size` bytes in turns of 1 KB."""
    turns = [{"role": ("user", "assistant")[i % 2], "content": (word * 1024)[:960]} for i in range(size // 1000)]
    return json.dumps({"model": "m", "stream": True, "max_tokens": 256, "messages": turns}, ensure_ascii=False).encode()


def cpu_us(call: Callable[[], Any], seconds: float = 0.6) -> dict[str, float]:
    """Minimum and median CPU microseconds of one call, over batches of 20 calls for `seconds`."""
    samples: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(samples) < 5:
        started = time.thread_time_ns()
        for _ in range(20):
            call()
        samples.append((time.thread_time_ns() - started) / 20_000)
    return {"min": round(min(samples), 2), "median": round(statistics.median(samples), 2), "batches": len(samples)}


def measure() -> dict[str, dict[str, float]]:
    """All figures by name."""
    reader = Reader(ReaderSettings(steering="strip"))
    path = "/v1/chat/completions"

    def whole(body: bytes) -> Callable[[], Any]:
        return lambda: reader.finish(reader.parse(path, HEADERS, body))

    body_2k, body_32k, body_cjk = chat(2048), chat(32_768), chat(32_768 // 3, "日本語の文章です。")
    steered = body_32k[:-1] + b',"kv_transfer_params":{"do_remote_decode":true}}'
    ids = json.dumps({"model": "m", "prompt": list(range(1000, 9192))}).encode()
    block = list(range(16))
    seed = root()
    chunk = b'data: {"id":"cmpl-1","choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}\n\n'
    usage = UsageReader()
    usage.feed(chunk)
    return {
        "parse_2k": cpu_us(lambda: reader.parse(path, HEADERS, body_2k)),
        "parse_32k": cpu_us(lambda: reader.parse(path, HEADERS, body_32k)),
        "parse_and_hash_2k": cpu_us(whole(body_2k)),
        "parse_and_hash_32k": cpu_us(whole(body_32k)),
        "parse_and_hash_32k_cjk": cpu_us(whole(body_cjk)),
        "strip_steering_32k": cpu_us(lambda: apply("strip", steered)),
        "parse_and_hash_8192_token_ids": cpu_us(lambda: reader.finish(reader.parse("/v1/completions", HEADERS, ids))),
        "kv_event_block_of_16": cpu_us(lambda: extend(seed, block, 16)),
        "usage_chunk": cpu_us(lambda: usage.feed(chunk)),
    }


def main() -> None:
    """Print the table; write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="write the figures to this file")
    figures = measure()
    for name, figure in figures.items():
        print(
            f"{name:32} min {figure['min']:8.2f} us   median {figure['median']:8.2f} us   ({figure['batches']} batches)"
        )
    if target := parser.parse_args().json:
        with open(target, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=2)


if __name__ == "__main__":
    main()
