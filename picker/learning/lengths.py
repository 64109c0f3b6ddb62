"""How long an answer will be, as far as a router can know: from the answers before it.

Prompts that begin alike (the same system prompt, the same session) tend to be answered alike, so lengths are learned
per prefix group within a model, per model, and over all; the narrowest that has seen enough speaks. The client's own
max_tokens is the cap.
"""

import math
from collections import OrderedDict

from river.stats import EWMean

from picker.requests.request import Request

GROUP_BLOCKS = 32
"""A prefix group is what shares so many leading blocks."""
ENOUGH = 8
MOST_KEYS = 4096
FIRST_GUESS = 200.0
_RATE = 0.05


class _Lengths:
    __slots__ = ("mean", "seen")

    def __init__(self) -> None:
        self.mean, self.seen = EWMean(_RATE), 0

    def learn(self, tokens: float) -> None:
        self.mean.update(tokens)
        self.seen += 1


class OutputLengths:
    """Bounded: the keys least recently learned from go first."""

    def __init__(self) -> None:
        self._by_key: OrderedDict[tuple[str, int] | str, _Lengths] = OrderedDict()
        self._all = _Lengths()

    def mean(self, request: Request) -> float:
        """What an answer to this request will come to, in tokens, as an expectation."""
        known = self._known(request)
        return min(FIRST_GUESS if known is None else float(known.mean.get()), _cap(request))

    def learn(self, request: Request, output_tokens: float) -> None:
        """An answer came to so many tokens."""
        self._all.learn(output_tokens)
        for key in {_group(request): None, request.model: None}:
            known = self._by_key.pop(key, None) or _Lengths()
            known.learn(output_tokens)
            self._by_key[key] = known
        while len(self._by_key) > MOST_KEYS:
            self._by_key.popitem(last=False)

    def _known(self, request: Request) -> _Lengths | None:
        known = self._by_key.get(_group(request))
        if known is None or known.seen < ENOUGH:
            known = self._by_key.get(request.model)
        if known is None or known.seen < ENOUGH:
            known = self._all if self._all.seen else None
        return known


def _group(request: Request) -> tuple[str, int] | str:
    """Its prefix group, or its model where it has no block."""
    chain = request.chain
    return (request.model, chain.item(min(len(chain), GROUP_BLOCKS) - 1)) if len(chain) else request.model


def _cap(request: Request) -> float:
    return float(request.max_tokens) if request.max_tokens else math.inf
