"""Everything a policy may know of some endpoints, merged for one pick: a pure function of the tables."""

import numpy as np

from picker.engines import ledger as own
from picker.engines import table as scraped
from picker.engines.ledger import Ledger
from picker.engines.rows import Column, Rows
from picker.engines.table import FOREIGN_HALF_LIFE_S, EngineTable
from picker.pool.view import Slots


def snapshot(
    table: EngineTable, ledger: Ledger, slots: Slots, hit_tokens: Column, prompt_tokens: float, now: float
) -> Rows:
    """Rows for N endpoints: `slots` and `hit_tokens` have shape (N,), tokens; `now` is the clock of both tables.

    Batch is what this picker's workers have in flight there plus what others put there, which fades with the age of the
    last good scrape.
    New tokens are the prompt less the hit, but an engine never reuses the last token: at most the full blocks of the
    first n-1 tokens count as hit (facts measured on vLLM; LMetric's P, arXiv 2603.15202).
    """
    seen = table.columns.take(slots, axis=1)
    ours = ledger.seen(slots)
    age = now - seen[scraped.SCRAPED_AT]
    others = seen[scraped.FOREIGN] * np.exp2(age * (-1.0 / FOREIGN_HALF_LIFE_S))
    prompt = max(prompt_tokens, 1.0)
    block = seen[scraped.BLOCK_SIZE]
    reusable = np.floor((prompt - 1.0) / block) * block
    return Rows(
        slots=slots,
        batch=ours[own.IN_FLIGHT] + others,
        queued_tokens=ours[own.QUEUED_TOKENS],
        hit_tokens=hit_tokens,
        new_tokens=prompt - np.minimum(hit_tokens, reusable),
        running=seen[scraped.RUNNING],
        waiting=seen[scraped.WAITING],
        kv_usage=seen[scraped.KV_USAGE],
        in_flight=ours[own.IN_FLIGHT],
        decode_tokens=ours[own.DECODE_TOKENS],
        age_s=age,
        prefilling=ours[own.PREFILLING],
        queued_work=ours[own.QUEUED_WORK],
        queued_prompts=ours[own.QUEUED_PROMPTS],
        head_s=np.maximum(0.0, now - ours[own.HEAD_SINCE]),
        hardware=seen[scraped.HARDWARE].astype(np.intp),
        kv_tokens=seen[scraped.NUM_BLOCKS] * block,
    )
