"""How numba is asked to compile what must run at machine speed, and when machine code of an earlier process may serve.

numba keeps machine code under the text of the file that a function stands in. What is compiled into it from other
files would go unnoticed: kernels here are kept under the stamps of the kernels and intrinsics they call, the layouts of
the bundles they take apart and the values of their constants, too.
"""

import inspect
import os
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit

Kernel = TypeVar("Kernel", bound=Callable[..., object])

LAYOUT = "layout"
"""Attribute of an intrinsic's code: which types it makes, where its file alone does not tell."""

_BARE: dict[str, Any] = {"cache": True, "_nrt": False}


def kernel(function: Kernel) -> Kernel:
    """Compile with numba, keeping the machine code on disk."""
    return _stamped(njit(cache=True)(function), function)


def bare(function: Kernel) -> Kernel:
    """As `kernel`, for what makes no array: without the count of who uses each array that is handed on, which costs
    more than looking a row up."""
    return _stamped(njit(**_BARE)(function), function)


def inlined(function: Kernel) -> Kernel:
    """As `bare`, but written into its callers: a call hands over every array in some seven words."""
    return _stamped(njit(inline="always", **_BARE)(function), function)


def stamp_of(thing: object) -> object:
    """What tells this kernel's, intrinsic's or constant's version from others; None for all else."""
    if isinstance(thing, bool | int | float | np.generic):
        return repr(thing)
    if (intrinsic := getattr(thing, "_defn", None)) is not None:
        stat = os.stat(inspect.getfile(intrinsic))
        return stat.st_mtime, stat.st_size, getattr(intrinsic, LAYOUT, None)
    files = _files(thing)
    return None if files is None else files._source_stamp


def _stamped(compiled: Any, function: Kernel) -> Kernel:
    files = _files(compiled)
    if files is not None:
        names = function.__code__.co_names
        used = tuple(stamp_of(function.__globals__.get(name)) for name in names)
        files._source_stamp = (files._source_stamp, used)
    return cast(Kernel, compiled)


def _files(thing: object) -> Any:
    return getattr(getattr(thing, "_cache", None), "_cache_file", None)
