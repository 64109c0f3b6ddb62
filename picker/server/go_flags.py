"""Values of flags as Go programs write them: durations, sizes, log verbosity, and switches with or without a value."""

import re
from typing import Any

import click

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZE = re.compile(r"(\d{1,15})\s?([kKMGT]?)(i?)[bB]?")
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def seconds(text: str) -> float:
    """A duration of Go (`1m30s`), or plain seconds (`90`). Raises ValueError.

    >>> seconds("1m30s"), seconds("250ms"), seconds("5")
    (90.0, 0.25, 5.0)
    """
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text):
        return float(text)
    if not text or not re.fullmatch(f"(?:{_DURATION.pattern})+", text):
        raise ValueError(f"{text[:80]!r} is no duration such as 30s or 1m30s")
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(text))


def size(text: str) -> int:
    """A number of bytes (`10MiB`, `25MB`, `1048576`). Raises ValueError.

    >>> size("10MiB"), size("25MB"), size("512")
    (10485760, 25000000, 512)
    """
    if (found := _SIZE.fullmatch(text.strip())) is None:
        raise ValueError(f"{text[:80]!r} is no size such as 10MiB")
    number, unit, binary = found.groups()
    return int(number) * int((1024 if binary else 1000) ** _POWERS[unit.upper()])


class _Parsed(click.ParamType[Any]):
    def __init__(self, name: str, parse: Any) -> None:
        self.name, self._parse = name, parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


DURATION = _Parsed("duration", seconds)
SIZE = _Parsed("size", size)
VERBOSITY = _Parsed("integer", lambda text: int(text.removeprefix("=")))
"""Of `-v=4`, `-v 4` and `--v=4`: click leaves the equals sign of a short option in its value."""


def switch(default: bool) -> dict[str, Any]:
    """Keyword arguments of a click option that is true alone and takes a value if it is given one."""
    return {"type": bool, "is_flag": False, "flag_value": "true", "default": default}
