"""Everything a policy may know of some endpoints, merged for one pick: a pure function of the tables."""

import numpy as np

from picker.engines.kernels import bare
from picker.engines.ledger import HEAD_SINCE, IN_FLIGHT, Ledger
from picker.engines.rows import Column, Rows
from picker.engines.table import (
    BLOCK_SIZE,
    FOREIGN,
    FOREIGN_HALF_LIFE_S,
    HARDWARE,
    KV_USAGE,
    NUM_BLOCKS,
    RUNNING,
    SCRAPED_AT,
    WAITING,
    Columns,
    EngineTable,
)
from picker.pool.view import Slots

_BATCH, _NEW, _AGE, _HEAD, _CACHE, _RUNNING, _WAITING, _USAGE, _MERGED = range(9)


def snapshot(
    table: EngineTable, ledger: Ledger, slots: Slots, hit_tokens: Column, prompt_tokens: float, now: float
) -> Rows:
    """Rows for N endpoints: `slots` and `hit_tokens` have shape (N,), tokens; `now` is the clock of both tables.

    Batch is what this picker's workers have in flight there plus what others put there, which fades with the age of the
    last good scrape.
    New tokens are the prompt less the hit, but an engine never reuses the last token: at most the full blocks of the
    first n-1 tokens count as hit (facts measured on vLLM; LMetric's P, arXiv 2603.15202).
    Raises IndexError for a slot that either table has no room for.
    """
    ours = ledger.seen(slots)
    merged, hardware = np.empty((_MERGED, len(slots))), np.empty(len(slots), np.intp)
    _merge(table.columns, ours, slots, hit_tokens, max(prompt_tokens, 1.0), now, merged, hardware)
    batch, new_tokens, age_s, head_s, kv_tokens, running, waiting, kv_usage = merged
    in_flight, prefilling, queued_tokens, decode_tokens, _, _, queued_work, queued_prompts, _ = ours
    return Rows(
        slots=slots,
        batch=batch,
        queued_tokens=queued_tokens,
        hit_tokens=hit_tokens,
        new_tokens=new_tokens,
        running=running,
        waiting=waiting,
        kv_usage=kv_usage,
        in_flight=in_flight,
        decode_tokens=decode_tokens,
        age_s=age_s,
        prefilling=prefilling,
        queued_work=queued_work,
        queued_prompts=queued_prompts,
        head_s=head_s,
        hardware=hardware,
        kv_tokens=kv_tokens,
    )


@bare
def _merge(
    table: Columns,
    ours: Columns,
    slots: Slots,
    hit_tokens: Column,
    prompt: float,
    now: float,
    merged: Columns,
    hardware: Slots,
) -> None:
    """`table`: (columns, capacity), of any slots; `ours`, (9, N), and all else of these."""
    for i in range(len(slots)):
        slot = slots[i]
        if not 0 <= slot < table.shape[1]:
            raise IndexError("a slot that there is no room for")
        age, foreign = now - table[SCRAPED_AT, slot], table[FOREIGN, slot]
        others = foreign * 2.0 ** (-age / FOREIGN_HALF_LIFE_S) if foreign > 0 else 0.0
        block = table[BLOCK_SIZE, slot]
        merged[_BATCH, i] = ours[IN_FLIGHT, i] + others
        merged[_NEW, i] = prompt - min(hit_tokens[i], np.floor((prompt - 1.0) / block) * block)
        merged[_AGE, i] = age
        merged[_HEAD, i] = max(0.0, now - ours[HEAD_SINCE, i])
        merged[_CACHE, i] = table[NUM_BLOCKS, slot] * block
        merged[_RUNNING, i] = table[RUNNING, slot]
        merged[_WAITING, i] = table[WAITING, slot]
        merged[_USAGE, i] = table[KV_USAGE, slot]
        hardware[i] = np.intp(table[HARDWARE, slot])


def warm() -> None:
    """Compile, or load what an earlier process compiled."""
    first = np.zeros(1, np.intp)
    snapshot(EngineTable(1), Ledger(1), first, np.zeros(1), 1.0, 0.0)
