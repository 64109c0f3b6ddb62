"""Join the shortest queue, with waiting requests weighed heavier than running ones.

**Formula.** cost = 4 x waiting + batch. The factor makes an endpoint that queues look worse than one that is only
busy.

**Limits.** `waiting` is scraped, so a burst between two scrapes sees the same queue (`batch` does move at each pick).
Blind to prompt length and prefixes.

**Source.** vLLM's data-parallel load balancer, as written down among LMetric's baselines (arXiv 2603.15202).

    >>> from picker.policies.example import example_request, example_rows
    >>> request = example_request(prompt_tokens=1000)
    >>> Jsq().score(request, example_rows(request, waiting=[0, 2, 1], batch=[9, 4, 3]), now=0.0).cost
    array([ 9., 12.,  7.])
"""

from picker.engines.rows import Rows
from picker.policies.policy import Scores
from picker.requests.request import Request

_WAITING_WEIGHT = 4.0


class Jsq:
    """Join the shortest queue."""

    name = "jsq"

    def score(self, request: Request, rows: Rows, now: float) -> Scores:
        cost = _WAITING_WEIGHT * rows.waiting + rows.batch
        return Scores(cost, {"waiting": rows.waiting, "batch": rows.batch})

    def picked(self, request: Request, rows: Rows, row: int, now: float) -> None:
        pass
