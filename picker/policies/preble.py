"""Exploit a long prefix match; without one, even out the work of the last minutes.

**Formula.** If the best match is over half of the request's prefix blocks, endpoints are ranked by match (more is
better), ties by batch. Otherwise cost = window + missed prefill, in milliseconds of engine time, where

- window = sum over this picker's picks of the last 3 minutes on the endpoint of
  new tokens x prefillMsPerToken + 45 x decodeMsPerToken;
- missed prefill = new tokens of this request x prefillMsPerToken.

**Parameters.**

- `prefillMsPerToken` (0.108): engine time per new prompt token.
- `decodeMsPerToken` (22.0): engine time per output token.
- `decodeTokens` (45.0): output length assumed for every request.

**Limits.** The defaults fit Mistral-7B on an A6000; set yours. What was picked counts for the whole window, whether it
has ended or not; time is kept in slices of 10 s, so a pick leaves up to 10 s early. Preble's third term, the cost of
what the request evicts, needs the engines' eviction order and is left out, and so is its splitting of hot prefixes. An
endpoint that takes over the slot of a removed one inherits its window, for 3 minutes at most.

**Source.** Preble (arXiv 2407.00023); constants as in AIBrix `prefix-cache-preble`.

    >>> from picker.policies.example import example_request, example_rows
    >>> request, policy = example_request(prompt_tokens=1600), Preble(Params())
    >>> rows = example_rows(request, hit_tokens=[0, 160])
    >>> policy.picked(request, rows, row=1, now=0.0)
    >>> policy.score(request, rows, now=1.0).cost.round(2)
    array([ 172.8 , 1301.04])
    >>> rows = example_rows(request, hit_tokens=[1600, 1600, 0], batch=[3, 1, 0])
    >>> policy.score(request, rows, now=1.0).cost
    array([1., 0., 2.])
"""

from typing import Annotated

import msgspec
import numpy as np

from picker.engines.rows import Column, Rows
from picker.policies.policy import Scores
from picker.policies.prefix import matched_share
from picker.policies.ranking import lexicographic
from picker.requests.request import Request

_EXPLOIT = 0.5
_SLICES = 18
_SLICE_S = 10.0

Cost = Annotated[float, msgspec.Meta(ge=0, le=1e6)]


class Params(msgspec.Struct, frozen=True, rename="camel"):
    prefill_ms_per_token: Cost = 0.108
    decode_ms_per_token: Cost = 22.0
    decode_tokens: Cost = 45.0


class Preble:
    """A window of work per endpoint: 18 slices of 10 s by slots, one float each."""

    name = "preble"

    def __init__(self, params: Params) -> None:
        self._prefill_ms = params.prefill_ms_per_token
        self._decode_ms = params.decode_tokens * params.decode_ms_per_token
        self._window = SlicedWindow()

    def score(self, request: Request, rows: Rows, now: float) -> Scores:
        match = matched_share(request, rows)
        if match.max(initial=0.0) > _EXPLOIT:
            return Scores(lexicographic(-match, rows.batch), {"match": match, "batch": rows.batch})
        window = self._window.sums(rows.slots, now)
        missed = rows.new_tokens * self._prefill_ms
        return Scores(window + missed, {"match": match, "window_ms": window, "missed_prefill_ms": missed})

    def picked(self, request: Request, rows: Rows, row: int, now: float) -> None:
        cost = float(rows.new_tokens[row]) * self._prefill_ms + self._decode_ms
        self._window.add(int(rows.slots[row]), cost, now)


class SlicedWindow:
    """Sums per slot over the last 18 slices of 10 s; memory is 152 bytes per slot."""

    def __init__(self) -> None:
        self._slices = np.zeros((_SLICES, 16))
        self._total = np.zeros(16)
        self._newest = 0

    def add(self, slot: int, amount: float, now: float) -> None:
        """Count `amount` for `slot` at `now`, seconds that never run backwards."""
        if slot >= len(self._total):
            wider = np.zeros((_SLICES, 2 * slot))
            wider[:, : len(self._total)] = self._slices
            self._slices, self._total = wider, wider.sum(axis=0)
        current = int(now // _SLICE_S)
        if current > self._newest:
            self._slices[_rows_between(self._newest, current)] = 0.0
            self._total = self._slices.sum(axis=0)
            self._newest = current
        self._slices[current % _SLICES, slot] += amount
        self._total[slot] += amount

    def sums(self, slots: np.typing.NDArray[np.intp], now: float) -> Column:
        """The sums of these slots at `now`, shape (N,). Changes nothing."""
        known = slots < len(self._total)
        inside = np.where(known, slots, 0)
        current = int(now // _SLICE_S)
        if current <= self._newest:
            sums: Column = self._total[inside]
        else:
            expired = self._slices[_rows_between(self._newest, current)].sum(axis=0)
            sums = np.maximum(self._total - expired, 0.0)[inside]
        return np.where(known, sums, 0.0)


def _rows_between(newest: int, current: int) -> list[int]:
    """Ring rows of the slices that end when `current` begins: those after `newest`, at most all."""
    first = max(newest + 1, current - _SLICES + 1)
    return [index % _SLICES for index in range(first, current + 1)]
