"""Rows that one process writes and others read: whole, the latest, and without waiting."""

import multiprocessing
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from picker.pool.view import Endpoint, Pool, PoolView
from picker.shared.mirror import Mirror, key_of
from picker.shared.rows import Block, attach, keep, publish, vacate, writing

WIDTH = 9
EMPTY = np.zeros(WIDTH)
ENDPOINTS = [Endpoint(f"10.0.0.{i}:8000") for i in range(6)]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    kept = [keep(tmp_path, name, WIDTH) for name in ("a", "b")]
    yield tmp_path
    for piece in kept:
        piece.close()


def view_of(*endpoints: Endpoint) -> PoolView:
    return Pool().replace(endpoints).view


def mirror(*blocks: Block, view: PoolView | None = None, least: tuple[int, ...] = ()) -> Mirror:
    made = Mirror(blocks, EMPTY, np.isin(np.arange(WIDTH), least))
    made.follow(view or view_of(*ENDPOINTS), 1)
    return made


def say(block: Block, row: int, endpoint: Endpoint, value: float) -> None:
    publish(writing(block), row, key_of(endpoint), np.full((WIDTH, 1), value), 0)


class TestOneWriter:
    def test_a_reader_sees_what_was_published_under_its_own_slot(self, folder: Path) -> None:
        block = attach(folder, "a", WIDTH, writes=True)
        reader = mirror(attach(folder, "a", WIDTH))
        say(block, 5, ENDPOINTS[2], 7.0)
        reader.refresh()
        assert reader.columns[0].tolist() == [0, 0, 7, 0, 0, 0]

    def test_a_writer_that_dies_in_the_middle_leaves_the_last_whole_row(self, folder: Path) -> None:
        block = attach(folder, "a", WIDTH, writes=True)
        say(block, 0, ENDPOINTS[0], 7.0)
        block.values[0, (block.counts[0] + 1) & 1, :4] = 99.0  # as far as it came
        reader = mirror(attach(folder, "a", WIDTH))
        assert reader.columns[:, 0].tolist() == [7.0] * WIDTH
        say(block, 0, ENDPOINTS[0], 8.0)  # by whoever writes next
        reader.refresh()
        assert reader.columns[:, 0].tolist() == [8.0] * WIDTH

    def test_nobody_counts_once_the_writer_is_buried(self, folder: Path) -> None:
        block = attach(folder, "a", WIDTH, writes=True)
        reader = mirror(attach(folder, "a", WIDTH))
        for i, endpoint in enumerate(ENDPOINTS):
            say(block, i, endpoint, 3.0)
        reader.refresh()
        assert reader.columns[0].sum() == 18
        vacate(block, EMPTY)
        reader.refresh()
        assert not reader.columns.any()

    def test_a_reader_cannot_write(self, folder: Path) -> None:
        with pytest.raises(ValueError, match="read-only"):
            attach(folder, "a", WIDTH).values[0] = 1.0

    def test_memory_of_another_shape_is_refused(self, folder: Path) -> None:
        with pytest.raises(ValueError, match="bytes, not"):
            attach(folder, "a", WIDTH + 1)


class TestSeveralWriters:
    def test_columns_are_added_up_but_for_those_of_which_the_least_counts(self, folder: Path) -> None:
        blocks = [attach(folder, name, WIDTH, writes=True) for name in ("a", "b")]
        reader = mirror(*blocks, least=(1,))
        for block, value in zip(blocks, (3.0, 5.0), strict=True):
            say(block, 0, ENDPOINTS[0], value)
        reader.refresh()
        assert reader.columns[:3, 0].tolist() == [8.0, 3.0, 8.0]

    def test_an_endpoint_unknown_to_the_reader_counts_nowhere_until_it_is_known(self, folder: Path) -> None:
        block = attach(folder, "a", WIDTH, writes=True)
        reader = mirror(block, view=view_of(ENDPOINTS[0]))
        say(block, 0, ENDPOINTS[1], 4.0)
        reader.refresh()
        assert not reader.columns.any()
        reader.follow(view_of(ENDPOINTS[0], ENDPOINTS[1]), 1)
        assert reader.columns[0].tolist() == [0.0, 4.0]

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        told=st.lists(
            st.tuples(st.integers(0, 1), st.integers(0, 7), st.integers(0, 5), st.integers(0, 100), st.booleans()),
            max_size=40,
        )
    )
    def test_whenever_it_looks_a_reader_knows_the_sums_of_the_latest_rows(
        self, folder: Path, told: list[tuple[int, int, int, int, bool]]
    ) -> None:
        """An endpoint moves between a writer's rows, as it does when a process starts anew: the row written last is
        its own, and a row given to somebody else takes nothing along but what it held."""
        blocks = [attach(folder, name, WIDTH, writes=True) for name in ("a", "b")]
        for block in blocks:
            vacate(block, EMPTY)
        reader = mirror(*blocks)
        owner: list[dict[int, int]] = [{}, {}]
        held: list[dict[int, tuple[int, int]]] = [{}, {}]  # by endpoint: its row, and the value there
        for who, row, endpoint, value, look in told:
            before = owner[who].get(row)
            if before is not None and before != endpoint and held[who].get(before, (-1, 0))[0] == row:
                del held[who][before]
            owner[who][row] = endpoint
            held[who][endpoint] = (row, value)
            say(blocks[who], row, ENDPOINTS[endpoint], float(value))
            reader.refresh()
            if look:
                sums = [sum(h[e][1] for h in held if e in h) for e in range(6)]
                assert reader.columns[0].tolist() == sums


def _hammer(folder: Path, ready: "multiprocessing.synchronize.Event") -> None:
    block = attach(folder, "a", WIDTH, writes=True)
    columns = np.zeros((WIDTH, 1))
    while True:
        columns += 1.0
        for row, endpoint in enumerate(ENDPOINTS):
            publish(writing(block), row, key_of(endpoint), columns, 0)
        ready.set()


def test_beside_a_writer_that_never_rests_no_row_is_ever_torn_and_none_goes_back(folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    writer = context.Process(target=_hammer, args=(folder, ready), daemon=True)
    reader = mirror(attach(folder, "a", WIDTH))
    before, changes = np.zeros(len(ENDPOINTS)), 0
    writer.start()
    try:
        assert ready.wait(60)
        while changes < 300:
            reader.refresh()
            now = reader.columns.copy()
            assert (now == now[0]).all()
            assert (now[0] >= before).all()
            changes += bool((now[0] > before).any())
            before = now[0]
    finally:
        writer.kill()
        writer.join()
    assert writer.exitcode == -signal.SIGKILL
    reader.refresh()
    assert (reader.columns == reader.columns[0]).all()
