"""What the engines said last: scraped columns by slot, each with its age. One writer, the scraper."""

import numpy as np
from numpy.typing import NDArray

from picker.engines.metrics import EngineSample, LoraState
from picker.engines.rows import Column

FOREIGN_HALF_LIFE_S = 10.0
"""Others' requests are believed by half after this time without a scrape: about as long as a usual answer takes, so
half of those seen have ended by then, and what came instead is unknown. Our own count, the ledger's, stays exact."""

Columns = NDArray[np.float64]
"""Shape (columns, capacity): one contiguous row per column, so that a pick gathers all of them in one step."""

SCRAPED_AT, RUNNING, WAITING, KV_USAGE, BLOCK_SIZE, NUM_BLOCKS, FOREIGN = range(7)
PREFIX_QUERIES, PREFIX_HITS, PROMPT_TOKENS, GENERATION_TOKENS = range(7, 11)
HARDWARE = 11
_FIELDS = (
    (RUNNING, "running"),
    (WAITING, "waiting"),
    (KV_USAGE, "kv_usage"),
    (BLOCK_SIZE, "block_size"),
    (NUM_BLOCKS, "num_blocks"),
    (PREFIX_QUERIES, "prefix_queries"),
    (PREFIX_HITS, "prefix_hits"),
    (PROMPT_TOKENS, "prompt_tokens"),
    (GENERATION_TOKENS, "generation_tokens"),
)
# An unknown block is one token long: the last-token rule then holds to the token.
NEVER = np.array([-np.inf, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])

MAX_HARDWARE = 8
"""Classes of hardware told apart; 0 is unknown, and where all further ones go."""


def grown(columns: Columns, capacity: int, fill: Columns) -> Columns:
    """The same columns with room for at least `capacity` slots, new ones as `fill`, shape (columns,)."""
    old = columns.shape[1]
    if capacity <= old:
        return columns
    wider = np.repeat(fill[:, None], max(capacity, 2 * old), axis=1)
    wider[:, :old] = columns
    return wider


class EngineTable:
    """Scraped state of every slot. A slot never scraped has `scraped_at` -inf, a block size of 1 and zeros."""

    def __init__(self, capacity: int = 64) -> None:
        self.columns: Columns = np.repeat(NEVER[:, None], max(capacity, 1), axis=1)
        self.hardware: list[str] = [""]
        """Names of the hardware classes; the HARDWARE column holds their positions."""
        self._lora: dict[int, LoraState] = {}

    def classify(self, slot: int, hardware: str) -> None:
        """This slot's engine runs on hardware of this name; an empty name is unknown."""
        if hardware not in self.hardware and len(self.hardware) < MAX_HARDWARE:
            self.hardware.append(hardware)
        known = hardware in self.hardware
        self.columns[HARDWARE, slot] = self.hardware.index(hardware) if known else 0

    @property
    def capacity(self) -> int:
        """Slots there is room for."""
        return int(self.columns.shape[1])

    def ensure(self, capacity: int) -> None:
        """Make room for slots below `capacity`; what is known stays."""
        self.columns = grown(self.columns, capacity, NEVER)

    def clear(self, slot: int) -> None:
        """Forget a slot, before another endpoint takes it."""
        self.columns[:, slot] = NEVER
        self._lora.pop(slot, None)

    def column(self, which: int) -> Column:
        """One column for all slots, shape (capacity,), live: `table.column(KV_USAGE)[slot]`."""
        column: Column = self.columns[which]
        return column

    def lora(self, slot: int) -> LoraState | None:
        """LoRA adapters on the engine, None where it tells of none."""
        return self._lora.get(slot)

    def tell_lora(self, slot: int, state: LoraState) -> None:
        """The adapters on the engine, as somebody else read them."""
        self._lora[slot] = state

    def observe(self, slot: int, sample: EngineSample, now: float, own_most: float) -> bool:
        """Keep a good scrape that ended at `now`; returns whether the engine's load changed since the one before.

        What the sample does not say stays as it was. `own_most` is the most requests of our own that the engine can
        have counted: those in flight when the scrape began plus those picked until it ended. Whatever it reports beyond
        them was put there by others (`FOREIGN`), so a request just placed is never counted twice.
        """
        row = self.columns[:, slot]
        before = (row[RUNNING], row[WAITING])
        for which, field in _FIELDS:
            value = getattr(sample, field)
            if value is not None:
                row[which] = value
        row[SCRAPED_AT] = now
        row[FOREIGN] = max(0.0, row[RUNNING] + row[WAITING] - own_most)
        if sample.lora is not None:
            self._lora[slot] = sample.lora
        return bool(before != (row[RUNNING], row[WAITING]))
