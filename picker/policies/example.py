"""Rows and requests written by hand: for doctests, tests and benches."""

from collections.abc import Sequence

import numpy as np

from picker.engines.rows import Column, Rows
from picker.requests.request import Request


def example_request(prompt_tokens: float = 0.0, prefix: int = 1) -> Request:
    """A request of `prompt_tokens` in 16-token blocks; requests with the same `prefix` share all their blocks."""
    blocks = int(prompt_tokens // 16)
    chain = np.uint64(prefix) * np.uint64(1_000_003) + np.arange(blocks, dtype=np.uint64)
    return Request(prompt_tokens=prompt_tokens, chain=chain)


def example_rows(request: Request, **columns: Sequence[float]) -> Rows:
    """Rows with the given columns and zeros elsewhere; `new_tokens` follows from the prompt and `hit_tokens`."""
    n = max((len(column) for column in columns.values()), default=1)

    def column(name: str, default: float = 0.0) -> Column:
        return np.asarray(columns.get(name, [default] * n), dtype=np.float64)

    hit = column("hit_tokens")
    return Rows(
        slots=np.asarray(columns.get("slots", range(n)), dtype=np.intp),
        batch=column("batch"),
        queued_tokens=column("queued_tokens"),
        hit_tokens=hit,
        new_tokens=np.maximum(1.0, request.prompt_tokens - hit),
        running=column("running"),
        waiting=column("waiting"),
        kv_usage=column("kv_usage"),
        in_flight=column("in_flight"),
        decode_tokens=column("decode_tokens"),
        age_s=column("age_s", np.inf),
        prefilling=column("prefilling"),
        queued_work=column("queued_work"),
        queued_prompts=column("queued_prompts"),
        head_s=column("head_s"),
        hardware=np.asarray(columns.get("hardware", [0] * n), dtype=np.intp),
        kv_tokens=column("kv_tokens"),
    )
