"""A policy with parameters in one word: `multiplicative?hotPrefixWindowSeconds=0`, `learned?without=trees&seed=7`.

Parameters have the names that they have in a configuration file. Values are numbers, true or false where they read as
such, text otherwise; several of them are joined where a parameter takes several: `learned?without=trees+guard`.
"""

import hashlib
import json
import re
from collections.abc import Callable
from urllib.parse import parse_qsl

import msgspec
import numpy as np

from picker.policies.policy import Policy
from picker.policies.registry import REGISTRY
from picker.policies.strict import quoted

_PLAIN = re.compile(r"[A-Za-z0-9.-]{1,60}")
_VALUE = re.compile(r"true|false|-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]{1,3})?")


def policy_maker(spec: str) -> Callable[[np.random.Generator], Policy]:
    """Makes fresh policies of a name or a name with parameters. Raises ValueError saying what is wrong with it."""
    name, mark, query = spec.partition("?")
    if name not in REGISTRY:
        raise ValueError(f"no policy {quoted(name)}; there are: {', '.join(sorted(REGISTRY))}")
    factory = REGISTRY[name]
    try:
        given = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(mark))
        several = _several(factory.params)
        params: dict[str, object] = {key: text.split() if key in several else _value(text) for key, text in given}
        if len(params) < len(given):
            raise ValueError("a parameter is given twice")
        factory(params, np.random.default_rng(0))
    except ValueError as error:
        raise ValueError(f"policy {quoted(spec)}: {error}") from None
    return lambda rng: factory(params, rng)


def file_stem(spec: str) -> str:
    """What a file about this policy may be called: the name itself, or its start and a number of its own.

    >>> file_stem("least-request"), file_stem("weighted?kvWeight=0")
    ('least-request', 'weighted-kvWeight-0-123508')
    """
    if _PLAIN.fullmatch(spec):
        return spec
    start = re.sub(r"[^A-Za-z0-9.]+", "-", spec)[:60]
    return f"{start}-{hashlib.sha256(spec.encode()).hexdigest()[:6]}"


def _several(params: type[msgspec.Struct]) -> set[str]:
    """Outside names of the parameters that take several values."""
    known = msgspec.inspect.type_info(params)
    assert isinstance(known, msgspec.inspect.StructType)
    return {field.encode_name for field in known.fields if isinstance(field.type, msgspec.inspect.VarTupleType)}


def _value(text: str) -> object:
    return json.loads(text) if _VALUE.fullmatch(text) else text
