"""The states of an exchange and the only ways between them.

Law of this file: what may follow what is in TRANSITIONS; nothing else decides what is out of order.

The inputs are already free of Envoy's body modes. "Bodiless": headers after which nothing is waited for, because there
is no body, or because its mode (NONE, STREAMED) cannot hold it until the pick. "Whole": the end of a body that was
held, be it the one buffered message, the last of many chunks or trailers. "Rest": what still comes of a request that
was not held, or whose answer has already begun. The diagram in docs/envoy.md is drawn from this table.
"""

import enum
from collections.abc import Mapping

from picker.exchange.events import Ending


class State(enum.Enum):
    """Where the conversation stands."""

    IDLE = "idle"
    READING = "reading"
    ASKING = "asking"
    FORWARDED = "forwarded"
    ANSWERING = "answering"
    CLOSED = "closed"

    # There is one of each; Enum would hash the name anew each time.
    __hash__ = object.__hash__


class Input(enum.Enum):
    """What can happen: said by Envoy, by the owner, or by nobody (the stream is gone)."""

    REQUEST_OPENED = "request opened"
    REQUEST_BODILESS = "request bodiless"
    REQUEST_CHUNK = "request chunk"
    REQUEST_WHOLE = "request whole"
    REQUEST_REST = "request rest"
    ANSWER = "answer"
    REFUSE = "refuse"
    RESPONSE_OPENED = "response opened"
    RESPONSE_BODILESS = "response bodiless"
    RESPONSE_CHUNK = "response chunk"
    RESPONSE_WHOLE = "response whole"
    LET_GO = "let go"
    GONE = "gone"

    __hash__ = object.__hash__


# An enum's members by names of their own: Python 3.11 looks them up slowly.
IDLE, READING, ASKING, FORWARDED, ANSWERING, CLOSED = State
(
    REQUEST_OPENED,
    REQUEST_BODILESS,
    REQUEST_CHUNK,
    REQUEST_WHOLE,
    REQUEST_REST,
    ANSWER,
    REFUSE,
    RESPONSE_OPENED,
    RESPONSE_BODILESS,
    RESPONSE_CHUNK,
    RESPONSE_WHOLE,
    LET_GO,
    GONE,
) = Input

# A response may come at any time: the proxy answers by itself on a timeout, a too large body or an earlier filter's
# refusal.
_ALWAYS = {
    Input.REFUSE: State.CLOSED,
    Input.RESPONSE_OPENED: State.ANSWERING,
    Input.RESPONSE_BODILESS: State.CLOSED,
    Input.GONE: State.CLOSED,
}

TRANSITIONS: Mapping[State, Mapping[Input, State]] = {
    State.IDLE: {
        Input.REQUEST_OPENED: State.READING,
        Input.REQUEST_BODILESS: State.ASKING,
        **_ALWAYS,
    },
    State.READING: {
        Input.REQUEST_CHUNK: State.READING,
        Input.REQUEST_WHOLE: State.ASKING,
        **_ALWAYS,
    },
    State.ASKING: {
        Input.REQUEST_REST: State.ASKING,
        Input.ANSWER: State.FORWARDED,
        **_ALWAYS,
    },
    State.FORWARDED: {
        Input.REQUEST_REST: State.FORWARDED,
        Input.LET_GO: State.CLOSED,
        **_ALWAYS,
    },
    State.ANSWERING: {
        Input.REQUEST_REST: State.ANSWERING,
        Input.RESPONSE_CHUNK: State.ANSWERING,
        Input.RESPONSE_WHOLE: State.CLOSED,
        Input.LET_GO: State.CLOSED,
        Input.REFUSE: State.CLOSED,
        Input.GONE: State.CLOSED,
    },
    State.CLOSED: {},
}

ENDINGS: Mapping[Input, Ending] = {
    Input.RESPONSE_BODILESS: Ending.ANSWERED,
    Input.RESPONSE_WHOLE: Ending.ANSWERED,
    Input.REFUSE: Ending.REFUSED,
    Input.LET_GO: Ending.DETACHED,
    Input.GONE: Ending.ABORTED,
}
"""What a step into CLOSED means, by the input that made it."""


def diagram() -> str:
    """The table as a Mermaid state diagram: one arrow per pair of states, labelled with its inputs."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.IDLE.value}"]
    for state, row in TRANSITIONS.items():
        labels: dict[State, list[str]] = {}
        for name, target in row.items():
            labels.setdefault(target, []).append(name.value)
        lines += [f"    {state.value} --> {target.value}: {', '.join(names)}" for target, names in labels.items()]
    return "\n".join([*lines, f"    {State.CLOSED.value} --> [*]"])
