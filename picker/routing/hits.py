"""How many prompt tokens each endpoint already holds: from KV events, from own picks, and from what answers said."""

from typing import Protocol

import numpy as np

from picker.engines.rows import Column
from picker.pool.view import Slots
from picker.requests.request import Chain, Request

CALIBRATION_WEIGHT_TOKENS = 50_000.0
"""Predicted tokens after which older evidence of text-mode calibration has lost 63 % of its weight."""

RECENT_STRIDE = 8
"""Every so many blocks of our latest picks are remembered until their engine announces them: a burst of long prompts
sees itself to within that many blocks, and a prompt of 100,000 tokens does not hold up the picks behind it."""


class EventIndex(Protocol):
    """Blocks that engines themselves announced (KV events)."""

    def matched(self, chain: Chain, slots: Slots) -> Column: ...
    def clear(self, slot: int) -> None: ...


class PickIndex(Protocol):
    """Blocks that our own picks must have put there."""

    def touch(self, slot: int, chain: Chain, now: float) -> None: ...
    def matched(self, chain: Chain, slots: Slots, now: float) -> Column: ...
    def clear(self, slot: int) -> None: ...


class Calibration:
    """Cached tokens that answers report, against those that the text index predicted: a ratio in [0.05, 1.25].

    Engines evict what we cannot see and tokenise where we count bytes; the ratio carries both. It starts at 1 and is
    an exponentially weighted quotient, so that no single answer, true or lying, moves it far.
    """

    def __init__(self) -> None:
        self._predicted = CALIBRATION_WEIGHT_TOKENS / 10
        self._actual = CALIBRATION_WEIGHT_TOKENS / 10

    @property
    def ratio(self) -> float:
        return min(1.25, max(0.05, self._actual / self._predicted))

    def observe(self, predicted_raw: float, actual: float, prompt: float) -> None:
        """`predicted_raw` is the uncalibrated prediction in tokens; a cold prompt teaches nothing about the ratio."""
        if predicted_raw <= 0 or prompt <= 0:
            return
        actual = min(max(0.0, actual), prompt)
        weight = min(predicted_raw, CALIBRATION_WEIGHT_TOKENS / 10)
        keep = float(np.exp(-weight / CALIBRATION_WEIGHT_TOKENS))
        self._predicted = self._predicted * keep + weight
        self._actual = self._actual * keep + weight * (actual / predicted_raw)


class PrefixHits:
    """Hit tokens per endpoint for one request.

    Exact requests (chains over token ids) are looked up in the event index where the endpoint publishes KV events,
    with our own very recent picks on top, since their blocks are announced only once computed. Endpoints without
    events, and all text-mode requests, are answered from our own picks.
    """

    def __init__(self, events: EventIndex, picks: PickIndex, recent: PickIndex) -> None:
        self._events = events
        self._picks = picks
        self._recent = recent
        self._publishes = np.zeros(64, dtype=np.bool_)
        self.calibration = Calibration()

    def publishes(self, slot: int, yes: bool) -> None:
        """Say whether this slot's engine publishes KV events."""
        if slot >= len(self._publishes):
            self._publishes = np.pad(
                self._publishes, (0, max(slot + 1, 2 * len(self._publishes)) - len(self._publishes))
            )
        self._publishes[slot] = yes

    def clear(self, slot: int) -> None:
        """Forget everything about this slot: its endpoint is gone."""
        self.publishes(slot, False)
        for index in (self._events, self._picks, self._recent):
            index.clear(slot)

    def tokens(self, request: Request, slots: Slots, now: float) -> Column:
        """Predicted hit in tokens, shape (N,), not above the prompt."""
        chain = request.chain
        if not len(chain):
            return np.zeros(len(slots))
        if not request.exact:
            blocks = self._picks.matched(chain, slots, now) * self.calibration.ratio
        else:
            publishes = self._publishes[slots]
            recent = self._recent.matched(chain[RECENT_STRIDE - 1 :: RECENT_STRIDE], slots, now) * RECENT_STRIDE
            blocks = np.maximum(self._events.matched(chain, slots), recent)
            if not publishes.all():
                blocks = np.where(publishes, blocks, self._picks.matched(chain, slots, now))
        tokens: Column = np.minimum(blocks * request.block_tokens, request.prompt_tokens)
        return tokens

    def placed(self, request: Request, slot: int, now: float) -> None:
        """The request went to `slot`: its prompt's blocks will be there."""
        if not len(request.chain):
            return
        if request.exact and self._publishes[slot]:
            self._recent.touch(slot, request.chain[RECENT_STRIDE - 1 :: RECENT_STRIDE], now)
        else:
            self._picks.touch(slot, request.chain, now)

    def answered(self, request: Request, predicted: float, cached_tokens: int, prompt_tokens: int) -> None:
        """An answer told its cached tokens: teach the text-mode calibration."""
        if not request.exact:
            self.calibration.observe(predicted / self.calibration.ratio, cached_tokens, prompt_tokens)
