"""From engine rows to costs in one call of machine code: features, base, trees, corrections, costs, trained range.

What it computes is what `features`, `estimate`, `judge` and `outside` say, in that order, LANES endpoints at a time so
that everything in between stays in the first-level cache. Each step is a loop of its own over LANES numbers of one
scratch array: that much LLVM turns into vector code.
"""

from typing import NamedTuple

import numpy as np

from picker.engines import bundle as arrays_as_one
from picker.engines.bundle import Bundle
from picker.engines.rows import Column, Rows
from picker.learning import (
    baseline,
    decision,
    elementary,
    exploration,
    model,
    pressure,
    quickscorer,
    reuse,
    steps,
    tree_code,
)
from picker.learning import features as known_features
from picker.learning import ready as model_arrays
from picker.learning.compiled import built_of, vector
from picker.learning.decision import COLUMNS, COST, Stakes
from picker.learning.exploration import preferred
from picker.learning.features import Matrix
from picker.learning.pressure import Pressure
from picker.learning.quickscorer import LANES, Float, add_scores
from picker.learning.ready import Ready, blank, ready, unbundled
from picker.learning.reuse import Reuse
from picker.learning.steps import (
    BATCH,
    CACHE,
    DECODING,
    HIT,
    KNOWN,
    NEW,
    OUT,
    PREFILLING,
    PROMPTS,
    QUEUED,
    RUNNING,
    SCRATCH,
    SINCE,
    USAGE,
    WAITING,
    WORK,
    Slots,
    costs,
    features,
    latencies,
    load,
    load_classes,
    load_slots,
    objectives,
    outside,
    terms,
)

PICKS = 3
NUMBER, SEEN, PICKED_AT = range(PICKS)
"""Of a slot: the number of its endpoint, finished picks, when it was last picked."""


class Places(NamedTuple):
    """What is kept per slot, and how likely cached blocks come back."""

    pressure: Matrix
    """`Pressure.columns`."""
    corrections: Float
    """Shape (2, capacity), log."""
    picks: Matrix
    """Shape (PICKS, capacity)."""
    chances: Column
    """`Reuse.chances`."""


def judge_rows(
    model: Ready, rows: Rows, places: Places, stakes: Stakes, now: float
) -> tuple[Matrix, Float, tuple[int, bool, bool, int, float]]:
    """Columns, (COLUMNS, N); what is known, (blocks, KNOWN, LANES); and what an `Opinion` says of the N >= 1 rows: the
    cheapest, whether it or most are outside the trained range, whether any would refuse the prompt, and which has been
    left out longest, for how many seconds. Raises IndexError for a slot or class without a place."""
    n = len(rows)
    columns = np.empty((COLUMNS, n))
    known = np.empty((-(-n // LANES), KNOWN, LANES), np.float32)
    weights = stakes.weights
    about = _judge(
        rows.slots,
        rows.hardware,
        rows.batch,
        rows.queued_tokens,
        rows.hit_tokens,
        rows.new_tokens,
        rows.running,
        rows.waiting,
        rows.kv_usage,
        rows.decode_tokens,
        rows.prefilling,
        rows.queued_work,
        rows.queued_prompts,
        rows.head_s,
        rows.kv_tokens,
        places.pressure,
        places.corrections,
        places.picks,
        places.chances,
        model.bundle,
        stakes.prompt_tokens,
        stakes.output_tokens,
        stakes.decode_weight,
        stakes.congestion,
        weights.ttft,
        weights.decode,
        weights.slo,
        stakes.slo_ttft_ms,
        stakes.slo_tpot_ms,
        stakes.spread,
        float(now),
        columns,
        known,
    )
    return columns, known, about


@vector
def _judge(
    slots: Slots,
    hardware: Slots,
    batch: Column,
    queued_tokens: Column,
    hit_tokens: Column,
    new_tokens: Column,
    running: Column,
    waiting: Column,
    kv_usage: Column,
    decode_tokens: Column,
    prefilling: Column,
    queued_work: Column,
    queued_prompts: Column,
    head_s: Column,
    kv_tokens: Column,
    pressure: Matrix,
    corrections: Float,
    picks: Matrix,
    chances: Column,
    bundle: Bundle,
    prompt: float,
    output: float,
    decode_weight: float,
    congestion: float,
    ttft_weight: float,
    answer_weight: float,
    slo_weight: float,
    slo_ttft_ms: float,
    slo_tpot_ms: float,
    spread: float,
    now: float,
    columns: Matrix,
    known: Float,
) -> tuple[int, bool, bool, int, float]:
    n, seen, model = len(slots), picks[SEEN], unbundled(bundle)
    s = np.empty(SCRATCH)
    said = np.empty((2, LANES), np.float32)
    classes = np.full(LANES, -1)
    best, least, strays, lost = -1, np.inf, 0, False
    for block in range(len(known)):
        at = block * LANES
        own = known[block].reshape(-1)
        load(batch, at, s, BATCH)
        load(queued_tokens, at, s, QUEUED)
        load(hit_tokens, at, s, HIT)
        load(new_tokens, at, s, NEW)
        load(running, at, s, RUNNING)
        load(waiting, at, s, WAITING)
        load(kv_usage, at, s, USAGE)
        load(decode_tokens, at, s, DECODING)
        load(prefilling, at, s, PREFILLING)
        load(queued_work, at, s, WORK)
        load(queued_prompts, at, s, PROMPTS)
        load(head_s, at, s, SINCE)
        load(kv_tokens, at, s, CACHE)
        load_slots(slots, at, now, pressure, corrections, seen, chances, s)
        load_classes(hardware, at, classes, model.ttft_base, model.tpot_base, s)
        terms(s, prompt)
        features(s, prompt, classes, own)
        said[:] = 0.0
        add_scores(model.ttft_splits, model.ttft_thresholds, model.ttft_masks, model.ttft_leaves, known, block, said[0])
        add_scores(model.tpot_splits, model.tpot_thresholds, model.tpot_masks, model.tpot_leaves, known, block, said[1])
        latencies(s, said)
        costs(s, prompt, output, decode_weight, congestion, ttft_weight, answer_weight)
        if slo_weight > 0.0:
            objectives(s, slo_weight, slo_ttft_ms, slo_tpot_ms, spread)
        stray = outside(own, model.lowest, model.highest)
        here = min(LANES, n - at)
        for column in range(COLUMNS):
            for lane in range(here):
                columns[column, at + lane] = s[OUT + column * LANES + lane]
        for lane in range(here):
            strays += stray[lane]
            cost = s[OUT + COST * LANES + lane]
            # The first that is no number, if there is one: numpy's argmin.
            if best < 0 or cost < least or (cost != cost and least == least):
                best, least, lost = at + lane, cost, stray[lane] > 0
    refusing, longest, left_out_s = False, 0, now - picks[PICKED_AT, slots[0]]
    for row in range(n):
        refusing |= 0.0 < kv_tokens[row] < prompt
        since = now - picks[PICKED_AT, slots[row]]
        longest, left_out_s = (row, since) if since > left_out_s else (longest, left_out_s)
    return best, lost or 2 * strays > n, refusing, longest, left_out_s


_PARTS = (
    arrays_as_one,
    model_arrays,
    decision,
    elementary,
    exploration,
    known_features,
    model,
    pressure,
    quickscorer,
    reuse,
    steps,
    tree_code,
)
built_of(_judge, *_PARTS)


def warm() -> None:
    """Compile, or load what an earlier process compiled: seconds that no pick should wait for."""
    zero = np.zeros(1)
    nobody = Places(Pressure(1).columns, np.zeros((2, 1), np.float32), np.zeros((PICKS, 1)), Reuse().chances)
    request = Stakes(prompt_tokens=1.0, output_tokens=1.0, decode_weight=0.0, congestion=0.0)
    first = zero.astype(np.intp)
    columns = {name: zero for name in Rows.__struct_fields__ if name not in ("slots", "hardware")}
    judge_rows(ready(blank()), Rows(slots=first, hardware=first, **columns), nobody, request, 0.0)
    preferred(zero, zero, 0, 1.0, 0.0, 0.0, np.zeros((2, 1)))
    reuse.warm()
    baseline.warm()
