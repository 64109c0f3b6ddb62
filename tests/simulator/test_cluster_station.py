"""Steps played together are the steps played one by one."""

from hypothesis import given
from hypothesis import strategies as st

from picker.simulator.engine import Engine
from picker.simulator.replay import replay
from picker.simulator.sequence import UNSEEN, Cleared, EngineRequest, KvEvent, Limits
from picker.simulator.station import IDLE, Station
from picker.simulator.steptime import load_row

ROW = load_row()
SIZE = 4
BLOCKS = 24
Arrivals = list[tuple[float, EngineRequest]]


@st.composite
def arrivals(draw: st.DrawFn) -> Arrivals:
    requests = []
    for i in range(draw(st.integers(1, 10))):
        prompt, output = draw(st.integers(1, 60)), draw(st.integers(1, 30))
        shared = draw(st.integers(0, prompt // SIZE))
        own = range(10_000 * (i + 1), 10_000 * (i + 1) + prompt // SIZE - shared)
        requests.append(EngineRequest(str(i), prompt, output, (*range(shared), *own)))
    times = sorted(draw(st.lists(st.floats(0, 400), min_size=len(requests), max_size=len(requests), unique=True)))
    return list(zip(times, requests, strict=True))


@given(arrivals(), st.integers(1, 5), st.lists(st.floats(0, 1000), max_size=20))
def test_runs_are_indistinguishable_from_single_steps(asked: Arrivals, seqs: int, looks: list[float]) -> None:
    limits = Limits(block_size=SIZE, max_num_seqs=seqs, max_num_batched_tokens=8 + seqs)
    single = Engine(ROW, limits, kv_tokens=BLOCKS * SIZE)
    stepwise = {timing.id: timing for timing in replay(single, [(t, r) for t, r in asked if fits(r)])}
    station = Station("a", Engine(ROW, limits, kv_tokens=BLOCKS * SIZE))
    first: dict[str, float] = {}
    ended: dict[str, tuple[float, int, int]] = {}
    todo = sorted([(t, 0, r) for t, r in asked if fits(r)] + [(t, 1, None) for t in looks], key=lambda x: x[:2])
    while todo or station.ends_ms != IDLE:
        # As in `replay`, a request that arrives with the end of a step is seen by the next one.
        if todo and todo[0][0] <= station.ends_ms:
            at, _, request = todo.pop(0)
            if request is None:
                station.settle(at)
            else:
                station.submit(request, at)
            continue
        now = station.ends_ms
        for sequence in station.end():
            first.setdefault(sequence.request.id, now)
            if sequence.finished:
                ended[sequence.request.id] = (now, sequence.cached_tokens or 0, sequence.preemptions)
    assert {name: facts[1:] for name, facts in ended.items()} == {
        name: (timing.cached_tokens, timing.preemptions) for name, timing in stepwise.items()
    }
    for name, timing in stepwise.items():
        assert abs(first[name] - timing.first_token_ms) < 1e-6
        assert abs(ended[name][0] - timing.ended_ms) < 1e-6
    assert station.engine.counters == single.counters
    assert station.engine.pool.free == BLOCKS


@given(arrivals(), st.integers(1, 5), st.lists(st.floats(0, 1000), max_size=20))
def test_what_a_run_evicts_is_told_with_the_step_that_did_it(asked: Arrivals, seqs: int, looks: list[float]) -> None:
    limits = Limits(block_size=SIZE, max_num_seqs=seqs, max_num_batched_tokens=8 + seqs)
    asked = [(at, request) for at, request in asked if fits(request)]
    single = told_step_by_step(Engine(ROW, limits, kv_tokens=BLOCKS * SIZE, events=True), asked)
    station = Station("a", Engine(ROW, limits, kv_tokens=BLOCKS * SIZE, events=True))
    todo = sorted([(at, 0, request) for at, request in asked] + [(at, 1, None) for at in looks], key=lambda x: x[:2])
    while todo or station.ends_ms != IDLE:
        if not todo or todo[0][0] > station.ends_ms:
            station.end()
            continue
        at, _, request = todo.pop(0)
        if request is None:
            station.settle(at)
        else:
            station.submit(request, at)
    together = [told for at, event in station.news for told in prompt_blocks(at, event)]
    assert [told[1:] for told in together] == [told[1:] for told in single]
    assert all(abs(a[0] - b[0]) < 1e-6 for a, b in zip(together, single, strict=True))


Told = tuple[float, str, int]


def told_step_by_step(engine: Engine, asked: Arrivals) -> list[Told]:
    """When which prompt block was stored or removed, by an engine that plays one step after another."""
    told: list[Told] = []
    todo, now = list(asked), 0.0
    while todo or engine.running or engine.waiting:
        while todo and todo[0][0] <= now:
            engine.submit(todo.pop(0)[1])
        step = engine.schedule()
        if step is None:
            now = todo[0][0]
            continue
        now += step.duration_ms
        told += [one for event in step.events for one in prompt_blocks(now, event)]
        engine.complete(step)
    return told


def prompt_blocks(at: float, event: KvEvent) -> list[Told]:
    assert not isinstance(event, Cleared)
    return [(at, type(event).__name__, block) for block in event.hashes.tolist() if block < UNSEEN]


def fits(request: EngineRequest) -> bool:
    return request.prompt_tokens + request.output_tokens <= BLOCKS * SIZE


def test_a_look_during_a_run_sees_the_blocks_that_are_in_use_then() -> None:
    station = Station("a", Engine(ROW, Limits(block_size=SIZE), kv_tokens=BLOCKS * SIZE))
    station.submit(EngineRequest("r", 4, 60), 0.0)
    station.end()
    before = station.engine.kv_usage
    station.settle((station.ends_ms + 7) / 2)
    assert before < station.engine.kv_usage < 1


@given(st.floats(0, 1))
def test_a_sample_taken_during_a_run_is_that_of_an_engine_that_has_played_so_far(share: float) -> None:
    station = Station("a", Engine(ROW, Limits(block_size=SIZE), kv_tokens=BLOCKS * SIZE))
    for name, prompt, output in (("r", 4, 60), ("s", 7, 13)):
        station.submit(EngineRequest(name, prompt, output), 0.0)
    while not all(sequence.generated for sequence in station.engine.running):
        station.end()
    at = station.ends_ms * share
    before = station.sample(at)
    station.settle(at)
    assert before == station.sample(at)


def test_busy_time_is_the_time_in_steps() -> None:
    station = Station("a", Engine(ROW, kv_tokens=1600))
    station.submit(EngineRequest("r", 100, 50), 1000.0)
    while (ends := station.ends_ms) != IDLE:
        last = ends
        station.end()
    assert abs(station.busy_ms - (last - 1000.0)) < 1e-6
