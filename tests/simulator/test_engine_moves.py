"""A running request may go on in another engine: no token is lost or repeated, and no block."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from picker.simulator.blocks import Hashes
from picker.simulator.engine import Engine
from picker.simulator.sequence import UNSEEN, EngineRequest, Limits, Removed, Stored
from picker.simulator.station import Station
from picker.simulator.steptime import load_row

ROW = load_row()
SIZE, BLOCKS = 4, 24
LIMITS = Limits(block_size=SIZE, max_num_seqs=4, max_num_batched_tokens=12)
Moves = list[tuple[int, int, bool]]
"""In which turn which request moves, and whether its KV does."""


def engine(number: int = 0) -> Engine:
    return Engine(ROW, LIMITS, kv_tokens=BLOCKS * SIZE, events=True, first=number << 24)


def request(name: str, prompt: int, output: int) -> EngineRequest:
    return EngineRequest(name, prompt, output, range(10_000 * int(name), 10_000 * int(name) + prompt // SIZE))


def after_tokens(of: Engine, name: str, tokens: int) -> None:
    """Run until the request has so many."""
    while (sequence := of.find(name)) is not None and sequence.generated < tokens:
        step = of.schedule()
        assert step is not None
        of.complete(step)


@st.composite
def requests(draw: st.DrawFn) -> list[EngineRequest]:
    sizes = draw(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 30)), min_size=1, max_size=6))
    return [request(str(number), prompt, output) for number, (prompt, output) in enumerate(sizes)]


@given(requests(), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 5), st.booleans()), max_size=12))
def test_however_requests_move_each_gets_its_tokens_and_blocks_are_conserved(
    asked: list[EngineRequest], moves: Moves
) -> None:
    engines = [engine(0), engine(1)]
    tokens: Counter[str] = Counter()
    for request in asked:
        engines[0].submit(request)
    turn = 0
    while any(one.running or one.waiting for one in engines):
        for at, which, with_kv in moves:
            here = next((one for one in engines if one.find(str(which))), None)
            if at == turn and here is not None:
                there = engines[1 - engines.index(here)]
                sequence = here.withdraw(str(which))
                assert sequence is not None
                rest = sequence.rest(SIZE)
                if with_kv:
                    there.bring(rest, rest.prompt_tokens)
                there.submit(rest)
        for one in engines:
            step = one.schedule()
            if step is not None:
                tokens.update(sequence.request.id for sequence in one.complete(step))
            used = {block for s in one.running for block in s.blocks[: s.held].tolist()}
            assert one.pool.free + len(used) == BLOCKS
        turn += 1
    assert tokens == {one.id: one.output_tokens for one in asked}
    assert [one.pool.free for one in engines] == [BLOCKS, BLOCKS]


def test_what_was_brought_is_found_and_only_the_rest_is_computed() -> None:
    here, there = engine(0), engine(1)
    here.submit(request("1", 20, 20))
    after_tokens(here, "1", 7)
    sequence = here.withdraw("1")
    assert sequence is not None
    rest = sequence.rest(SIZE)
    assert there.bring(rest, 26)
    moved = there.submit(rest)
    after_tokens(there, "1", 1)
    assert (rest.prompt_tokens, rest.output_tokens) == (27, 13)
    assert moved.cached_tokens == 24


def test_what_two_engines_generated_is_never_taken_for_one_another() -> None:
    here, there = engine(0), engine(1)
    for one in (here, there):
        one.submit(EngineRequest("1", 8, 20, (1, 2)))
        after_tokens(one, "1", 9)
    sequence = here.withdraw("1")
    there.abort("1")
    assert sequence is not None
    moved = there.submit(sequence.rest(SIZE))
    after_tokens(there, "1", 1)
    assert moved.cached_tokens == 8


def test_kv_is_not_brought_where_blocks_in_use_leave_no_room() -> None:
    there = engine(1)
    there.submit(request("2", 80, 10))
    after_tokens(there, "2", 1)
    assert not there.bring(request("1", 40, 1), 40)
    assert there.bring(request("1", 8, 1), 8)


def test_brought_blocks_are_told_to_who_listens_and_evicted_ones_too() -> None:
    there = engine(1)
    there.submit(request("2", 80, 1))
    after_tokens(there, "2", 1)
    there.bring(request("1", 40, 1), 40)
    there.submit(request("3", 4, 1))
    step = there.schedule()
    assert step is not None
    brought = [event for event in step.events if isinstance(event, Stored) and event.request.id == "1"]
    evicted: list[Hashes] = [event.hashes for event in step.events if isinstance(event, Removed)]
    assert [event.hashes.tolist() for event in brought] == [list(range(10_000, 10_010))]
    assert {int(h) for hashes in evicted for h in hashes if h < UNSEEN} <= set(range(20_000, 20_020))


def test_a_request_leaves_a_run_of_decode_steps_with_the_tokens_of_the_steps_that_have_ended() -> None:
    alone, run = Station("a", engine(0)), Station("b", engine(1))
    ends: list[float] = []
    alone.submit(request("1", 8, 20), 0.0)
    while alone.engine.running:
        ends.append(alone.ends_ms)
        alone.settle(alone.ends_ms)
        alone.end()
    run.submit(request("1", 8, 20), 0.0)
    run.end()
    middle = (ends[0] + ends[-1]) / 2
    sequence = run.withdraw("1", middle)
    assert sequence is not None
    assert 1 < sequence.generated < 20
    assert run.engine.pool.free == BLOCKS
    run.end()
    assert run.ends_ms == float("inf")
