"""Agents' messages as JSON, and back from whoever says to be a peer."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from picker.stages import messages
from picker.stages.messages import Message

MOST_MESSAGES = 256
_KINDS: Mapping[str, type[Message]] = {
    kind.__name__: kind
    for kind in (
        *(messages.Load, messages.Ask, messages.Bid, messages.Offer, messages.Accept, messages.Decline),
        *(messages.Commit, messages.Committed, messages.Refused, messages.Cancel),
    )
}
_MOST = 2**53


def encode(sent: Iterable[Message]) -> bytes:
    """A JSON list of objects, each with its `kind`."""
    return msgspec.json.encode([{"kind": type(message).__name__, **dataclasses.asdict(message)} for message in sent])


def decode(data: bytes) -> list[Message]:
    """Raises ValueError for anything but messages of known kinds with numbers of their kind."""
    try:
        found = msgspec.json.decode(data, type=list[dict[str, Any]])
        if len(found) > MOST_MESSAGES:
            raise ValueError(f"more than {MOST_MESSAGES} messages")
        return [_message(fields) for fields in found]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError, TypeError) as error:
        raise ValueError(f"no messages of agents: {type(error).__name__}") from None


def _message(fields: dict[str, Any]) -> Message:
    if not all(abs(value) < _MOST for value in fields.values() if isinstance(value, int | float)):
        raise ValueError("a number out of bounds")
    return msgspec.convert(fields, _KINDS[fields.pop("kind")])
