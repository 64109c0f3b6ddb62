"""The endpoint with the fewest requests.

**Formula.** cost = batch: running and waiting requests, ours from the ledger, others' from the scrape.

**Limits.** A request is a request: a prompt of 100 tokens weighs as much as one of 100,000, cached or not.

**Source.** AIBrix `least-request`; Envoy's LEAST_REQUEST with full information.

    >>> from picker.policies.example import example_request, example_rows
    >>> request = example_request(prompt_tokens=1000)
    >>> LeastRequest().score(request, example_rows(request, batch=[9, 0, 3]), now=0.0).cost
    array([9., 0., 3.])
"""

from picker.engines.rows import Rows
from picker.policies.policy import Scores
from picker.requests.request import Request


class LeastRequest:
    """The batch is the cost."""

    name = "least-request"

    def score(self, request: Request, rows: Rows, now: float) -> Scores:
        return Scores(rows.batch, {"batch": rows.batch})

    def picked(self, request: Request, rows: Rows, row: int, now: float) -> None:
        pass
