"""What a real vLLM 0.32 said, recorded by e2e/vllm/record_golden.py: it reads, and it still holds the hard cases."""

import base64
import json
from collections import Counter
from pathlib import Path
from typing import Any

from picker.engines.kv_events import AllBlocksCleared, BlockRemoved, BlockStored, Event, KvBatch, decode
from picker.engines.metrics import EngineSample, parse

GOLDEN = Path(__file__).parent / "golden"
RECORDED = json.loads((GOLDEN / "vllm-0.32-kv-events.json").read_text())
STEPS: list[dict[str, Any]] = [RECORDED["warm_up"], *RECORDED["steps"]]


def sample(page: str) -> EngineSample:
    return parse((GOLDEN / page).read_bytes(), "vllm")


def batches() -> list[KvBatch]:
    decoded = [decode(base64.b64decode(payload)) for step in STEPS for _, _, payload in step["frames"]]
    return [batch for batch in decoded if isinstance(batch, KvBatch)]


def events() -> list[Event]:
    return [event for batch in batches() for event in batch.events]


def test_an_idle_engine_counts_nothing_and_tells_its_cache() -> None:
    idle = sample("vllm-0.32.txt")
    assert (idle.running, idle.waiting, idle.kv_usage) == (0.0, 0.0, 0.0)
    assert (idle.block_size, idle.num_blocks, idle.lora) == (32.0, 41.0, None)


def test_a_full_batch_runs_three_and_one_waits() -> None:
    busy = sample("vllm-0.32-busy.txt")
    assert (busy.running, busy.waiting) == (3.0, 1.0)
    assert busy.kv_usage is not None
    assert 0.0 < busy.kv_usage < 1.0


def test_running_totals_agree_with_the_requests_that_were_made() -> None:
    idle, busy = sample("vllm-0.32.txt"), sample("vllm-0.32-busy.txt")
    asked = [step for step in STEPS if "cached_tokens" in step]
    assert busy.prefix_hits == sum(step["cached_tokens"] for step in asked)
    assert idle.prompt_tokens is not None
    assert busy.prompt_tokens is not None
    # Three running requests of 70 tokens each; the waiting one is not counted yet.
    assert busy.prompt_tokens - idle.prompt_tokens == sum(len(step["prompt_token_ids"]) for step in asked) + 3 * 70


def test_every_recorded_batch_and_event_is_understood() -> None:
    frames = sum(len(step["frames"]) for step in STEPS)
    assert len(batches()) == frames > 20
    assert [(batch.unknown, batch.malformed, batch.rank) for batch in batches()] == [(0, 0, 0)] * frames
    assert {type(event).__mro__[1] for event in events()} == {BlockStored, BlockRemoved, AllBlocksCleared}


def test_sequence_numbers_count_up_from_zero() -> None:
    numbers = [int.from_bytes(base64.b64decode(seq), "big") for step in STEPS for _, seq, _ in step["frames"]]
    assert numbers == list(range(len(numbers)))


def test_a_cache_salt_stands_on_the_first_block_alone() -> None:
    stored = [event for event in events() if isinstance(event, BlockStored)]
    salted = [extras for event in stored if (extras := event.extras()) is not None]
    assert salted
    assert all(extras[0].endswith(b"tenant-a") and not any(extras[1:]) for extras in salted)


def test_one_block_was_stored_twice_and_outlived_the_removal_of_one_copy() -> None:
    """Without a count of copies its hit would be missed: the last request found it."""
    copies: Counter[object] = Counter()
    twice: set[object] = set()
    for event in events():
        match event:
            case BlockStored(block_hashes=hashes):
                copies.update(hashes)
                twice |= {each for each in hashes if copies[each] > 1}
            case BlockRemoved(block_hashes=hashes):
                copies.subtract(hashes)
            case AllBlocksCleared():
                copies.clear()
                twice.clear()
    assert [copies[each] for each in twice if copies[each] == 1]
    assert RECORDED["steps"][-1]["cached_tokens"] == 64
