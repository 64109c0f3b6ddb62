"""Pages of docs/ from their templates, which lie beside this."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def filled(name: str, **facts: object) -> str:
    """The template of this name with the facts in place. Raises jinja2.UndefinedError for one that is missing."""
    jinja = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
    )
    return jinja.get_template(name).render(**facts)
