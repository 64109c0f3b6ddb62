"""The transition table: closed, connected, and drawn in the docs as it stands."""

import re
from pathlib import Path

from picker.exchange.states import ENDINGS, TRANSITIONS, Input, State, diagram

DOC = Path(__file__).parents[2] / "docs" / "envoy.md"


def test_every_state_is_reached_and_only_the_last_has_no_way_out() -> None:
    reached = {target for row in TRANSITIONS.values() for target in row.values()}
    assert set(TRANSITIONS) == set(State)
    assert reached == set(State) - {State.IDLE}
    assert [state for state, row in TRANSITIONS.items() if not row] == [State.CLOSED]


def test_every_input_is_used_and_every_way_to_the_end_has_a_meaning() -> None:
    used = {name for row in TRANSITIONS.values() for name in row}
    closing = {name for row in TRANSITIONS.values() for name, target in row.items() if target is State.CLOSED}
    assert used == set(Input)
    assert closing == set(ENDINGS)


def test_a_refusal_and_a_broken_stream_are_possible_in_every_open_state() -> None:
    for state, row in TRANSITIONS.items():
        if state is not State.CLOSED:
            assert row[Input.REFUSE] is row[Input.GONE] is State.CLOSED


def test_the_diagram_in_the_docs_is_the_table() -> None:
    drawn = re.search(r"```mermaid\n(stateDiagram-v2.*?)\n```", DOC.read_text(), re.DOTALL)
    assert drawn is not None
    assert drawn[1] == diagram(), f"paste this into {DOC.name}:\n{diagram()}"
