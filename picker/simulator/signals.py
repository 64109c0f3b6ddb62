"""What a router learns of simulated engines, and how late."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np

from picker.engines.index import PrefixIndex
from picker.simulator.blocks import Hashes
from picker.simulator.sequence import UNSEEN, Cleared, KvEvent, Stored


@dataclass(frozen=True, slots=True)
class Signals:
    """How late everybody learns of what. `matching`: prompts are known by token ids and engines publish KV events
    (exact), or prompts are known by their text only (text). Raises ValueError."""

    decision_ms: float = 1.0
    """From the arrival to the engine: pick, proxy, network."""
    response_ms: float = 1.0
    """From the engine to the client, and to the router."""
    scrape_s: float = 0.1
    """Between two scrapes of a busy engine; resting ones are scraped less often, as in service."""
    scrape_ms: float = 2.0
    """From the reading of an engine's metrics to their arrival in the table."""
    event_lag_ms: float = 10.0
    """From the end of a step to its KV events in the index."""
    detection_ms: float = 1000.0
    """From a join, a leave or a crash to the router's new pool."""
    matching: Literal["exact", "text"] = "exact"

    def __post_init__(self) -> None:
        delays = (self.decision_ms, self.response_ms, self.scrape_ms, self.event_lag_ms, self.detection_ms)
        if not all(0 <= delay <= 1e7 for delay in delays):
            raise ValueError("delays must be in 0..1e7 ms")


def publish(events: Iterable[KvEvent], index: PrefixIndex, slot: int) -> None:
    """Bring an engine's KV events into the index. Its block hashes are those of the requests' chains."""
    for kind, same in groupby(events, type):
        if kind is Cleared:
            index.clear(slot)
            continue
        keys = _prompt_blocks(np.concatenate([event.hashes for event in same if not isinstance(event, Cleared)]))
        if kind is Stored:
            index.store(slot, keys, keys)
        else:
            index.remove(slot, keys)


def _prompt_blocks(hashes: Hashes) -> Hashes:
    """Without the generated blocks, which are no prompt's prefix: the index need not hold them."""
    return hashes[hashes < UNSEEN]
