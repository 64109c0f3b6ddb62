"""The prefix index, read in place by other processes than the one that writes it."""

import multiprocessing
import multiprocessing.synchronize
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from picker.engines.index import PrefixIndex
from picker.pool.view import Endpoint, Pool, PoolView
from picker.shared.index import IndexReader, SharedShelf

PAIRS = 5000
ENDPOINTS = [Endpoint(f"10.0.0.{i}:8000") for i in range(4)]
SLOTS = np.arange(4)


def view_of(endpoints: list[Endpoint]) -> PoolView:
    return Pool().replace(endpoints).view


def blocks(first: int, count: int = 8) -> np.ndarray:
    """A chain; chains are equal where they start alike."""
    return np.random.default_rng(first).integers(1, 1 << 63, count, dtype=np.uint64)


class Written:
    """An index in shared memory, as its writer holds it."""

    def __init__(self, folder: Path, name: str = "index") -> None:
        self.shelf = SharedShelf(folder, name, PAIRS)
        self.shelf.follow(view_of(ENDPOINTS))
        self.index = PrefixIndex(PAIRS, shelf=self.shelf, salt=12345)


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Written]:
    made = Written(tmp_path)
    yield made
    made.shelf.close()


def reader(folder: Path, endpoints: list[Endpoint] = ENDPOINTS, name: str = "index") -> IndexReader:
    made = IndexReader()
    made.follow(view_of(endpoints), len(endpoints))
    made.read(folder, name, PAIRS)
    return made


def test_a_reader_finds_what_the_writer_stored_under_its_own_slots(tmp_path: Path, written: Written) -> None:
    backwards = reader(tmp_path, ENDPOINTS[::-1])
    written.index.store(0, blocks(1), blocks(1))
    written.index.store(3, blocks(1)[:5], blocks(1)[:5])
    assert backwards.matched(blocks(1), SLOTS).tolist() == [5, 0, 0, 8]


def test_a_cleared_slot_holds_nothing_at_once(tmp_path: Path, written: Written) -> None:
    view = reader(tmp_path)
    written.index.store(0, blocks(1), blocks(1))
    written.index.clear(0)
    assert view.matched(blocks(1), SLOTS).tolist() == [0, 0, 0, 0]


def test_before_there_is_an_index_nothing_is_found() -> None:
    assert IndexReader().matched(blocks(1), SLOTS).tolist() == [0, 0, 0, 0]


def test_an_old_index_is_read_on_after_its_writer_is_gone_until_there_is_a_new_one(tmp_path: Path) -> None:
    old = Written(tmp_path, "old")
    view = reader(tmp_path, name="old")
    old.index.store(0, blocks(1), blocks(1))
    old.shelf.close()
    assert view.matched(blocks(1), SLOTS).tolist() == [8, 0, 0, 0]
    with pytest.raises(FileNotFoundError):
        view.read(tmp_path, "new", PAIRS)
    assert view.matched(blocks(1), SLOTS).tolist() == [8, 0, 0, 0]
    new = Written(tmp_path, "new")
    new.index.store(1, blocks(1), blocks(1))
    view.read(tmp_path, "new", PAIRS)
    assert view.matched(blocks(1), SLOTS).tolist() == [0, 8, 0, 0]
    new.shelf.close()


CHANGES = st.lists(
    st.tuples(st.sampled_from(["store", "remove", "clear"]), st.integers(0, 3), st.integers(0, 5), st.integers(1, 40)),
    max_size=40,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES)
def test_writer_and_reader_always_agree(
    tmp_path: Path, written: Written, changes: list[tuple[str, int, int, int]]
) -> None:
    view = reader(tmp_path)
    for what, slot, chain, count in changes:
        if what == "store":
            written.index.store(slot, blocks(chain, count), blocks(chain, count))
        elif what == "remove":
            written.index.remove(slot, blocks(chain, count))
        else:
            written.index.clear(slot)
        for seen in range(6):
            expected = written.index.matched(blocks(seen, 40), SLOTS).tolist()
            assert view.matched(blocks(seen, 40), SLOTS).tolist() == expected


def _churn(folder: Path, ready: multiprocessing.synchronize.Event) -> None:
    written = Written(folder)
    written.index.store(0, blocks(1, 64), blocks(1, 64))
    ready.set()
    round_ = 2
    while True:  # new blocks come, old ones go, and the table grows and frees rows all the time
        written.index.store(1, blocks(round_, 64), blocks(round_, 64))
        written.index.remove(1, blocks(round_ - 1 if round_ % 50 else 1, 64))
        if round_ % 2000 == 0:  # a full index would throw out what stays
            written.index.clear(1)
        round_ += 1


def test_beside_a_writer_that_never_rests_what_stays_is_always_found_and_what_never_was_never(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    writer = context.Process(target=_churn, args=(tmp_path, ready), daemon=True)
    writer.start()
    try:
        assert ready.wait(60)
        view = reader(tmp_path)
        for _ in range(5000):
            assert view.matched(blocks(1, 64), SLOTS)[0] == 64
            assert view.matched(blocks(-1 & 0xFFFF_FFFF, 64), SLOTS).tolist() == [0, 0, 0, 0]
    finally:
        writer.kill()
        writer.join()
    assert view.matched(blocks(1, 64), SLOTS)[0] == 64
