"""The scraped columns: last good reading, others' requests, ages."""

import numpy as np
import pytest

from picker.engines import table as column
from picker.engines.metrics import EngineSample, LoraState
from picker.engines.table import EngineTable


def test_a_slot_never_scraped_is_empty_and_infinitely_old() -> None:
    table = EngineTable()
    assert table.column(column.SCRAPED_AT)[3] == -np.inf
    assert table.column(column.RUNNING)[3] == 0
    assert table.column(column.BLOCK_SIZE)[3] == 1
    assert table.lora(3) is None


def test_a_reading_fills_the_columns() -> None:
    table = EngineTable()
    table.observe(2, EngineSample(running=3, waiting=1, kv_usage=0.5, block_size=32, num_blocks=100), 7.0, own_most=0)
    row = table.columns[:, 2]
    assert row[: column.FOREIGN].tolist() == [7.0, 3.0, 1.0, 0.5, 32.0, 100.0]


def test_what_a_later_page_leaves_out_stays_as_it_was() -> None:
    table = EngineTable()
    lora = LoraState(4, ("a",), ())
    table.observe(0, EngineSample(running=3, waiting=1, block_size=32, lora=lora), 1.0, own_most=0)
    table.observe(0, EngineSample(running=2), 2.0, own_most=0)
    assert table.columns[:, 0][[column.RUNNING, column.WAITING, column.BLOCK_SIZE]].tolist() == [2.0, 1.0, 32.0]
    assert table.lora(0) == lora


@pytest.mark.parametrize(("own_most", "others"), [(0, 6), (4, 2), (6, 0), (9, 0)])
def test_others_requests_are_what_exceeds_the_most_we_can_have_there(own_most: int, others: int) -> None:
    table = EngineTable()
    table.observe(0, EngineSample(running=4, waiting=2), 1.0, own_most)
    assert table.column(column.FOREIGN)[0] == others


def test_observe_tells_whether_the_load_changed() -> None:
    table = EngineTable()
    assert table.observe(0, EngineSample(running=1, waiting=0), 1.0, 0)
    assert not table.observe(0, EngineSample(running=1, waiting=0, kv_usage=0.9), 2.0, 0)
    assert table.observe(0, EngineSample(running=1, waiting=1), 3.0, 0)


def test_growing_keeps_what_is_known_and_a_cleared_slot_forgets_it() -> None:
    table = EngineTable(capacity=1)
    table.observe(0, EngineSample(running=5, lora=LoraState(1, (), ())), 1.0, 0)
    table.ensure(100)
    assert table.capacity >= 100
    assert table.column(column.RUNNING)[0] == 5
    table.clear(0)
    assert table.column(column.SCRAPED_AT)[0] == -np.inf
    assert table.column(column.RUNNING)[0] == 0
    assert table.lora(0) is None


def test_hardware_classes_are_numbered_as_they_appear_and_bounded() -> None:
    table = EngineTable()
    for slot, name in enumerate(["", "h100", "l40s", "h100", *(f"other-{i}" for i in range(20))]):
        table.classify(slot, name)
    assert table.column(column.HARDWARE)[:4].tolist() == [0, 1, 2, 1]
    assert table.column(column.HARDWARE)[:24].max() == column.MAX_HARDWARE - 1
    assert table.column(column.HARDWARE)[23] == 0
