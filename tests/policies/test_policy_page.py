"""docs/policies.md is what the docstrings say, and the docstrings are true."""

import doctest
import importlib
import pkgutil
import re
import sys
from pathlib import Path

import msgspec
import pytest
from small_pool import make

import picker.policies
from picker.policies.composed.pickers import PICKERS
from picker.policies.composed.plugins import FILTERS, SCORERS
from picker.policies.doc import policies_page
from picker.policies.registry import REGISTRY

PAGE = Path(__file__).parents[2] / "docs" / "policies.md"
MODULES = [module.name for module in pkgutil.walk_packages(picker.policies.__path__, "picker.policies.")]


def docstring(name: str) -> str:
    return sys.modules[type(make(name)).__module__].__doc__ or ""


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == policies_page(), "run: python -m picker.policies.doc > docs/policies.md"


@pytest.mark.parametrize("module", MODULES)
def test_examples_print_what_they_say(module: str) -> None:
    assert doctest.testmod(importlib.import_module(module)).failed == 0


@pytest.mark.parametrize("name", REGISTRY)
def test_a_policy_says_formula_limits_source_and_an_example(name: str) -> None:
    doc = docstring(name)

    for part in ("**Formula.**", "**Limits.**", "**Source.**", ">>> "):
        assert part in doc


@pytest.mark.parametrize("kind", [*FILTERS, *SCORERS, *PICKERS])
def test_every_plugin_of_a_composed_policy_is_written_down(kind: str) -> None:
    assert f"`{kind}`" in docstring("composed") or f"({kind})" in docstring("composed")


@pytest.mark.parametrize("name", REGISTRY)
def test_parameters_are_written_down_with_their_true_defaults(name: str) -> None:
    written = dict(re.findall(r"^- `(\w+)` \((.+?)\): \S", docstring(name), re.MULTILINE))

    fields = msgspec.structs.fields(REGISTRY[name].params)
    defaults = {
        field.encode_name: field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        for field in fields
    }
    assert written == {name: str(default) for name, default in defaults.items()}
