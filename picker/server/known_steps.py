"""Rows of the step-time table for a policy whose configuration names them."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from picker.policies.policy import Policy
from picker.policies.staged import Staged
from picker.simulator.steptime import load_row
from picker.stages.step_model import of_row


def tell_rows(policy: Policy) -> None:
    """`staged` knows the rows that its `steps` name. KV sizes are the engines' own to say. Raises ValueError for a row
    that there is not."""
    if isinstance(policy, Staged) and policy.rows:
        named = policy.rows.items()
        policy.know({hardware: replace(of_row(load_row(name)), kv_tokens=0.0) for hardware, name in named})


def unknown_rows(params: Mapping[str, object]) -> Iterator[str]:
    """What is wrong with the rows that parameters of `staged`, checked for all else, name."""
    steps = params.get("steps")
    for name in steps.values() if isinstance(steps, Mapping) else ():
        try:
            if isinstance(name, str):
                load_row(name)
        except ValueError as error:
            yield str(error)
