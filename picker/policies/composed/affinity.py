"""prefix-cache-affinity-filter: the holders of the prefix alone, while they are not too busy."""

from typing import Annotated, Literal

import msgspec
import numpy as np

from picker.policies.composed.look import Look, Mask
from picker.policies.prefix import matched_share

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class PrefixAffinity(msgspec.Struct, frozen=True, rename="camel"):
    affinity_threshold: Share = 0.8
    exploration_probability: Share = 0.0
    max_ttft_penalty_ms: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = msgspec.field(
        default=18_000.0, name="maxTTFTPenaltyMs"
    )
    peak_prefill_throughput: Annotated[float, msgspec.Meta(gt=0, le=1e9)] = 15_928.0
    ttft_source: Literal["prefillThroughput"] = "prefillThroughput"


class PrefixHolders:
    """Keeps those that hold at least `affinityThreshold` of the prompt's blocks.

    All stay where nobody does, where the least queued holder would answer over `maxTTFTPenaltyMs` later than the least
    queued other (0: never mind), and with `explorationProbability`.
    """

    def __init__(self, params: PrefixAffinity, rng: np.random.Generator) -> None:
        self._params = params
        self._rng = rng
        self._penalty_tokens = params.max_ttft_penalty_ms / 1000.0 * params.peak_prefill_throughput

    def __call__(self, look: Look) -> Mask:
        params, rows = self._params, look.rows
        everyone = np.ones(len(rows), dtype=np.bool_)
        if params.exploration_probability and self._rng.random() < params.exploration_probability:
            return everyone
        holders: Mask = matched_share(look.request, rows) >= params.affinity_threshold
        if not holders.any() or holders.all():
            return everyone
        lead = rows.queued_tokens[holders].min() - rows.queued_tokens[~holders].min()
        return everyone if self._penalty_tokens and lead > self._penalty_tokens else holders
