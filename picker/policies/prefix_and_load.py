"""The best prefix holder among endpoints that are not overloaded.

**Formula.** If max(batch) - min(batch) > 8 the pool is imbalanced: cost = batch. Otherwise endpoints with
batch <= mean + 1 standard deviation come first, sorted by prefix hit (more is better) and then by batch; the others
follow in the same order. Costs are ranks of that order. Without any hit this is least-request.

**Parameters.**

- `imbalance` (8): the spread of batches, in requests, past which prefixes are ignored.
- `deviations` (1.0): how many standard deviations above the mean batch still count as not overloaded.

**Limits.** Both thresholds are in requests, whatever these weigh; the best values differ by workload. A shared prefix
stays on its first holder until the imbalance rule breaks in.

**Source.** AIBrix `prefix-cache`, its code's defaults; Lodestar's fallback and main baseline `prefix_cache_1`
(arXiv 2606.00946).

    >>> from picker.policies.example import example_request, example_rows
    >>> request, policy = example_request(prompt_tokens=1000), PrefixAndLoad(Params())
    >>> policy.score(request, example_rows(request, batch=[5, 2, 3], hit_tokens=[0, 0, 800]), now=0.0).cost
    array([2., 1., 0.])
    >>> policy.score(request, example_rows(request, batch=[5, 2, 11], hit_tokens=[0, 0, 800]), now=0.0).cost
    array([ 5.,  2., 11.])
"""

from typing import Annotated

import msgspec
import numpy as np

from picker.engines.rows import Rows
from picker.policies.policy import Scores
from picker.policies.ranking import lexicographic
from picker.requests.request import Request


class Params(msgspec.Struct, frozen=True, rename="camel"):
    imbalance: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 8
    deviations: Annotated[float, msgspec.Meta(ge=0)] = 1.0


class PrefixAndLoad:
    """AIBrix's rule."""

    name = "prefix-and-load"

    def __init__(self, params: Params) -> None:
        self._params = params

    def score(self, request: Request, rows: Rows, now: float) -> Scores:
        batch = rows.batch
        reasons = {"hit_tokens": rows.hit_tokens, "batch": batch}
        if not len(rows) or batch.max() - batch.min() > self._params.imbalance:
            return Scores(batch, reasons)
        overloaded = (batch > batch.mean() + self._params.deviations * batch.std()).astype(np.float64)
        cost = lexicographic(overloaded, -rows.hit_tokens, batch)
        return Scores(cost, {**reasons, "overloaded": overloaded})

    def picked(self, request: Request, rows: Rows, row: int, now: float) -> None:
        pass
