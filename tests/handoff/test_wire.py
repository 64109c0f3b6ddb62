"""Agents' messages over a wire that anybody may write to."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.handoff import wire
from picker.stages.messages import Accept, Ask, Load, Offer


def test_messages_come_back_as_they_were() -> None:
    sent = [Load("a", "b", 1.5), Ask("a", "b", 3, 100.0, 128), Offer("a", "b", 3, 1, "7", 128), Accept("b", "a", 3)]
    assert wire.decode(wire.encode(sent)) == sent


@pytest.mark.parametrize(
    "data",
    [
        b"no json",
        b"{}",
        b'[{"kind": "Adopt", "source": "a", "number": 1}]',
        b'[{"kind": "Accept", "sender": "a", "to": "b", "number": "1"}]',
        b'[{"kind": "Accept", "sender": "a", "to": "b", "number": 1e300}]',
        b'[{"kind": "Accept", "sender": "a", "to": "b", "number": 99999999999999999999}]',
        b'[{"kind": ["Accept"]}]',
        b"[" * 5000,
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"no messages|out of bounds"):
        wire.decode(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_refused(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(wire.decode(data), list)
