"""The ring of placements: what comes out is what was told, in order; what does not is counted."""

import multiprocessing
import multiprocessing.synchronize
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picker.shared import placements
from picker.shared.placements import Ring, RingReader, RingSize, keep_ring, local_ring, ring_of, tell

SMALL = RingSize(entries=4, words=16)
Told = tuple[int, bool, list[int]]


def told(number: int, length: int = 3) -> Told:
    """A placement unlike any other."""
    return number + 1, number % 2 == 0, [1000 * number + i for i in range(length)]


def say(ring: Ring, placement: Told) -> None:
    key, recent, chain = placement
    tell(ring, np.uint64(key), recent, np.array(chain, np.uint64))


def heard(reader: RingReader) -> list[Told]:
    """What the reader takes now."""
    batch = reader.take()
    if batch is None:
        return []
    chains = np.split(batch.blocks, batch.ends[:-1])
    return [
        (key, recent, chain.tolist())
        for key, recent, chain in zip(batch.keys.tolist(), batch.recent.tolist(), chains, strict=False)
    ]


def test_what_is_told_is_heard_once_and_in_order() -> None:
    ring = local_ring()
    reader = RingReader(ring)
    say(ring, told(0))
    say(ring, told(1))
    assert heard(reader) == [told(0), told(1)]
    assert heard(reader) == []


def test_who_is_overrun_loses_the_oldest_and_knows_how_many() -> None:
    ring = local_ring(SMALL)
    reader = RingReader(ring)
    for number in range(10):
        say(ring, told(number))
    assert heard(reader) == [told(7), told(8), told(9)]
    assert reader.lost == 7


def test_long_chains_push_out_the_oldest_too() -> None:
    ring = local_ring(SMALL)
    reader = RingReader(ring)
    say(ring, told(0, 10))
    say(ring, told(1, 10))
    assert heard(reader) == [told(1, 10)]
    assert reader.lost == 1


def test_a_chain_longer_than_the_ring_is_told_by_its_leading_blocks() -> None:
    ring = local_ring(SMALL)
    reader = RingReader(ring)
    say(ring, told(0, 100))
    assert heard(reader) == [told(0, 16)]


def test_a_reader_that_comes_late_gets_what_is_still_there_and_counts_nothing_lost() -> None:
    ring = local_ring(SMALL)
    for number in range(10):
        say(ring, told(number))
    late = RingReader(ring)
    assert heard(late) == [told(7), told(8), told(9)]
    assert late.lost == 0


def test_a_batch_is_bounded_and_the_rest_comes_with_the_next() -> None:
    ring = local_ring()
    reader = RingReader(ring, most=2)
    for number in range(3):
        say(ring, told(number))
    assert heard(reader) == [told(0), told(1)]
    assert heard(reader) == [told(2)]
    assert reader.lost == 0


def test_another_process_writes_on_where_one_died_in_the_middle(tmp_path: Path) -> None:
    kept = keep_ring(tmp_path, "ring", SMALL)
    reader = RingReader(ring_of(tmp_path, "ring", SMALL))
    first = ring_of(tmp_path, "ring", SMALL, writes=True)
    say(first, told(0))
    first.head[placements.WORDS] += 5  # it had begun the next one
    first.words[3:8] = 99
    say(ring_of(tmp_path, "ring", SMALL, writes=True), told(1))
    assert heard(reader) == [told(0), told(1)]
    assert reader.lost == 0
    kept.close()


@pytest.mark.parametrize(("start", "length"), [(0, 17), (1 << 63, 1), (5, 3), (0, (1 << 63) - 1), (1 << 62, 16)])
def test_an_entry_that_makes_no_sense_is_dropped_and_the_next_one_heard(start: int, length: int) -> None:
    ring = local_ring(SMALL)
    reader = RingReader(ring)
    say(ring, told(0))
    ring.entries[0, 1:3] = start, length
    say(ring, told(1))
    assert heard(reader) == [told(1)]
    assert reader.lost == 1


def test_counts_that_run_backwards_bring_nothing_twice() -> None:
    ring = local_ring(SMALL)
    reader = RingReader(ring)
    say(ring, told(0))
    heard(reader)
    ring.head[placements.TOLD] = 0
    assert heard(reader) == []


@settings(deadline=None)
@given(steps=st.lists(st.one_of(st.integers(0, 20), st.none()), max_size=60), most=st.integers(1, 5))
def test_whatever_the_interleaving_all_that_was_told_is_heard_whole_and_in_order_or_counted(
    steps: list[int | None], most: int
) -> None:
    ring = local_ring(SMALL)
    reader = RingReader(ring, most)
    said: list[Told] = []
    got: list[Told] = []
    for length in [*steps, *[None] * len(steps)]:  # the reader has the last word
        if length is None:
            got += heard(reader)
        else:
            said.append(told(len(said), min(length, SMALL.words)))
            say(ring, said[-1])
    assert len(got) + reader.lost == len(said)
    assert got == [placement for placement in said if placement in got]


def _talk(folder: Path, ready: multiprocessing.synchronize.Event) -> None:
    ring, number = ring_of(folder, "ring", SMALL, writes=True), 0
    while True:
        say(ring, told(number, number % 14))
        number += 1
        ready.set()


def test_beside_a_writer_that_never_rests_nothing_is_heard_torn_or_twice(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    kept, ready = keep_ring(tmp_path, "ring", SMALL), context.Event()
    writer = context.Process(target=_talk, args=(tmp_path, ready), daemon=True)
    writer.start()
    numbers: list[int] = []
    try:
        assert ready.wait(60)
        reader = RingReader(ring_of(tmp_path, "ring", SMALL))
        while len(numbers) < 5000:
            for placement in heard(reader):
                numbers.append(placement[0] - 1)
                assert placement == told(numbers[-1], numbers[-1] % 14)
    finally:
        writer.kill()
        writer.join()
        kept.close()
    assert numbers == sorted(set(numbers))
    assert numbers[-1] - numbers[0] + 1 <= len(numbers) + reader.lost
