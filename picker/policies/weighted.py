"""A weighted sum of three scores between 0 and 1; the highest sum wins.

**Formula.** cost = -(queueWeight x queue + kvWeight x kv + prefixWeight x prefix), where

- queue = (max waiting - waiting) / (max waiting - min waiting) over the candidates, 1 where all are equal;
- kv = 1 - KV usage;
- prefix = matched / total prefix blocks of the request.

**Parameters.**

- `queueWeight` (2.0): of the queue score.
- `kvWeight` (2.0): of the free-KV score.
- `prefixWeight` (3.0): of the prefix score.

**Limits.** The good weights differ by workload and hour. `waiting` and KV usage are scraped, so a burst between two
scrapes sees itself only through the prefix score. The queue score stretches a difference of one request to the full
range.

**Source.** llm-d-router's default profile: queue-scorer 2, kv-cache-utilization-scorer 2, prefix-cache-scorer 3,
max-score-picker, as one policy. A profile in a configuration file is read as `composed`.

    >>> from picker.policies.example import example_request, example_rows
    >>> request = example_request(prompt_tokens=1600)
    >>> rows = example_rows(request, waiting=[4, 0, 1], kv_usage=[0.5, 0.5, 0.9], hit_tokens=[1600, 0, 800])
    >>> Weighted(Params()).score(request, rows, now=0.0).cost.round(6)
    array([-4. , -3. , -3.2])
"""

from typing import Annotated

import msgspec

from picker.engines.rows import Rows
from picker.policies.composed.scorers import least_is_one
from picker.policies.policy import Scores
from picker.policies.prefix import matched_share
from picker.requests.request import Request

Weight = Annotated[float, msgspec.Meta(ge=0, le=1e6)]


class Params(msgspec.Struct, frozen=True, rename="camel"):
    queue_weight: Weight = 2.0
    kv_weight: Weight = 2.0
    prefix_weight: Weight = 3.0


class Weighted:
    """llm-d's default."""

    name = "weighted"

    def __init__(self, params: Params) -> None:
        self._params = params

    def score(self, request: Request, rows: Rows, now: float) -> Scores:
        weights = self._params
        queue = least_is_one(rows.waiting)
        kv = 1.0 - rows.kv_usage
        prefix = matched_share(request, rows)
        total = weights.queue_weight * queue + weights.kv_weight * kv + weights.prefix_weight * prefix
        return Scores(-total, {"queue_score": queue, "kv_score": kv, "prefix_score": prefix})

    def picked(self, request: Request, rows: Rows, row: int, now: float) -> None:
        pass
