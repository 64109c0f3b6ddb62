"""What happens to a pool while it serves: engines join, leave, slow down and crash, at given times."""

from collections.abc import Callable
from typing import Annotated

import msgspec
import yaml

MAX_EVENTS = 10_000

AtSeconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Number = Annotated[int, msgspec.Meta(ge=0)]


class Join(msgspec.Struct, frozen=True, tag_field="kind", tag="join", forbid_unknown_fields=True):
    """A new engine of this step-time row is up; it gets the next number."""

    at_s: AtSeconds
    type: str


class Leave(msgspec.Struct, frozen=True, tag_field="kind", tag="leave", forbid_unknown_fields=True):
    """The engine is taken out of the pool and finishes what it has."""

    at_s: AtSeconds
    engine: Number


class Crash(msgspec.Struct, frozen=True, tag_field="kind", tag="crash", forbid_unknown_fields=True):
    """The engine is gone at once, with all requests on it."""

    at_s: AtSeconds
    engine: Number


class Slow(msgspec.Struct, frozen=True, tag_field="kind", tag="slow", forbid_unknown_fields=True):
    """From the next step on, steps take `factor` times as long as the engine's row says."""

    at_s: AtSeconds
    engine: Number
    factor: Annotated[float, msgspec.Meta(ge=0.01, le=1000)]


PoolEvent = Join | Leave | Crash | Slow


def parse_events(text: str, engines: int, joining: Callable[[str], object]) -> tuple[PoolEvent, ...]:
    """Events of a JSON or YAML list, in order of time. `engines` is how many there are at the start, numbered from 0;
    `joining` raises ValueError for an engine type that nobody knows.

    >>> parse_events("[{at_s: 60, kind: crash, engine: 3}]", 8, str)
    (Crash(at_s=60.0, engine=3),)

    Raises ValueError, also for an engine that is not there (any more, or yet).
    """
    try:
        given = msgspec.convert(yaml.safe_load(text) or [], list[PoolEvent])
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"events: not YAML or JSON: {error}") from None
    except msgspec.ValidationError as error:
        raise ValueError(f"events: {error}") from None
    if len(given) > MAX_EVENTS:
        raise ValueError(f"events: more than {MAX_EVENTS}")
    events = sorted(given, key=lambda event: event.at_s)
    present = set(range(engines))
    for event in events:
        if isinstance(event, Join):
            joining(event.type)
            present.add(engines)
            engines += 1
        elif event.engine not in present:
            raise ValueError(f"events: no engine {event.engine} at {event.at_s} s")
        elif not isinstance(event, Slow):
            present.discard(event.engine)
    return tuple(events)
