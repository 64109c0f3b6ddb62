"""One snapshot of the pool for one pick: numpy columns, one row per candidate endpoint."""

import msgspec
import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]


class Rows(msgspec.Struct, frozen=True, gc=False, eq=False):
    """What a policy may know of N endpoints. Every column has shape (N,). A struct, since one is made for each pick.

    Own accounting (exact, instant) and scraped signals (aged) are merged already in `batch` and `queued_tokens`;
    the raw scraped values stay beside them for policies that are defined on those.
    """

    slots: NDArray[np.intp]
    """Row of each endpoint in the per-endpoint tables: identity for state, never a feature."""
    batch: Column
    """Requests on the endpoint, running and waiting, ours (ledger) plus what others put there (scrape)."""
    queued_tokens: Column
    """Uncached prompt tokens reserved there whose prefill is not known to be done."""
    hit_tokens: Column
    """Predicted prefix hit of this request, in tokens, before the last-token rule."""
    new_tokens: Column
    """Prompt tokens this request would have to prefill there: max(1, prompt - hit)."""
    running: Column
    """Scraped running requests; 0 where never scraped."""
    waiting: Column
    """Scraped waiting requests; 0 where never scraped."""
    kv_usage: Column
    """Scraped share of KV blocks in use, 0..1."""
    in_flight: Column
    """Requests that this picker placed there and that have not ended."""
    decode_tokens: Column
    """Tokens of context (prompt plus seen output) of own requests past their first token."""
    age_s: Column
    """Seconds since the last good scrape; inf where never scraped."""
    prefilling: Column
    """Own requests there whose first token has not come."""
    queued_work: Column
    """Attention work of `queued_tokens`, in token pairs: new x (context + new / 2), summed."""
    queued_prompts: Column
    """Prompt tokens of the same requests, cached or not: KV that they will hold."""
    head_s: Column
    """Seconds since the prefill that is first in line began; 0 where nothing is in prefill."""
    hardware: NDArray[np.intp]
    """Class of the engine's hardware, below MAX_HARDWARE; 0 is unknown."""
    kv_tokens: Column
    """Scraped size of the KV cache in tokens; 0 where unknown."""

    def __len__(self) -> int:
        return len(self.slots)

    def take(self, positions: NDArray[np.intp]) -> "Rows":
        """These rows alone, in this order."""
        return Rows(**{name: getattr(self, name)[positions] for name in self.__struct_fields__})
