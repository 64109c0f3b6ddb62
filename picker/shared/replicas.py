"""What replicas of a picker tell each other: requests in flight by endpoint, which prompts went where, and what came of
finished picks, where somebody learns from them.

A message goes to all replicas. What others have in flight becomes rows that a pick adds to its own, as it does with the
workers of its own picker; a prompt that another replica placed is taken for one of ours by the text index, once for all
workers. Times travel as ages, since every host has a clock of its own. Sans I/O: bytes out, bytes in.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from picker.engines.ledger import EMPTY, SINCE
from picker.pool.view import PoolView, Slots
from picker.requests.request import Chain
from picker.shared.by_key import ByKey
from picker.shared.flights import mirror_of
from picker.shared.mirror import keys_of
from picker.shared.rows import Block, Keys

MOST_PLACEMENTS = 1024
"""Kept for the next message; when there are more, the oldest are not told."""
MOST_BATCHES = 16
"""The same of batches of finished picks."""
MAX_BYTES = 8 << 20
_SINCE = list(SINCE)


class BadMessage(Exception):
    """What came is no message of a replica."""


class Placement(msgspec.Struct, frozen=True, array_like=True):
    """A prompt went to the endpoint of this key. `chain`: its block hashes, 8 bytes each."""

    key: int
    exact: bool
    chain: bytes

    @property
    def blocks(self) -> Chain:
        """The chain as an array."""
        return np.frombuffer(self.chain, np.uint64)


class Finished(msgspec.Struct, frozen=True, array_like=True):
    """Finished picks, as rows whose form is called `layout`. `of`: the keys of their endpoints, 8 bytes each."""

    layout: int
    of: bytes
    rows: bytes

    @property
    def keys(self) -> Keys:
        """Shape (rows,)."""
        return np.frombuffer(self.of, np.uint64)


class News(msgspec.Struct, frozen=True):
    """What a message tells beside requests in flight."""

    placements: list[Placement] = []
    finished: list[Finished] = []


class _Message(msgspec.Struct, frozen=True, array_like=True):
    """`whole`: endpoints that are not among the rows have nothing of the sender's."""

    sender: str
    whole: bool
    rows: list[tuple[int, list[float]]]
    placements: list[Placement]
    finished: list[Finished] = []


class Teller:
    """Our side: what the others should know. `sender` is a name of its own for each process, `own` its flights."""

    def __init__(self, sender: str, own: Block) -> None:
        self._sender = sender
        self._mirror = mirror_of([own])
        self._keys = keys_of(PoolView())
        self._placements: deque[Placement] = deque(maxlen=MOST_PLACEMENTS)
        self._finished: deque[Finished] = deque(maxlen=MOST_BATCHES)
        self._encode = msgspec.msgpack.Encoder().encode

    def follow(self, view: PoolView, capacity: int) -> None:
        """Our slots are these endpoints' from now on."""
        self._mirror.follow(view, capacity)
        self._keys = keys_of(view)

    def placed(self, slot: int, exact: bool, chain: Chain) -> None:
        """One of our requests went to `slot`. Costs a copy of the chain."""
        if len(chain) and slot < len(self._keys):
            self._placements.append(Placement(int(self._keys[slot]), exact, chain.tobytes()))

    def finished(self, layout: int, slots: Slots, rows: bytes) -> None:
        """Requests of ours on these slots, shape (rows,), are over."""
        if len(slots) and int(slots.max()) < len(self._keys):
            self._finished.append(Finished(layout, self._keys[slots].tobytes(), rows))

    def message(self, now: float, *, whole: bool) -> bytes | None:
        """What changed since the last message, or all of it; None where nothing did."""
        mirror = self._mirror
        mirror.refresh()
        slots: Slots = np.flatnonzero(mirror.changed)
        mirror.changed[slots] = False
        if whole:
            slots = np.flatnonzero((mirror.columns != EMPTY[:, None]).any(axis=0))
        rows = []
        for slot in slots.tolist():
            if slot < len(self._keys) and self._keys[slot]:
                values = mirror.columns[:, slot].copy()
                values[_SINCE] = now - values[_SINCE]
                rows.append((int(self._keys[slot]), values.tolist()))
        placements, finished = list(self._placements), list(self._finished)
        self._placements.clear()
        self._finished.clear()
        if not (rows or placements or finished or whole):
            return None
        return self._encode(_Message(self._sender, whole, rows, placements, finished))


@dataclass(slots=True)
class _Heard:
    """A replica: when it last said anything, where its rows are, whose they are."""

    at: float
    block: int
    rows: ByKey
    keys: set[int] = field(default_factory=set)


class Listener:
    """What the others said. Rows go into `blocks`, one for each process that tells, and are gone with it."""

    def __init__(self, sender: str, own: Sequence[str], blocks: Sequence[Block]) -> None:
        """`own`: the workers of our picker, which tell each other flights and placements by other ways; each of them
        takes its share of what others placed. Empty where we are the only one."""
        self._sender, self._own, self._blocks = sender, frozenset(own), list(blocks)
        self._share, self._shares = (own.index(sender), len(own)) if sender in own else (0, 1)
        self._free = list(range(len(blocks)))
        self._heard: dict[str, _Heard] = {}
        self._decode = msgspec.msgpack.Decoder(_Message).decode

    def __len__(self) -> int:
        """Processes of other pickers that are heard."""
        return len(self._heard)

    def hear(self, text: bytes, now: float) -> News:
        """Take a message; what else it tells. Raises BadMessage; nothing was taken then."""
        if len(text) > MAX_BYTES:
            raise BadMessage(f"{len(text)} bytes")
        try:
            message = self._decode(text)
        except msgspec.MsgspecError as error:
            raise BadMessage(str(error)[:200]) from None
        columns = list(_columns(message, now))
        if any(len(p.chain) % 8 for p in message.placements):
            raise BadMessage("a chain that is no array of hashes")
        if any(len(f.of) % 8 for f in message.finished):
            raise BadMessage("endpoints that are no array of keys")
        if message.sender == self._sender:
            return News()
        if message.sender not in self._own and (heard := self._known(message.sender, now)) is not None:
            heard.at = now
            for key, column in columns:
                heard.rows.publish(key, column)
            told = {key for key, _ in columns}
            heard.keys = told if message.whole else heard.keys | told
            if message.whole:
                heard.rows.keep_only(heard.keys)
        return News([p for p in message.placements if self._ours(message.sender, p)], message.finished)

    def _ours(self, sender: str, placement: Placement) -> bool:
        """Whether it is on us to tell the workers beside us of it."""
        if sender in self._own or not placement.chain:
            return False
        return int(placement.blocks[-1]) % self._shares == self._share

    def forget_silent(self, before: float) -> list[str]:
        """Who said nothing since `before` counts nothing any more; returns their names."""
        gone = [sender for sender, heard in self._heard.items() if heard.at < before]
        for sender in gone:
            heard = self._heard.pop(sender)
            heard.rows.keep_only(())
            self._free.append(heard.block)
        return gone

    def _known(self, sender: str, now: float) -> _Heard | None:
        heard = self._heard.get(sender)
        if heard is None and self._free:
            block = self._free.pop()
            heard = self._heard[sender] = _Heard(now, block, ByKey(self._blocks[block], EMPTY))
        return heard


def _columns(message: _Message, now: float) -> Iterator[tuple[int, np.ndarray]]:
    """Raises BadMessage."""
    for key, values in message.rows:
        column = np.array(values, np.float64)
        if not 0 < key < 1 << 64 or column.shape != EMPTY.shape or np.isnan(column).any():
            raise BadMessage("a row that is none")
        column[_SINCE] = now - column[_SINCE]
        counts = np.delete(column, _SINCE)
        if not (np.isfinite(counts) & (counts >= 0)).all():
            raise BadMessage("a row of counts that cannot be")
        yield key, column[:, None].copy()
