"""docs/migrate.md says what the code does."""

from pathlib import Path

import pytest

from picker.policies.registry import REGISTRY
from picker.server.config_schema import PARAMETERS
from picker.server.llmd_plugins import NEEDLESS_PLUGINS, UNSUPPORTED_PLUGINS
from picker.server.migration import filled

PAGE = (Path(__file__).parents[2] / "docs" / "migrate.md").read_text()


def test_the_tables_are_current() -> None:
    assert filled(PAGE) == PAGE, "run: python -m picker.server.migration docs/migrate.md"


@pytest.mark.parametrize("table", ["flags", "headers", "plugins", "parameters", "sections", "metrics"])
def test_every_table_is_on_the_page_once(table: str) -> None:
    assert PAGE.count(f"<!-- table: {table} -->\n|") == 1


def test_every_plugin_type_of_llmd_is_on_the_page() -> None:
    own = {"picker-settings", *(f"{name}-policy" for name in REGISTRY)}
    known = PARAMETERS.keys() | NEEDLESS_PLUGINS.keys() | UNSUPPORTED_PLUGINS.keys()

    assert {kind for kind in known - own if f"`{kind}`" not in PAGE} == set()


def test_a_table_that_went_stale_is_written_anew() -> None:
    stale = PAGE.replace("| `--grpc-port` |", "| `--grpcport` |")

    assert stale != PAGE
    assert filled(stale) == PAGE
