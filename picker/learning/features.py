"""What a prediction knows of one request on one endpoint. Endpoints are rows here only by what they are doing, never by
which they are.

Two kinds of numbers. *Terms* are amounts of work in units that make coefficients milliseconds: the physical base is a
non-negative sum of them. *Features* are what the trees split on to say where the base is wrong. Everything is
feature-major, (K, N): one contiguous row per feature.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from picker.engines.rows import Column, Rows
from picker.engines.table import MAX_HARDWARE

Matrix = NDArray[np.float64]

TTFT_TERMS = (
    "one",
    "new_k",  # own prefill, thousands of tokens
    "work_m",  # its attention, millions of token pairs
    "queued_k",  # the same of what is queued there
    "queued_work_m",
    "prefilling",  # requests in prefill
    "interleaved",  # decode context (millions) read in each step of that prefill (thousands of tokens)
    "batch",
    "overflow_k",  # KV that would be held beyond the cache's size, thousands of tokens: waits for answers to end
)
OWN_TERMS = (0, 1, 2)
"""The part of a TTFT that is left when everything in line is done."""
TPOT_TERMS = (
    "one",
    "batch",
    "context_m",  # KV read by each step, millions of tokens
    "prefill_rate",  # prefill that comes there, thousands of tokens per second
    "prefill_rate_x_context",
    "prefill_k",  # prefill in line now, own included, thousands of tokens
)
LOADS = (
    "log_new",
    "log_prompt",
    "hit_share",
    "log_queued",
    "prefilling",
    "batch",
    "context_k",
    "kv_fill",
    "kv_usage",
    "log_head_ms",
    "waiting",
    "running",
    "log_overflow",
    "prefill_rate",
)
ANYWHERE = ("hit_share", "kv_usage", "waiting", "running", "log_head_ms")
"""Loads that others tell better: far from where they were trained they mislead nobody."""
FROM_NOTHING = ("prefill_rate",)
"""Loads that a process counts from its start: a model that is older than it must not take none for unknown ground."""
TREE_FEATURES = (*LOADS, *(f"class_{i}" for i in range(MAX_HARDWARE)))


@dataclass(frozen=True, slots=True)
class Features:
    """Of one request on N endpoints."""

    ttft_terms: Matrix
    """Shape (TTFT_TERMS, N). TTFT + head_ms is about their weighted sum, while something is in line."""
    tpot_terms: Matrix
    """Shape (TPOT_TERMS, N)."""
    head_ms: Column
    """How long the prefill first in line has been going on, ms."""
    trees: Matrix
    """Shape (TREE_FEATURES, N), finite."""


def features(rows: Rows, prompt_tokens: float, prefill_rate: Column) -> Features:
    """Features of a request of `prompt_tokens` on N endpoints; `prefill_rate`, (N,), thousands of tokens per second."""
    n = len(rows)
    prompt = max(prompt_tokens, 1.0)
    new_k, queued_k = rows.new_tokens / 1e3, rows.queued_tokens / 1e3
    held = rows.decode_tokens + rows.queued_prompts + prompt
    known = rows.kv_tokens > 0
    overflow = np.where(known, np.maximum(0.0, held - rows.kv_tokens), 0.0)
    head_ms = np.where(rows.prefilling > 0, rows.head_s * 1e3, 0.0)
    ttft_terms = np.stack(
        (
            np.ones(n),
            new_k,
            new_k * (prompt / 1e3 - new_k / 2),
            queued_k,
            rows.queued_work / 1e6,
            rows.prefilling,
            rows.decode_tokens / 1e6 * (new_k + queued_k),
            rows.batch,
            overflow / 1e3,
        )
    )
    tpot_terms = np.stack(
        (np.ones(n), rows.batch, held / 1e6, prefill_rate, prefill_rate * held / 1e6, new_k + queued_k)
    )
    trees = np.zeros((len(TREE_FEATURES), n))
    trees[: len(LOADS)] = (
        np.log1p(rows.new_tokens),
        np.full(n, np.log1p(prompt)),
        rows.hit_tokens / prompt,
        np.log1p(rows.queued_tokens),
        rows.prefilling,
        rows.batch,
        rows.decode_tokens / 1e3,
        np.where(known, held / np.maximum(rows.kv_tokens, 1.0), 0.0),
        rows.kv_usage,
        np.log1p(head_ms),
        rows.waiting,
        rows.running,
        np.log1p(overflow),
        prefill_rate,
    )
    trees[len(LOADS) + rows.hardware, np.arange(n)] = 1.0
    return Features(ttft_terms, tpot_terms, head_ms, trees)
