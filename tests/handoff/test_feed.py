"""What a picker tells its pool's proxies: each takes its part, nonsense is refused, of two pickers one is followed."""

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.handoff.feed import FORSAKEN_S, Follower, Seat, Told, encode, read
from picker.stages.step_model import StepModel

STEP = StepModel(fixed_ms=6.0, decode_ms=0.1, context_ms=100.0, prefill_ms=0.02)
URLS = {name: f"http://10.0.0.{place}:8000" for place, name in enumerate("abcd")}
TOLD = Told(
    epoch=7,
    version=3,
    engines={name: Seat(URLS[name], stage, 0) for name, stage in {"a": 0, "b": 0, "c": 1, "d": 2}.items()},
    bounds=(512.0, 4096.0),
    models=(STEP,),
    firm=True,
    outlook="3 stages",
)


def test_it_comes_back_as_it_was_told() -> None:
    assert read(encode(TOLD)) == TOLD


def test_an_engine_learns_its_lengths_and_who_has_the_next_ones() -> None:
    first, middle, last = (TOLD.part(name).membership(name) for name in "acd")

    assert (first.high, first.stage, first.neighbours, first.following) == (512.0, ("b",), ("c",), ("c",))
    assert (middle.high, middle.stage, middle.neighbours, middle.following) == (4096.0, (), ("a", "b", "d"), ("d",))
    assert (last.high, last.following) == (float("inf"), ())
    assert first.firm
    assert first.pool == {"b", "c", "d"}
    assert TOLD.part("a").step_model == STEP


def test_a_proxy_that_is_not_in_it_has_peers_to_go_on_at_and_moves_nothing() -> None:
    part = TOLD.part("z")

    assert part.peers("z") == ["a", "b", "c", "d"]
    assert (part.high, part.stage, part.step_model) == (None, (), None)


def test_without_stages_there_are_peers_alone() -> None:
    plain = Told(epoch=7, version=1, engines={name: Seat(url) for name, url in URLS.items()})

    assert read(encode(plain)).part("a").peers("a") == ["b", "c", "d"]


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": -1},
        {"version": 2**53},
        {"bounds": [512.0]},
        {"bounds": [4096.0, 512.0]},
        {"bounds": [0.0, 512.0]},
        {"models": []},
        {"engines": {"a": {"url": "http://10.0.0.1:8000/path"}}},
        {"engines": {"a": {"url": "ftp://10.0.0.1"}}},
        {"engines": {"a" * 300: {"url": "http://10.0.0.1"}}},
        {"engines": {str(i): {"url": "http://10.0.0.1"} for i in range(5000)}},
        {"outlook": "x" * 2000},
        {"more": 1},
    ],
)
def test_what_is_no_plan_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"no plan|URL"):
        read(json.dumps(json.loads(encode(TOLD)) | change).encode())


@given(st.binary(max_size=200))
def test_any_bytes_are_a_plan_or_refused(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(read(data), Told)


def numbered(epoch: int, version: int) -> Told:
    return msgspec.structs.replace(TOLD, epoch=epoch, version=version)


def test_of_one_picker_the_latest_word_holds() -> None:
    follower = Follower()

    assert [follower.hear(numbered(7, version), 0.0) for version in (3, 3, 4, 2)] == [True, False, True, False]
    assert follower.told == numbered(7, 4)


def test_of_two_pickers_the_later_one_is_followed_until_it_is_silent_for_long() -> None:
    follower = Follower()
    follower.hear(numbered(7, 9), 0.0)

    assert follower.hear(numbered(8, 1), 1.0)
    assert not follower.hear(numbered(7, 10), 2.0)
    follower.same(50.0)
    assert not follower.hear(numbered(7, 11), 51.0)
    assert follower.hear(numbered(7, 12), 51.0 + FORSAKEN_S)
