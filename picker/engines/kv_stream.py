"""One engine's KV events, in order: gaps, replays and restarts, and the way into the index. Pure.

Batches are numbered from 0 by the engine; a number lower than expected on a newer batch is a restart. A gap is closed
by a replay from one batch before it: if that batch is not the one that we know by its time, the engine restarted
unseen. (Unseen for good is a restart whose first batch to reach us has just the number that we expect.) A replay may
itself have holes, and lack its end: a ZMQ ROUTER drops what its peer does not read fast enough. As long as a replay
brings something, the rest is asked for again. While replays are under way, live batches are held back. Without a
replay, a gap is accepted: what it removed stays in the index until stored and removed again, or evicted.
"""

import math
from collections import deque
from dataclasses import dataclass

import msgspec
import numpy as np

from picker.engines.index import PrefixIndex
from picker.engines.kv_events import AllBlocksCleared, BlockRemoved, BlockStored, KvBatch, decode
from picker.engines.kv_hashes import keys_of, own_blocks
from picker.requests.request import Chain

MAX_HELD = 256
"""Live batches held back during a replay; those beyond are asked for again afterwards."""


@dataclass(slots=True)
class KvCount:
    """What came of one engine's events so far. Counts of batches, blocks or events, as named."""

    batches: int = 0
    """Applied, live and replayed."""
    stored_blocks: int = 0
    removed_blocks: int = 0
    orphan_blocks: int = 0
    """Not indexed: their parent is unknown."""
    ignored_events: int = 0
    """Of another medium than GPU, or of a cache group that is not full attention."""
    unknown_events: int = 0
    malformed: int = 0
    """Events, or whole batches, that cannot be read."""
    clears: int = 0
    restarts: int = 0
    duplicates: int = 0
    gaps: int = 0
    lost_batches: int = 0
    """Missing and not brought back by a replay."""
    replays: int = 0
    failed_replays: int = 0
    """Those that brought nothing and did not tell their end."""
    lag_s: float = math.nan
    """Receipt of the last live batch less the time written in it: by two machines' clocks."""
    block_size: int | None = None
    """Tokens per block, as last stored."""
    rank: int | None = None
    """Data parallel rank, as last told."""
    last_error: str = ""


class KvStream:
    """Writes what one engine says into its slot of an index.

    Give every live message to `receive`. When `wants` is a number, fetch a replay from there, give its messages to
    `replayed` until it is `spoilt`, and say `replay_ended`. A replay that fails sets `can_replay` to False: set it to
    True again to have gaps closed. Once `closed`, the stream writes no more.
    """

    def __init__(self, slot: int, index: PrefixIndex, *, can_replay: bool) -> None:
        self.count = KvCount()
        self.can_replay = can_replay
        self.wants: int | None = None
        """First batch of the replay that is needed; None while in step."""
        self.whole = False
        """The index follows from all of the history that the engine could offer."""
        self.spoilt = False
        """The rest of the replay under way is of no use."""
        self.closed = False
        self._slot = slot
        self._index = index
        self._next: int | None = None
        self._first_ts = math.nan
        self._last_ts = -math.inf
        self._held: deque[tuple[int, KvBatch]] = deque()
        self._whole_asked = False  # the replay is of all that the engine has
        self._fresh = False  # and nothing of it has come yet: its first batch starts the slot anew
        self._came = 0  # batches applied from the replay under way
        if can_replay:
            self.rebuild()

    def rebuild(self) -> None:
        """Ask for the whole history; the slot is cleared when its first batch comes, not before."""
        self.wants, self._whole_asked, self._fresh = 0, True, True

    def receive(self, seq: int, payload: bytes, now: float) -> None:
        """A live message; `now` in seconds since the epoch."""
        if self.closed:
            return
        batch = self._decoded(payload)
        if math.isfinite(batch.ts):
            self.count.lag_s = now - batch.ts
        if self.wants is None:
            self._live(seq, batch)
        elif len(self._held) < MAX_HELD:
            self._held.append((seq, batch))

    def replayed(self, seq: int, payload: bytes) -> None:
        """A message of the replay that was asked for."""
        if self.closed or self.wants is None or self.spoilt:
            return
        batch = self._decoded(payload)
        if self._fresh:
            self._fresh = False
            self._start_anew(seq)
        assert self._next is not None  # a replay that is not fresh starts before a known batch
        if seq == self._next - 1 and batch.ts != self._last_ts:
            self._restart()
            self.rebuild()
            self.spoilt = True
        elif seq > self._next and self._came:
            self.spoilt = True
        elif seq >= self._next:
            self.count.lost_batches += seq - self._next
            self._apply(seq, batch)
            self._came += 1

    def replay_ended(self, complete: bool) -> None:
        """The replay told its end (`complete`), or was given up, or was spoilt."""
        if self.closed:
            return
        self.count.replays += 1
        came, self._came = self._came, 0
        if self.spoilt or (came and not complete):
            self.spoilt = False
            if not self._fresh and self._next is not None:
                self.wants = max(0, self._next - 1)
            return
        self.wants = None
        if not complete:
            self.count.failed_replays += 1
            self.can_replay = False
        if self._fresh and complete:  # the engine has not published anything yet
            self._start_anew(0)
        self.whole = complete and (self.whole or self._whole_asked)
        self._whole_asked = self._fresh = False
        if self._held and self._next is not None and not came:  # no use in asking for the same again
            self.count.lost_batches += max(0, self._held[0][0] - self._next)
            self._next = max(self._next, self._held[0][0])
        held, self._held = self._held, deque()
        for seq, batch in held:
            if self.wants is None:
                self._live(seq, batch)
            else:
                self._held.append((seq, batch))

    def _live(self, seq: int, batch: KvBatch) -> None:
        if self._next is None:
            self._next = seq
        if seq < self._next:
            if batch.ts <= self._last_ts and (seq > 0 or batch.ts == self._first_ts):
                self.count.duplicates += 1
                return
            self._restart()
        if seq > self._next:
            self.count.gaps += 1
            if self.can_replay:
                self.wants = max(0, self._next - 1)
                self._held.append((seq, batch))
                return
            self.count.lost_batches += seq - self._next
        self._apply(seq, batch)

    def _restart(self) -> None:
        self.count.restarts += 1
        self._start_anew(0)

    def _start_anew(self, first: int) -> None:
        self._index.clear(self._slot)
        self._next, self._last_ts = first, -math.inf

    def _apply(self, seq: int, batch: KvBatch) -> None:
        self._next, self._last_ts = seq + 1, batch.ts
        if seq == 0:
            self._first_ts = batch.ts
        self.count.batches += 1
        self.count.unknown_events += batch.unknown
        self.count.malformed += batch.malformed
        if batch.rank is not None:
            self.count.rank = batch.rank
        writes = _Writes(self._slot, self._index)
        for event in batch.events:
            if isinstance(event, AllBlocksCleared):
                self.count.clears += 1
                writes.clear()
            elif (event.medium or "GPU").upper() != "GPU":
                self.count.ignored_events += 1
            elif isinstance(event, BlockRemoved):
                self.count.removed_blocks += len(event.block_hashes)
                writes.remove(keys_of(event.block_hashes, event.group_idx))
            elif not _attends_to_all(event):
                self.count.ignored_events += 1
            elif event.block_hashes:
                self._store(event, writes)
        writes.flush()

    def _store(self, event: BlockStored, writes: "_Writes") -> None:
        count, blocks = self.count, len(event.block_hashes)
        count.block_size = event.block_size
        parent: int | None = None
        if event.parent_block_hash is not None:
            parent = writes.block(keys_of([event.parent_block_hash], event.group_idx)[0])
            if parent is None:
                count.orphan_blocks += blocks
                return
        try:
            own = own_blocks(event, parent)
        except (ValueError, msgspec.DecodeError, RecursionError) as error:
            count.malformed += 1
            count.last_error = f"BlockStored: {error}"[:200]
            return
        count.stored_blocks += blocks
        writes.store(keys_of(event.block_hashes, event.group_idx), own)

    def _decoded(self, payload: bytes) -> KvBatch:
        batch = decode(payload)
        if isinstance(batch, KvBatch):
            return batch
        self.count.last_error = batch.reason
        return KvBatch(self._last_ts, malformed=1)  # its number has come all the same


def _attends_to_all(event: BlockStored) -> bool:
    """Only full attention decides how long a prefix can be reused; windows and states live by rules of their own."""
    kind = event.kv_cache_spec_kind
    return kind is None or kind.startswith(("full", "mla"))


class _Writes:
    """Stores and removals of one batch, in order, with as few calls into the index as that order allows."""

    def __init__(self, slot: int, index: PrefixIndex) -> None:
        self._slot = slot
        self._index = index
        self._stored: list[int] = []
        self._chains: list[Chain] = []
        self._removed: list[int] = []

    def store(self, keys: list[int], blocks: Chain) -> None:
        if self._removed:
            self.flush()
        self._stored += keys
        self._chains.append(blocks)

    def remove(self, keys: list[int]) -> None:
        if self._stored:
            self.flush()
        self._removed += keys

    def clear(self) -> None:
        self._stored, self._chains, self._removed = [], [], []
        self._index.clear(self._slot)

    def block(self, key: int) -> int | None:
        """Our hash of the engine's block `key`, this batch considered."""
        if self._stored and self._stored[-1] == key:
            return int(self._chains[-1][-1])
        self.flush()
        return self._index.block(self._slot, key)

    def flush(self) -> None:
        if self._stored:
            blocks = self._chains[0] if len(self._chains) == 1 else np.concatenate(self._chains)
            self._index.store(self._slot, np.array(self._stored, np.uint64), blocks)
            self._stored, self._chains = [], []
        if self._removed:
            self._index.remove(self._slot, np.array(self._removed, np.uint64))
            self._removed = []
