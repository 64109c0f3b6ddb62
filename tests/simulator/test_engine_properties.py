"""What holds for any engine, any requests, any order of arrivals and aborts."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from picker.simulator.engine import Engine
from picker.simulator.replay import replay
from picker.simulator.sequence import EngineRequest, Limits, Removed, Sequence, Step, Stored
from picker.simulator.steptime import load_row

ROW = load_row()
SIZE = 4
BLOCKS = 24


@dataclass(frozen=True)
class Scenario:
    limits: Limits
    requests: tuple[EngineRequest, ...]
    submit_at: tuple[int, ...]
    abort_at: tuple[int | None, ...]


@st.composite
def scenarios(draw: st.DrawFn, aborts: bool = True) -> Scenario:
    seqs = draw(st.integers(1, 5))
    limits = Limits(block_size=SIZE, max_num_seqs=seqs, max_num_batched_tokens=draw(st.integers(seqs, 40)))
    requests = []
    for i in range(draw(st.integers(1, 10))):
        prompt, output = draw(st.integers(1, 60)), draw(st.integers(1, 30))
        shared = draw(st.integers(0, prompt // SIZE))
        family = draw(st.integers(0, 1)) * 1000
        own = range(10_000 * (i + 1), 10_000 * (i + 1) + prompt // SIZE - shared)
        requests.append(EngineRequest(str(i), prompt, output, (*range(family, family + shared), *own)))
    n = len(requests)
    return Scenario(
        limits,
        tuple(requests),
        tuple(sorted(draw(st.lists(st.integers(0, 30), min_size=n, max_size=n)))),
        tuple(draw(st.one_of(st.none(), st.integers(0, 60))) if aborts else None for _ in requests),
    )


def run(scenario: Scenario) -> Iterator[tuple[Engine, Step, list[Sequence]]]:
    """Every step of the scenario, after it was completed."""
    engine = Engine(ROW, scenario.limits, kv_tokens=BLOCKS * SIZE, events=True)
    todo = list(zip(scenario.submit_at, scenario.requests, scenario.abort_at, strict=True))
    turn = 0
    while turn <= 61 or engine.running or engine.waiting:
        for at, request, _ in todo:
            if at == turn:
                engine.submit(request)
        step = engine.schedule()
        for _, request, until in todo:
            if until == turn:
                engine.abort(request.id)
        if step is not None:
            yield engine, step, engine.complete(step)
        turn += 1


def held(sequence: Sequence) -> list[int]:
    return [int(block) for block in sequence.blocks[: sequence.held]]


@given(scenarios())
def test_blocks_are_conserved(scenario: Scenario) -> None:
    for engine, _, _ in run(scenario):
        used = {block for sequence in engine.running for block in held(sequence)}
        assert engine.pool.free + len(used) == BLOCKS
        for sequence in engine.running:
            assert sequence.held * SIZE >= sequence.computed
            assert len(set(held(sequence))) == sequence.held
        for sequence in engine.waiting.values():
            assert not sequence.held
    assert engine.pool.free == BLOCKS


@given(scenarios())
def test_the_budget_and_the_batch_are_never_exceeded(scenario: Scenario) -> None:
    for engine, step, _ in run(scenario):
        assert step.decodes + sum(new for _, new in step.prefills) == step.tokens
        assert 1 <= step.tokens <= scenario.limits.max_num_batched_tokens
        assert len(engine.running) <= scenario.limits.max_num_seqs
        assert step.duration_ms > 0


@given(scenarios())
def test_work_is_conserved(scenario: Scenario) -> None:
    """Whenever a request is here, a step runs; and none waits that would fit whole."""
    engine = Engine(ROW, scenario.limits, kv_tokens=BLOCKS * SIZE)
    for request in scenario.requests:
        engine.submit(request)
    while engine.running or engine.waiting:
        step = engine.schedule()
        assert step is not None
        full = step.tokens == scenario.limits.max_num_batched_tokens
        full |= len(engine.running) == scenario.limits.max_num_seqs
        if engine.waiting and not step.preempted and not full:
            head = next(iter(engine.waiting.values()))
            assert engine.pool.free * SIZE < head.known
        engine.complete(step)


@given(scenarios(aborts=False))
def test_every_request_gets_exactly_its_tokens(scenario: Scenario) -> None:
    tokens = Counter(s.request.id for _, _, emitted in run(scenario) for s in emitted)
    assert tokens == {request.id: request.output_tokens for request in scenario.requests}


@given(scenarios(aborts=False))
def test_no_token_is_computed_twice_without_a_preemption_to_blame(scenario: Scenario) -> None:
    computed: Counter[str] = Counter()
    seen: dict[str, Sequence] = {}
    for _, step, _ in run(scenario):
        for sequence, new in step.prefills:
            computed[sequence.request.id] += new
            seen[sequence.request.id] = sequence
        computed.update(s.request.id for s in step.emitting if s not in {p for p, _ in step.prefills})
    for name, sequence in seen.items():
        # The last output token is never fed back.
        needed = sequence.end - 1 - (sequence.cached_tokens or 0)
        assert computed[name] == needed if not sequence.preemptions else computed[name] >= needed


@given(scenarios())
def test_first_come_first_served(scenario: Scenario) -> None:
    """Admission follows arrival; a preempted one is ahead of all that never ran."""
    for engine, _, _ in run(scenario):
        running = [int(s.request.id) for s in engine.running]
        waiting = [int(name) for name in engine.waiting]
        assert running + waiting == sorted(running + waiting)


@given(scenarios())
def test_events_mirror_what_can_be_matched(scenario: Scenario) -> None:
    mirror: Counter[int] = Counter()
    for engine, step, _ in run(scenario):
        for event in step.events:
            match event:
                case Stored(hashes, parent, request, first):
                    stored = hashes.tolist()
                    assert (parent is None) == (first == 0)
                    told = list(request.hashes[first : first + len(stored)])
                    assert stored[: len(told)] == told
                    mirror.update(stored)
                case Removed(hashes):
                    assert mirror >= Counter(hashes.tolist())
                    mirror.subtract(hashes.tolist())
        assert mirror.total() == engine.pool.cached
        assert all((block_hash in engine.pool) == (copies > 0) for block_hash, copies in mirror.items())


@given(scenarios())
@settings(max_examples=30)
def test_the_same_scenario_gives_the_same_steps(scenario: Scenario) -> None:
    def trace() -> list[tuple[float, int, list[str]]]:
        return [(step.duration_ms, step.tokens, [s.request.id for s in emitted]) for _, step, emitted in run(scenario)]

    assert trace() == trace()


@given(scenarios(aborts=False))
@settings(max_examples=30)
def test_replay_times_are_ordered_and_complete(scenario: Scenario) -> None:
    engine = Engine(ROW, scenario.limits, kv_tokens=BLOCKS * SIZE)
    arrivals = [(at * 7.0, request) for at, request in zip(scenario.submit_at, scenario.requests, strict=True)]
    timings = {timing.id: timing for timing in replay(engine, arrivals)}
    assert timings.keys() == {request.id for request in scenario.requests}
    for at, request in arrivals:
        timing = timings[request.id]
        assert at == timing.arrived_ms < timing.first_token_ms <= timing.ended_ms
        assert timing.output_tokens == request.output_tokens
