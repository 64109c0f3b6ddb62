"""docs/conformance.md lists every case as it is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from picker.conformance.case import Case
from picker.conformance.runner import WIRE
from picker.conformance.through_envoy import THROUGH_ENVOY
from picker.server.config import read_config

PAGE = (Path(__file__).parents[2] / "docs" / "conformance.md").read_text()


def test_every_case_is_in_the_page_and_no_other() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `") and line.count(" | ") == 2]
    cases: Sequence[Case[Any]] = (*WIRE, *THROUGH_ENVOY)
    assert rows == [f"| `{case.name}` | {case.rule} | {case.source} |" for case in cases]


def test_the_configurations_in_the_page_turn_both_plugins_on() -> None:
    block = PAGE.split("```yaml\n")[1].split("```")[0]
    argument = next(line for line in PAGE.splitlines() if "--config-text=" in line).partition("=")[2]
    for text in (block, argument):
        assert read_config(text).testing == {"header-based-testing-filter", "destination-endpoint-served-verifier"}
    assert yaml.safe_load(argument) == yaml.safe_load(block)
