"""One pick's view of the pool."""

from typing import Any

import numpy as np
import pytest

from picker.engines import snapshot as snapshots
from picker.engines.ledger import Ledger
from picker.engines.metrics import EngineSample
from picker.engines.rows import Rows
from picker.engines.table import FOREIGN_HALF_LIFE_S, EngineTable


def rows(
    table: EngineTable | None = None,
    ledger: Ledger | None = None,
    hits: tuple[float, ...] = (0.0,),
    prompt: float = 100.0,
    now: float = 0.0,
    slots: tuple[int, ...] | None = None,
) -> Rows:
    picked = np.array(slots or range(len(hits)), dtype=np.intp)
    return snapshots.snapshot(table or EngineTable(), ledger or Ledger(), picked, np.array(hits), prompt, now)


def scraped(slot: int, at: float, own_most: float = 0, **reading: Any) -> EngineTable:
    table = EngineTable()
    table.observe(slot, EngineSample(**reading), at, own_most)
    return table


def test_a_pool_never_scraped_gives_the_ledgers_own_truth() -> None:
    ledger = Ledger()
    ledger.reserve(1, 0, 40, 60, 0.0)
    seen = rows(ledger=ledger, hits=(0.0, 0.0))
    assert seen.batch.tolist() == [1.0, 0.0]
    assert seen.queued_tokens.tolist() == [40.0, 0.0]
    assert seen.age_s.tolist() == [np.inf, np.inf]
    assert np.isfinite(seen.batch).all()


def test_rows_follow_the_order_of_the_slots_asked_for() -> None:
    seen = rows(scraped(5, 1.0, running=3), hits=(0.0, 0.0, 0.0), slots=(2, 5, 0), now=1.0)
    assert seen.slots.tolist() == [2, 5, 0]
    assert seen.running.tolist() == [0.0, 3.0, 0.0]


def test_the_batch_is_ours_and_what_others_put_there() -> None:
    ledger = Ledger()
    ledger.reserve(1, 0, 10, 10, 0.0)
    table = scraped(0, 1.0, own_most=1, running=4, waiting=1)
    seen = rows(table, ledger, now=1.0)
    assert seen.batch.tolist() == [5.0]
    assert seen.in_flight.tolist() == [1.0]


def test_others_requests_fade_by_half_in_each_half_life_without_a_scrape() -> None:
    table = scraped(0, 0.0, running=8, waiting=0)
    batches = [rows(table, now=age).batch[0] for age in (0.0, FOREIGN_HALF_LIFE_S, 3 * FOREIGN_HALF_LIFE_S, 1e9)]
    assert batches == pytest.approx([8.0, 4.0, 1.0, 0.0])


def test_the_scraped_values_stay_as_they_were_read_beside_their_age() -> None:
    seen = rows(scraped(0, 2.0, running=3, waiting=1, kv_usage=0.5), now=12.0)
    assert (seen.running[0], seen.waiting[0], seen.kv_usage[0], seen.age_s[0]) == (3.0, 1.0, 0.5, 10.0)


def test_new_tokens_are_the_prompt_less_the_hit() -> None:
    assert rows(hits=(0.0, 64.0), prompt=100.0).new_tokens.tolist() == [100.0, 36.0]


def test_the_last_token_is_never_a_hit() -> None:
    assert rows(hits=(100.0, 500.0), prompt=100.0).new_tokens.tolist() == [1.0, 1.0]


def test_an_engine_with_known_blocks_reuses_full_blocks_of_all_but_the_last_token() -> None:
    seen = rows(scraped(0, 0.0, running=0, block_size=32), hits=(4096.0,), prompt=4096.0)
    assert seen.new_tokens.tolist() == [32.0]
    assert seen.hit_tokens.tolist() == [4096.0]


@pytest.mark.parametrize("prompt", [0.0, 0.4, 1.0])
def test_an_empty_prompt_still_costs_one_token(prompt: float) -> None:
    assert rows(hits=(0.0, 16.0), prompt=prompt).new_tokens.tolist() == [1.0, 1.0]


def test_decode_tokens_are_the_context_of_requests_past_their_first_token() -> None:
    ledger = Ledger()
    ledger.reserve(1, 0, 40, 60, 0.0)
    ledger.first_byte(1, 1.0)
    ledger.progress(1, 5)
    assert rows(ledger=ledger).decode_tokens.tolist() == [65.0]


def test_a_snapshot_does_not_change_with_the_tables_after_it() -> None:
    ledger = Ledger()
    seen = rows(ledger=ledger)
    ledger.reserve(1, 0, 40, 60, 0.0)
    assert seen.batch.tolist() == [0.0]


def test_no_endpoints_give_no_rows() -> None:
    assert len(snapshots.snapshot(EngineTable(), Ledger(), np.empty(0, np.intp), np.empty(0), 10.0, 0.0)) == 0
