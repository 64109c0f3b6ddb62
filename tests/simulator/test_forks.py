"""A fork goes on as its original would, and the original never knows."""

from hypothesis import given
from hypothesis import strategies as st

from picker.simulator.engine import Engine
from picker.simulator.sequence import EngineRequest, Limits
from picker.simulator.station import IDLE, Station
from picker.simulator.steptime import load_row

ROW = load_row()
SIZE = 4
BLOCKS = 24


@st.composite
def requests(draw: st.DrawFn) -> list[tuple[float, EngineRequest]]:
    made = []
    for i in range(draw(st.integers(1, 9))):
        prompt, output = draw(st.integers(1, 60)), draw(st.integers(1, 30))
        shared = draw(st.integers(0, prompt // SIZE))
        own = range(10_000 * (i + 1), 10_000 * (i + 1) + prompt // SIZE - shared)
        if prompt + output <= BLOCKS * SIZE:
            made.append((draw(st.floats(0, 300)), EngineRequest(str(i), prompt, output, (*range(shared), *own))))
    return sorted(made, key=lambda pair: pair[0])


def play(station: Station, until: float = IDLE) -> list[tuple[float, str, bool, int]]:
    seen = []
    while station.ends_ms <= until and station.ends_ms != IDLE:
        now = station.ends_ms
        seen += [(now, s.request.id, s.finished, s.preemptions) for s in station.end()]
    return seen


@given(requests(), st.integers(1, 5), st.floats(0, 400))
def test_a_forked_station_ends_every_request_when_the_original_does(
    asked: list[tuple[float, EngineRequest]], seqs: int, at: float
) -> None:
    limits = Limits(block_size=SIZE, max_num_seqs=seqs, max_num_batched_tokens=8 + seqs)
    station = Station("a", Engine(ROW, limits, kv_tokens=BLOCKS * SIZE, events=True))
    for arrival, request in asked:
        if arrival <= at:
            play(station, arrival)
            station.submit(request, arrival)
    play(station, at)
    foreseen = play(station.fork())
    assert foreseen == play(station.fork())
    assert foreseen == play(station)
    assert station.engine.pool.free == BLOCKS
