"""Transfers towards an engine: KV reserved once, released always, and no number answered in two ways.

A reservation ends by its commit (the request is adopted), by a cancel, by its lease, or when its source leaves. How a
number ended is remembered until its source says that it is over there, too; a message that overtakes another, comes
twice or comes late finds the same answer.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from picker.stages.messages import (
    Accept,
    Adopt,
    Commit,
    Committed,
    Decline,
    Free,
    Offer,
    Output,
    Refused,
    Reserve,
)

_MOST_SOURCES = 4096
_MOST_NUMBERS = 1024


@dataclass(frozen=True, slots=True)
class Reservation:
    """KV kept free for one transfer until `until`, in seconds."""

    request: str
    kv_tokens: int
    until: float


@dataclass(slots=True)
class _Source:
    """Numbers below `floor` are over; of the others, what became of those that ended here."""

    floor: int = 0
    highest: int = -1
    ended: dict[int, bool] = field(default_factory=dict)
    """Whether adopted."""


class Incoming:
    """Of the engine `name`."""

    def __init__(self, name: str, *, lease_s: float) -> None:
        self.open: dict[tuple[str, int], Reservation] = {}
        self._name, self._lease_s = name, lease_s
        self._sources: OrderedDict[str, _Source] = OrderedDict()

    @property
    def reserved_tokens(self) -> int:
        return sum(reservation.kv_tokens for reservation in self.open.values())

    def offered(self, offer: Offer, room: bool, now: float) -> list[Output]:
        """Reserve if there is `room`, unless this number was answered already."""
        source = self._source(offer.sender, offer.number, offer.oldest)
        key = offer.sender, offer.number
        if key in self.open:
            return [Accept(self._name, offer.sender, offer.number)]
        if offer.number < source.floor or offer.number in source.ended or not room:
            self._end(source, offer.number, adopted=False)
            return [Decline(self._name, offer.sender, offer.number)]
        if len(source.ended) >= _MOST_NUMBERS:
            return [Decline(self._name, offer.sender, offer.number)]
        self.open[key] = Reservation(offer.request, offer.kv_tokens, now + self._lease_s)
        return [Reserve(*key, offer.kv_tokens), Accept(self._name, offer.sender, offer.number)]

    def committed(self, commit: Commit, now: float, *, refuse: bool = False) -> list[Output]:
        """Adopt what is reserved unless it is to be refused, or say again what became of it."""
        source = self._source(commit.sender, commit.number, commit.oldest)
        reservation = self.open.get((commit.sender, commit.number))
        if reservation is not None and now < reservation.until and not refuse:
            del self.open[commit.sender, commit.number]
            self._end(source, commit.number, adopted=True)
            return [
                Adopt(commit.sender, commit.number, reservation.request),
                Committed(self._name, commit.sender, commit.number),
            ]
        if source.ended.get(commit.number):
            return [Committed(self._name, commit.sender, commit.number)]
        freed = self._free(commit.sender, commit.number)
        return [*freed, Refused(self._name, commit.sender, commit.number)]

    def cancelled(self, sender: str, number: int) -> list[Output]:
        """The source gave up, perhaps before its offer came."""
        self._source(sender, number, 0)
        return self._free(sender, number)

    def expire(self, now: float) -> list[Output]:
        """End the reservations whose lease is over."""
        late = [key for key, reservation in self.open.items() if now >= reservation.until]
        return [freed for key in late for freed in self._free(*key)]

    def left(self, sender: str) -> list[Output]:
        """The source is no member any more: nothing that it began goes on."""
        freed = [out for source, number in list(self.open) if source == sender for out in self._free(source, number)]
        source = self._sources.get(sender)
        if source is not None:
            source.floor, source.ended = source.highest + 1, {}
        return freed

    def _free(self, sender: str, number: int) -> list[Output]:
        self._end(self._sources[sender], number, adopted=False)
        return [Free(sender, number)] if self.open.pop((sender, number), None) is not None else []

    def _source(self, sender: str, number: int, oldest: int) -> _Source:
        source = self._sources.setdefault(sender, _Source())
        self._sources.move_to_end(sender)
        source.highest = max(source.highest, number)
        if oldest > source.floor:
            source.floor = oldest
            source.ended = {ended: adopted for ended, adopted in source.ended.items() if ended >= oldest}
        while len(self._sources) > _MOST_SOURCES:
            idle = next(name for name in self._sources if not any(key[0] == name for key in self.open))
            del self._sources[idle]
        return source

    def _end(self, source: _Source, number: int, *, adopted: bool) -> None:
        """An offer that comes again after its adoption takes nothing back."""
        if number >= source.floor and (adopted or len(source.ended) < _MOST_NUMBERS):
            source.ended[number] = adopted or source.ended.get(number, False)
