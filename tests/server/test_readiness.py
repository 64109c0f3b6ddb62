"""When a picker says that it is ready."""

from dataclasses import dataclass
from typing import Any

import pytest

from picker.server.readiness import Readiness


@dataclass
class Watch:
    """The watch of one pool, at its best."""

    synced: bool = True
    pool_exists: bool = True
    silent_s: float = 0.0


def missing(*pools: Watch, most_silence_s: float = 0.0, leading: bool = True, draining: bool = False) -> str:
    return Readiness(most_silence_s).missing(pools, leading=leading, draining=draining)


def test_a_known_pool_and_nothing_against_it_is_ready() -> None:
    assert missing(Watch()) == ""


@pytest.mark.parametrize(
    ("pool", "state", "why"),
    [
        (Watch(synced=False), {}, "not known yet"),
        (Watch(pool_exists=False), {}, "no such pool"),
        (Watch(), {"leading": False}, "another replica"),
        (Watch(), {"draining": True}, "drains"),
        (Watch(silent_s=61), {"most_silence_s": 60}, "silent"),
    ],
)
def test_each_lack_is_named(pool: Watch, state: dict[str, Any], why: str) -> None:
    assert why in missing(pool, **state)


def test_an_api_server_may_be_silent_for_ever_unless_somebody_minds() -> None:
    assert missing(Watch(silent_s=3600)) == ""


def test_of_several_pools_all_are_known_and_one_exists() -> None:
    assert missing(Watch(), Watch(pool_exists=False)) == ""
    assert missing(Watch(), Watch(synced=False))
    assert missing(Watch(pool_exists=False), Watch(pool_exists=False))
