"""The floor answers turns, however they are cut; whoever plays Envoy hears frames, however they are cut."""

import asyncio
import socket
import threading

from hypothesis import given
from hypothesis import strategies as st

from bench.floor import Floor
from bench.turns import SIZES_OF_TURNS, frames
from picker.wire.frames import END_HEADERS, END_STREAM, Kind, frame

CUTS = st.lists(st.integers(1, 400), min_size=1, max_size=30)


class Written(asyncio.Transport):
    """A socket that counts what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.bytes += len(data)


@given(CUTS, st.integers(1, 5))
def test_each_whole_turn_is_answered_once(cuts: list[int], ahead: int) -> None:
    floor, written, asked = Floor(), Written(), 400 * ahead
    floor.connection_made(written)
    floor.data_received(SIZES_OF_TURNS.pack(asked, 70))
    for cut in cuts:
        floor.data_received(bytes(cut))
    assert written.bytes == sum(cuts) // asked * 70


@given(st.integers(1, 60))
def test_frames_are_told_one_by_one_however_they_come(size: int) -> None:
    said = frame(Kind.DATA, 0, 1, b"answer") + frame(Kind.HEADERS, END_HEADERS | END_STREAM, 1, b"trailers")
    ours, theirs = socket.socketpair()

    def say() -> None:
        for at in range(0, len(said), size):
            theirs.sendall(said[at : at + size])

    with ours, theirs:
        heard = frames(ours)
        writer = threading.Thread(target=say)
        writer.start()
        assert [next(heard), next(heard)] == [(Kind.DATA, 0), (Kind.HEADERS, END_HEADERS | END_STREAM)]
        writer.join()
