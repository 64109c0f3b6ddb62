"""docs/install.md says what the chart does."""

import json

import pytest
import yaml
from chart_rendering import CHART
from values_table import PAGE, VALUES, Undescribed, rows, with_table

SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def test_the_table_of_values_is_the_one_in_the_chart() -> None:
    page = PAGE.read_text()
    assert page == with_table(page, VALUES.read_text()), "run python e2e/charts/values_table.py"


def test_a_value_without_a_description_is_found() -> None:
    with pytest.raises(Undescribed, match=r"^a\.c$"):
        list(rows("a:\n  # What b is.\n  b: 1\n  c: 2\n"))


def test_a_mapping_is_one_value_unless_something_in_it_is_described() -> None:
    text = "# Whole.\na: {x: 1}\nb:\n  # Two.\n  # Lines.\n  c: []\n"
    assert list(rows(text)) == [("a", "{x: 1}", "Whole."), ("b.c", "[]", "Two. Lines.")]


def test_the_schema_knows_every_value_and_every_value_has_a_default() -> None:
    values = yaml.safe_load(VALUES.read_text())
    same(SCHEMA, values, "")


def same(schema: dict[str, object], value: object, path: str) -> None:
    """Closed objects of the schema have the keys of the values, and no others; `global` is helm's own."""
    known = schema.get("properties")
    if isinstance(known, dict) and isinstance(value, dict) and schema.get("additionalProperties") is False:
        required_alone = {"requests", "limits", "claims"}
        assert set(value) - set(known) == set(), path
        assert set(known) - set(value) - {"global"} - required_alone == set(), path
        for key in value:
            same(known[key], value[key], f"{path}.{key}")
