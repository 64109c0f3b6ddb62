"""The chart's values as a table in docs/install.md: python e2e/charts/values_table.py"""

from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
VALUES = ROOT / "charts" / "picker" / "values.yaml"
PAGE = ROOT / "docs" / "install.md"
BEGIN, END = "<!-- values: begin -->", "<!-- values: end -->"


class Undescribed(Exception):
    """A value has no comment above it."""


def rows(text: str) -> Iterator[tuple[str, str, str]]:
    """(path, default, description) of every value. A mapping is one value unless something in it is described."""
    yield from _below(yaml.compose(text), "", text.splitlines())


def _below(node: yaml.Node | None, path: str, lines: list[str]) -> Iterator[tuple[str, str, str]]:
    assert isinstance(node, yaml.MappingNode)
    for key, value in node.value:
        here = f"{path}.{key.value}".lstrip(".")
        if isinstance(value, yaml.MappingNode) and any(_comment(inner, lines) for inner, _ in _all(value)):
            yield from _below(value, here, lines)
        elif description := _comment(key, lines):
            yield here, _default(value), description
        else:
            raise Undescribed(here)


def _all(node: yaml.MappingNode) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    for key, value in node.value:
        yield key, value
        if isinstance(value, yaml.MappingNode):
            yield from _all(value)


def _comment(key: yaml.Node, lines: list[str]) -> str:
    """The lines of comment that stand right above a key, at its indent."""
    start, words = " " * key.start_mark.column + "# ", list[str]()
    for line in reversed(lines[: key.start_mark.line]):
        if not line.startswith(start):
            break
        words.insert(0, line.removeprefix(start))
    return " ".join(words)


def _default(node: yaml.Node) -> str:
    value = yaml.SafeLoader("").construct_object(node, deep=True)
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()


def table(text: str) -> str:
    """The rows as Markdown."""
    lines = [f"| `{path}` | `{default}` | {what.replace('|', chr(92) + '|')} |" for path, default, what in rows(text)]
    return "\n".join(["| value | default | meaning |", "|---|---|---|", *lines])


def with_table(page: str, text: str) -> str:
    """The page with the table between its marks."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{table(text)}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(), VALUES.read_text()))
