"""Continuous batching, step by step, on small engines."""

from collections.abc import Iterable

import pytest

from picker.simulator.engine import Engine
from picker.simulator.sequence import Cleared, EngineRequest, KvEvent, Limits, Refused, Sequence, Step
from picker.simulator.steptime import load_row

ROW = load_row()


def small(blocks: int = 100, seqs: int = 8, budget: int = 64, size: int = 4) -> Engine:
    limits = Limits(block_size=size, max_num_seqs=seqs, max_num_batched_tokens=budget)
    return Engine(ROW, limits, kv_tokens=blocks * size, events=True)


def ask(name: str, prompt: int, output: int = 1, first: int | None = None, size: int = 4) -> EngineRequest:
    """A request whose block hashes start at `first`; its own by default."""
    start = 1000 * ord(name) if first is None else first
    return EngineRequest(name, prompt, output, tuple(range(start, start + prompt // size)))


def step(engine: Engine) -> Step:
    begun = engine.schedule()
    assert begun is not None
    engine.complete(begun)
    return begun


def told(events: Iterable[KvEvent]) -> list[tuple[object, ...]]:
    """What was stored (hashes, parent, request, index of the first) or removed (hashes)."""
    return [(event.hashes.tolist(), *event[1:]) for event in events if not isinstance(event, Cleared)]


def names(sequences: Iterable[Sequence]) -> list[str]:
    return [sequence.request.id for sequence in sequences]


def chunks(begun: Step) -> list[tuple[str, int]]:
    return [(sequence.request.id, new) for sequence, new in begun.prefills]


def test_an_idle_engine_has_no_step() -> None:
    assert small().schedule() is None


def test_a_request_prefills_then_decodes_a_token_a_step() -> None:
    engine = small()
    sequence = engine.submit(ask("a", prompt=10, output=3))
    tokens = [step(engine).tokens for _ in range(3)]
    assert tokens == [10, 1, 1]
    assert sequence.finished
    assert engine.schedule() is None


def test_a_long_prompt_is_prefilled_in_chunks_and_emits_only_at_its_end() -> None:
    engine = small(budget=64)
    engine.submit(ask("a", prompt=150))
    steps = [step(engine) for _ in range(3)]
    assert [chunks(s) for s in steps] == [[("a", 64)], [("a", 64)], [("a", 22)]]
    assert [names(s.emitting) for s in steps] == [[], [], ["a"]]


def test_running_sequences_come_before_waiting_ones() -> None:
    engine = small(budget=64)
    engine.submit(ask("a", prompt=4, output=5))
    step(engine)
    engine.submit(ask("b", prompt=100))
    mixed = step(engine)
    assert mixed.decodes == 1
    assert chunks(mixed) == [("b", 63)]


def test_no_more_than_max_num_seqs_run() -> None:
    engine = small(seqs=2)
    for name in "abc":
        engine.submit(ask(name, prompt=4, output=2))
    step(engine)
    assert names(engine.running) == ["a", "b"]
    assert list(engine.waiting) == ["c"]


def test_a_repeated_prompt_hits_whole_blocks_but_never_its_last_token() -> None:
    engine = small()
    engine.submit(ask("a", prompt=16, first=0))
    step(engine)
    again, longer = engine.submit(ask("b", prompt=16, first=0)), engine.submit(ask("c", prompt=18, first=0))
    step(engine)
    assert again.cached_tokens == 12
    assert longer.cached_tokens == 16
    assert engine.counters.prefix_hits == 28
    assert engine.counters.prefix_queries == 50


def test_equal_prompts_of_one_step_share_blocks() -> None:
    engine = small()
    for name in "ab":
        engine.submit(ask(name, prompt=17, output=2, first=0))
    assert chunks(step(engine)) == [("a", 17), ("b", 1)]


def test_generated_blocks_are_cached_under_the_hashes_told() -> None:
    engine = small()
    engine.submit(EngineRequest("a", 4, 8, hashes=(1, 2, 3)))
    while step(engine).tokens and engine.running:
        pass
    follow_up = engine.submit(EngineRequest("b", 12, 1, hashes=(1, 2, 9)))
    step(engine)
    assert follow_up.cached_tokens == 8


def test_short_of_blocks_the_last_admitted_is_preempted_and_recomputed_first() -> None:
    engine = small(blocks=4)
    engine.submit(ask("a", prompt=8, output=6))
    engine.submit(ask("b", prompt=8, output=6))
    step(engine)
    engine.submit(ask("c", prompt=4, output=6))
    short = step(engine)
    assert names(short.preempted) == ["b"]
    assert names(short.emitting) == ["a"]
    assert engine.counters.preemptions == 1
    assert list(engine.waiting) == ["b", "c"]
    order = []
    while (begun := engine.schedule()) is not None:
        order += [s.request.id for s in engine.complete(begun) if s.finished]
    assert order == ["a", "b", "c"]


def test_nobody_is_admitted_in_a_step_that_preempted() -> None:
    engine = small(blocks=5)
    engine.submit(ask("a", prompt=8, output=12, first=0))
    step(engine)
    engine.submit(ask("b", prompt=8, output=12, first=0))
    for _ in range(4):
        assert not step(engine).preempted
    short = step(engine)
    assert names(short.preempted) == list(engine.waiting) == ["b"]
    # What `b` lacks now is free: the copy of its second block went, and `a` holds the same.
    assert engine.pool.free == 1
    assert chunks(step(engine)) == [("b", 4)]


def test_a_prompt_is_admitted_only_where_all_of_it_fits() -> None:
    engine = small(blocks=10, budget=8)
    engine.submit(ask("a", prompt=8, output=2))
    step(engine)
    engine.submit(ask("b", prompt=36))
    assert chunks(step(engine)) == []
    assert chunks(step(engine)) == [("b", 8)]


def test_a_hit_on_one_copy_survives_the_eviction_of_another() -> None:
    engine = small(blocks=4)
    for name, prompt, first in (("a", 8, 0), ("b", 8, 0), ("c", 8, 100)):
        engine.submit(ask(name, prompt, first=first))
        step(engine)
    again = engine.submit(ask("d", prompt=12, first=0))
    step(engine)
    assert again.cached_tokens == 8


def test_what_is_half_filled_is_handed_out_before_anything_cached() -> None:
    engine = small(blocks=3)
    for name, prompt, first in (("a", 8, 0), ("b", 3, 100), ("c", 3, 200)):
        engine.submit(ask(name, prompt, first=first))
        step(engine)
    again = engine.submit(ask("d", prompt=9, first=0))
    step(engine)
    assert again.cached_tokens == 8


def test_an_aborted_request_frees_its_blocks_and_emits_nothing() -> None:
    engine = small()
    engine.submit(ask("a", prompt=8, output=5))
    engine.submit(ask("b", prompt=8, output=5))
    begun = engine.schedule()
    assert begun is not None
    assert engine.abort("a")
    assert names(engine.complete(begun)) == ["b"]
    assert engine.abort("b")
    assert not engine.abort("b")
    assert engine.kv_usage == 0
    assert engine.schedule() is None


def test_a_waiting_request_can_be_aborted() -> None:
    engine = small()
    engine.submit(ask("a", prompt=8))
    assert engine.abort("a")
    assert engine.schedule() is None


def test_events_tell_what_became_matchable_with_its_parent() -> None:
    engine = small()
    request = EngineRequest("a", 10, 4, hashes=(1, 2, 3))
    engine.submit(request)
    events = [told(step(engine).events) for _ in range(4)]
    assert events == [[([1, 2], None, request, 0)], [], [([3], 2, request, 2)], []]


def test_events_tell_of_each_copy() -> None:
    engine = small(blocks=3)
    asked = [ask("a", prompt=8, first=0), ask("b", prompt=8, first=0), ask("c", prompt=8, first=100)]
    seen = []
    for request in asked:
        engine.submit(request)
        seen.append(told(step(engine).events))
    assert seen[:2] == [[([0, 1], None, asked[0], 0)], [([1], 0, asked[1], 1)]]
    assert seen[2][0] == ([1, 1],)


def test_events_tell_what_was_evicted_before_what_replaced_it() -> None:
    engine = small(blocks=3)
    engine.submit(EngineRequest("a", 11, 1, hashes=(1, 2)))
    step(engine)
    request = EngineRequest("b", 11, 1, hashes=(5, 6))
    engine.submit(request)
    assert told(step(engine).events) == [([2, 1],), ([5, 6], None, request, 0)]


def test_a_cleared_cache_is_told_with_the_next_step() -> None:
    engine = small()
    engine.submit(ask("a", prompt=8, output=2, first=0))
    step(engine)
    assert not engine.reset_prefix_cache()
    step(engine)
    assert engine.reset_prefix_cache()
    engine.submit(ask("b", prompt=8, first=0))
    begun = step(engine)
    assert begun.events[0] == Cleared()
    assert begun.tokens == 8


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (EngineRequest("x", 0, 1), "empty"),
        (EngineRequest("x", 1, 0), "empty"),
        (EngineRequest("x", 399, 2), "too-long"),
        (EngineRequest("a", 1, 1), "duplicate"),
    ],
)
def test_what_cannot_be_served_is_refused(request_: EngineRequest, reason: str) -> None:
    engine = small(blocks=100)
    engine.submit(ask("a", prompt=4))
    with pytest.raises(Refused) as refused:
        engine.submit(request_)
    assert refused.value.reason == reason


def test_the_waiting_queue_is_bounded() -> None:
    engine = Engine(ROW, Limits(max_waiting=1))
    engine.submit(ask("a", prompt=4))
    with pytest.raises(Refused, match="waiting already"):
        engine.submit(ask("b", prompt=4))


def test_limits_that_vllm_would_not_start_with_are_refused() -> None:
    with pytest.raises(ValueError, match="max_num_batched_tokens"):
        Limits(max_num_seqs=100, max_num_batched_tokens=99)
    with pytest.raises(ValueError, match="at least 1"):
        Limits(block_size=0)
