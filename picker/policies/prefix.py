"""How much of a request's prompt an endpoint holds already."""

import numpy as np

from picker.engines.rows import Column, Rows
from picker.requests.request import Request


def matched_share(request: Request, rows: Rows) -> Column:
    """Matched over total prefix blocks of the request, shape (N,), 0..1; 0 for a prompt shorter than one block."""
    total = len(request.chain) * request.block_tokens
    if total <= 0:
        return np.zeros(len(rows))
    return np.minimum(rows.hit_tokens / total, 1.0)
