"""The steps of the kernel: each a few loops over LANES endpoints, which LLVM turns into vector code.

What they compute is what `features`, `estimate`, `judge` and `outside` say. Numbers between steps lie in one flat
scratch array, a row of LANES for each: places in it are constants, so that LLVM knows which rows do not overlap.
"""

import numpy as np
from numpy.typing import NDArray

from picker.engines.rows import Column
from picker.engines.table import MAX_HARDWARE
from picker.learning.compiled import vector
from picker.learning.decision import (
    ALONE,
    COLUMNS,
    CORRECTION,
    COST,
    DECODE,
    EVICTION,
    OWN,
    PREFILL,
    STEP_CORRECTION,
    TPOT,
    TTFT,
    WAIT,
)
from picker.learning.elementary import exp, log, log1p
from picker.learning.exploration import HEAD_START, NEW_ROWS
from picker.learning.features import LOADS, TPOT_TERMS, TREE_FEATURES, TTFT_TERMS, Matrix
from picker.learning.model import LEAST_MS, TPOT_BOUND, TTFT_BOUND
from picker.learning.pressure import RATE, RATE_AT, RATE_S, TAIL_AT
from picker.learning.quickscorer import LANES, Bits, Float
from picker.learning.reuse import EDGES

Slots = NDArray[np.intp]

TREES = len(TREE_FEATURES)
TTFT_AT, TPOT_AT = TREES, TREES + len(TTFT_TERMS)
HEAD_AT = TPOT_AT + len(TPOT_TERMS)
KNOWN = HEAD_AT + 1
"""Rows of what is known: the trees' features, terms of TTFT and of TPOT, the head's ms."""

_TTFT, _TPOT = len(TTFT_TERMS), len(TPOT_TERMS)
_LOADS = len(LOADS)
# Places of rows in what is known, in the order of LOADS,
_LOG_NEW, _LOG_PROMPT, _HIT_SHARE, _LOG_QUEUED, _IN_PREFILL, _REQUESTS, _CONTEXT_K = range(0, 7 * LANES, LANES)
_KV_FILL, _KV_USAGE, _LOG_HEAD, _WAITS, _RUNS, _LOG_OVERFLOW, _COMING = range(7 * LANES, 14 * LANES, LANES)
# and in the scratch array: what goes in,
BATCH, QUEUED, HIT, NEW, RUNNING, WAITING, USAGE, DECODING = range(0, 8 * LANES, LANES)
PREFILLING, WORK, PROMPTS, SINCE, CACHE = range(8 * LANES, 13 * LANES, LANES)
_RATE, _AGE, _EDGE, _CHANCE, _SLOW, _STEP_SLOW = range(13 * LANES, 19 * LANES, LANES)
# what is between: terms in the order of TTFT_TERMS and TPOT_TERMS, and their coefficients,
_HELD, _OVERFLOW, _HEAD = range(19 * LANES, 22 * LANES, LANES)
_TERMS = 22 * LANES
_STEP_TERMS = _TERMS + _TTFT * LANES
_BASE = _STEP_TERMS + _TPOT * LANES
_STEP_BASE = _BASE + _TTFT * LANES
_ONE, _NEW_K, _WORK_M, _QUEUED_K, _QUEUED_WORK_M = range(_TERMS, _TERMS + 5 * LANES, LANES)
_PREFILLS, _INTERLEAVED, _BESIDE, _OVERFLOW_K = range(_TERMS + 5 * LANES, _STEP_TERMS, LANES)
_STEP_ONE, _STEP_BATCH, _CONTEXT_M, _STEP_RATE, _RATE_X_CONTEXT, _PREFILL_K = range(_STEP_TERMS, _BASE, LANES)
_PER_NEW_K, _PER_WORK_M = _BASE + LANES, _BASE + 2 * LANES
_PER_REQUEST, _PER_CONTEXT_M = _STEP_BASE + LANES, _STEP_BASE + 2 * LANES
# and the columns that come out.
OUT = _STEP_BASE + _TPOT * LANES
_COST, _OWN, _DECODE = OUT + COST * LANES, OUT + OWN * LANES, OUT + DECODE * LANES
_TTFT_MS, _TPOT_MS, _EVICTION = OUT + TTFT * LANES, OUT + TPOT * LANES, OUT + EVICTION * LANES
_PREFILL, _WAIT, _ALONE = OUT + PREFILL * LANES, OUT + WAIT * LANES, OUT + ALONE * LANES
_CORRECTION, _STEP_CORRECTION = OUT + CORRECTION * LANES, OUT + STEP_CORRECTION * LANES
SCRATCH = OUT + COLUMNS * LANES

# Edges of ages at reuse are even in the logarithm.
_YOUNGEST, _PER_LOG = float(EDGES[0]), (len(EDGES) - 1) / float(np.log(EDGES[-1] / EDGES[0]))


@vector
def load(column: Column, at: int, s: Column, place: int) -> None:
    """LANES numbers from `at` on; beyond the end, the last one again."""
    here = min(LANES, len(column) - at)
    for lane in range(here):
        s[place + lane] = column[at + lane]
    for lane in range(here, LANES):
        s[place + lane] = column[at + here - 1]


@vector
def load_slots(
    slots: Slots,
    at: int,
    now: float,
    pressure: Matrix,
    corrections: Float,
    seen: Column,
    chances: Column,
    s: Column,
) -> None:
    """Prefill rate, chance of being asked for again, and slowness of each endpoint."""
    for lane in range(LANES):
        slot = slots[min(at + lane, len(slots) - 1)]
        if not 0 <= slot < min(pressure.shape[1], corrections.shape[1], len(seen)):
            raise IndexError("a slot without a place")
        s[_RATE + lane] = pressure[RATE, slot]
        s[_AGE + lane] = (pressure[RATE_AT, slot] - now) / RATE_S
        s[_CORRECTION + lane] = corrections[0, slot] + (HEAD_START if seen[slot] < NEW_ROWS else 0.0)
        s[_STEP_CORRECTION + lane] = corrections[1, slot]
        s[_EDGE + lane] = now - pressure[TAIL_AT, slot]
    for lane in range(LANES):
        s[_RATE + lane] *= exp(s[_AGE + lane])
        s[_SLOW + lane] = exp(s[_CORRECTION + lane])
        s[_STEP_SLOW + lane] = exp(s[_STEP_CORRECTION + lane])
    most = float(len(chances) - 1)
    for lane in range(LANES):
        age = s[_EDGE + lane]
        # While there is room the oldest block is from never.
        s[_CHANCE + lane] = 1.0 if age > -np.inf else 0.0
        s[_EDGE + lane] = min(np.ceil(log(max(age, _YOUNGEST) / _YOUNGEST) * _PER_LOG), most)
    for lane in range(LANES):
        s[_CHANCE + lane] *= min(1.0, chances[int(s[_EDGE + lane])])


@vector
def load_classes(hardware: Slots, at: int, classes: Slots, ttft_base: Matrix, tpot_base: Matrix, s: Column) -> None:
    """Coefficients of each endpoint, unless the block before was of the same classes."""
    alike = True
    for lane in range(LANES):
        kind = hardware[min(at + lane, len(hardware) - 1)]
        if not 0 <= kind < MAX_HARDWARE:
            raise IndexError("a class of hardware beyond the last")
        alike &= classes[lane] == kind
        classes[lane] = kind
    if not alike:
        for term in range(_TTFT):
            for lane in range(LANES):
                s[_BASE + term * LANES + lane] = ttft_base[term, classes[lane]]
        for term in range(_TPOT):
            for lane in range(LANES):
                s[_STEP_BASE + term * LANES + lane] = tpot_base[term, classes[lane]]


@vector
def terms(s: Column, prompt: float) -> None:
    """`features`, the terms."""
    for i in range(LANES):
        new_k, queued_k = s[NEW + i] / 1e3, s[QUEUED + i] / 1e3
        held = s[DECODING + i] + s[PROMPTS + i] + prompt
        over = held - s[CACHE + i]
        overflow = over if s[CACHE + i] > 0.0 and over > 0.0 else 0.0
        s[_HELD + i], s[_OVERFLOW + i] = held, overflow
        s[_HEAD + i] = s[SINCE + i] * 1e3 if s[PREFILLING + i] > 0.0 else 0.0
        s[_ONE + i] = 1.0
        s[_NEW_K + i] = new_k
        s[_WORK_M + i] = new_k * (prompt / 1e3 - new_k / 2)
        s[_QUEUED_K + i] = queued_k
        s[_QUEUED_WORK_M + i] = s[WORK + i] / 1e6
        s[_PREFILLS + i] = s[PREFILLING + i]
        s[_INTERLEAVED + i] = s[DECODING + i] / 1e6 * (new_k + queued_k)
        s[_BESIDE + i] = s[BATCH + i]
        s[_OVERFLOW_K + i] = overflow / 1e3
        s[_STEP_ONE + i] = 1.0
        s[_STEP_BATCH + i] = s[BATCH + i]
        s[_CONTEXT_M + i] = held / 1e6
        s[_STEP_RATE + i] = s[_RATE + i]
        s[_RATE_X_CONTEXT + i] = s[_RATE + i] * held / 1e6
        s[_PREFILL_K + i] = new_k + queued_k


@vector
def features(s: Column, prompt: float, classes: Slots, own: Float) -> None:
    """`features`, what the trees see, and all of it as a row of experience will hold it."""
    log_prompt = log1p(prompt)
    for i in range(LANES):
        own[_LOG_NEW + i] = log1p(s[NEW + i])
    for i in range(LANES):
        own[_LOG_QUEUED + i] = log1p(s[QUEUED + i])
    for i in range(LANES):
        own[_LOG_HEAD + i] = log1p(s[_HEAD + i])
    for i in range(LANES):
        own[_LOG_OVERFLOW + i] = log1p(s[_OVERFLOW + i])
    for i in range(LANES):
        own[_LOG_PROMPT + i] = log_prompt
        own[_HIT_SHARE + i] = s[HIT + i] / prompt
        own[_IN_PREFILL + i] = s[PREFILLING + i]
        own[_REQUESTS + i] = s[BATCH + i]
        own[_CONTEXT_K + i] = s[DECODING + i] / 1e3
        own[_KV_FILL + i] = s[_HELD + i] / max(s[CACHE + i], 1.0) if s[CACHE + i] > 0.0 else 0.0
        own[_KV_USAGE + i] = s[USAGE + i]
        own[_WAITS + i] = s[WAITING + i]
        own[_RUNS + i] = s[RUNNING + i]
        own[_COMING + i] = s[_RATE + i]
        own[HEAD_AT * LANES + i] = s[_HEAD + i]
    for kind in range(MAX_HARDWARE):
        for i in range(LANES):
            own[(_LOADS + kind) * LANES + i] = 1.0 if classes[i] == kind else 0.0
    for term in range(_TTFT + _TPOT):
        for i in range(LANES):
            own[(TTFT_AT + term) * LANES + i] = s[_TERMS + term * LANES + i]


@vector
def latencies(s: Column, said: Float) -> None:
    """`estimate`, and the corrections; the line as the guard wants it."""
    for i in range(LANES):
        own = s[_BASE + i] + s[_PER_NEW_K + i] * s[_NEW_K + i] + s[_PER_WORK_M + i] * s[_WORK_M + i]
        line = own
        for term in range(3, _TTFT):
            line += s[_BASE + term * LANES + i] * s[_TERMS + term * LANES + i]
        step = s[_STEP_BASE + i]
        for term in range(1, _TPOT):
            step += s[_STEP_BASE + term * LANES + i] * s[_STEP_TERMS + term * LANES + i]
        alone = max(own, LEAST_MS)
        whole = max(max(own, line - s[_HEAD + i]), LEAST_MS)
        s[_ALONE + i] = alone
        s[_WAIT + i] = max(0.0, whole - alone)
        s[_TTFT_MS + i] = whole * s[_SLOW + i]
        s[_TPOT_MS + i] = max(step, LEAST_MS) * s[_STEP_SLOW + i]
    for i in range(LANES):
        s[_TTFT_MS + i] *= exp(min(max(np.float64(said[0, i]), -TTFT_BOUND), TTFT_BOUND))
        s[_TPOT_MS + i] *= exp(min(max(np.float64(said[1, i]), -TPOT_BOUND), TPOT_BOUND))


@vector
def costs(
    s: Column,
    prompt: float,
    output: float,
    decode_weight: float,
    congestion: float,
    ttft_weight: float,
    answer_weight: float,
) -> None:
    """`judge`, but for objectives."""
    context_m = (prompt + output / 2) / 1e6
    for i in range(LANES):
        ttft, tpot, slow = s[_TTFT_MS + i], s[_TPOT_MS + i], s[_SLOW + i]
        prefill = slow * (s[_PER_NEW_K + i] * s[_NEW_K + i] + s[_PER_WORK_M + i] * s[_WORK_M + i])
        step = s[_STEP_SLOW + i] * (s[_PER_REQUEST + i] + s[_PER_CONTEXT_M + i] * context_m)
        decoding = max(0.0, s[BATCH + i] - s[PREFILLING + i])
        decode = output * tpot + decoding * (output / 2 * step + prefill)
        per_token = slow * (s[_PER_NEW_K + i] / 1e3 + s[_PER_WORK_M + i] * prompt / 2 / 1e6)
        eviction = (s[NEW + i] + output) * per_token * s[_CHANCE + i]
        own = ttft_weight * ttft + answer_weight * output * tpot
        s[_OWN + i], s[_DECODE + i], s[_EVICTION + i] = own, decode, eviction
        s[_PREFILL + i] = prefill
        cost = own + decode_weight * decode + congestion * eviction
        s[_COST + i] = np.inf if 0.0 < s[CACHE + i] < prompt else cost


@vector
def objectives(s: Column, weight: float, slo_ttft_ms: float, slo_tpot_ms: float, spread: float) -> None:
    """`judge`, the chance of missing an objective."""
    wide = max(spread, 1e-3)
    ttft_most = np.log(max(slo_ttft_ms, LEAST_MS)) if slo_ttft_ms < np.inf else np.inf
    tpot_most = np.log(max(slo_tpot_ms, LEAST_MS)) if slo_tpot_ms < np.inf else np.inf
    for i in range(LANES):
        first = (ttft_most - log(max(s[_TTFT_MS + i], LEAST_MS))) / wide
        later = (tpot_most - log(max(s[_TPOT_MS + i], LEAST_MS))) / wide
        kept = 1.0 / (1.0 + exp(-min(max(1.702 * first, -60.0), 60.0)))
        kept /= 1.0 + exp(-min(max(1.702 * later, -60.0), 60.0))
        s[_OWN + i] += weight * (1.0 - kept)
        s[_COST + i] += weight * (1.0 - kept)


@vector
def outside(own: Float, lowest: Float, highest: Float) -> Bits:
    """1 for each lane with a feature beyond the range it was trained in."""
    strays = np.zeros(LANES, np.uint32)
    for feature in range(TREES):
        least, most = lowest[feature], highest[feature]
        for i in range(LANES):
            value = own[feature * LANES + i]
            strays[i] |= np.uint32(0) if least <= value <= most else np.uint32(1)
    return strays
