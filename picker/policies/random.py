"""Every endpoint costs the same.

Equal costs are drawn at random by whoever picks, so this is a uniform draw: the floor that any policy must beat.

**Formula.** cost = 0

**Limits.** Blind to load and to prefixes. Spread of n picks over N endpoints has the variance of a draw: at 500 picks
over 4 endpoints the fullest has about 14 more than its share.

**Source.** AIBrix `random`, llm-d `random-picker`.

    >>> from picker.policies.example import example_request, example_rows
    >>> request = example_request(prompt_tokens=1000)
    >>> Random().score(request, example_rows(request, batch=[9, 0, 3]), now=0.0).cost
    array([0., 0., 0.])
"""

import numpy as np

from picker.engines.rows import Rows
from picker.policies.policy import Scores
from picker.requests.request import Request


class Random:
    """Ties only."""

    name = "random"

    def score(self, request: Request, rows: Rows, now: float) -> Scores:
        return Scores(np.zeros(len(rows)))

    def picked(self, request: Request, rows: Rows, row: int, now: float) -> None:
        pass
