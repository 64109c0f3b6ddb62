"""Whatever happens in whatever order, the columns are the sum over the live flights."""

import math
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from picker.engines import ledger as column
from picker.engines.ledger import Ledger

SLOTS, FLIGHTS, MAX_FLIGHTS, GRACE_S = 3, 12, 8, 2.0
slots = st.integers(0, SLOTS - 1)
flights = st.integers(0, FLIGHTS - 1)


@dataclass
class Plain:
    """A flight as simply as it can be written down."""

    slot: int | None
    new: int
    prompt: int
    at: float
    first_byte: bool = False
    completion: int = 0
    ended: bool = False


class LedgerAgainstPlainSums(RuleBasedStateMachine):
    """The reference keeps a dict and computes every column anew."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(capacity=SLOTS, max_flights=MAX_FLIGHTS, grace_s=GRACE_S)
        self.plain: dict[int, Plain] = {}
        self.shortfall = [0] * SLOTS
        self.now = 0.0

    @rule(seconds=st.floats(0.01, 3.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(flight=flights, slot=slots, new=st.integers(0, 5000), more=st.floats(0, 5000))
    def reserve(self, flight: int, slot: int, new: int, more: float) -> None:
        self.now += 0.001
        self.ledger.reserve(flight, slot, new, new + more, self.now)
        self.plain.pop(flight, None)
        if len(self.plain) >= MAX_FLIGHTS:
            del self.plain[next(iter(self.plain))]
        self.plain[flight] = Plain(slot, new, int(new + more), self.now)

    @rule(flight=flights)
    def first_byte(self, flight: int) -> None:
        self.ledger.first_byte(flight, self.now)
        plain = self.plain.get(flight)
        if plain and not plain.first_byte:
            plain.first_byte, plain.ended = True, False

    @rule(flight=flights, tokens=st.integers(0, 100))
    def progress(self, flight: int, tokens: int) -> None:
        self.ledger.progress(flight, tokens)
        plain = self.plain.get(flight)
        if plain and tokens > plain.completion:
            plain.completion, plain.ended = tokens, False

    @rule(flight=flights, slot=slots)
    def move(self, flight: int, slot: int) -> None:
        self.ledger.move(flight, slot)
        plain = self.plain.get(flight)
        if plain and plain.slot != slot:
            plain.slot, plain.ended = slot, False

    @rule(flight=flights)
    def release(self, flight: int) -> None:
        released = self.ledger.release(flight)
        plain = self.plain.pop(flight, None)
        assert (released is None) == (plain is None)
        if released and plain:
            assert released.slot == (column.GONE if plain.slot is None else plain.slot)
        assert self.ledger.release(flight) is None

    @rule(max_age=st.floats(1, 20))
    def sweep(self, max_age: float) -> None:
        lost = {flight.id for flight in self.ledger.sweep(self.now, max_age)}
        assert lost == {f for f, plain in self.plain.items() if self.now - plain.at >= max_age}
        for flight in lost:
            del self.plain[flight]

    @rule(slot=slots)
    def forget(self, slot: int) -> None:
        self.ledger.forget(slot)
        self.shortfall[slot] = 0
        for plain in self.plain.values():
            if plain.slot == slot:
                plain.slot, plain.ended = None, False

    @rule(slot=slots, running=st.integers(0, 6), waiting=st.integers(0, 2))
    def scrape(self, slot: int, running: int, waiting: int) -> None:
        self.ledger.observe(slot, running, waiting, self.now)
        settled = [p for p in self.plain.values() if p.slot == slot and p.at <= self.now - GRACE_S]
        short = max(0, len(settled) - running - waiting)
        ended, self.shortfall[slot] = min(short, self.shortfall[slot]), short
        decoding = sum(p.first_byte for p in settled)
        if waiting == 0 and running <= decoding:
            order = sorted(settled, key=lambda p: (p.first_byte, p.at))
        else:
            order = sorted(settled, key=lambda p: p.at)
        for i, plain in enumerate(order):
            plain.ended = i < ended

    @invariant()
    def columns_are_the_sums(self) -> None:
        for slot in range(SLOTS):
            live = [p for p in self.plain.values() if p.slot == slot and not p.ended]
            prefilling = [p for p in live if not p.first_byte]
            assert self.ledger.columns[: column.PICKS, slot].tolist() == [
                len(live),
                len(prefilling),
                sum(p.new for p in prefilling),
                sum(p.prompt + p.completion for p in live if p.first_byte),
                min((p.at for p in prefilling), default=math.inf),
            ]

    @invariant()
    def queued_prefills_are_weighed_as_attention_sees_them(self) -> None:
        for slot in range(SLOTS):
            queued = [p for p in self.plain.values() if p.slot == slot and not p.ended and not p.first_byte]
            work, prompts, head = self.ledger.columns[column.QUEUED_WORK : column.HEAD_SINCE + 1, slot].tolist()
            assert work == sum(max(0, p.new * (2 * p.prompt - p.new) // 2) for p in queued)
            assert prompts == sum(p.prompt for p in queued)
            assert (head < math.inf) == bool(queued)

    @invariant()
    def nothing_is_negative_and_the_bound_holds(self) -> None:
        assert (self.ledger.columns >= 0).all()
        assert len(self.ledger) == len(self.plain) <= MAX_FLIGHTS


LedgerAgainstPlainSums.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestLedgerColumns = LedgerAgainstPlainSums.TestCase
