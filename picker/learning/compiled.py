"""How numba is asked to compile what must be fast here, and when it may use machine code of an earlier process."""

import hashlib
import inspect
from types import ModuleType
from typing import Any, cast

from numba import njit

from picker.engines.kernels import Kernel


def vector(function: Kernel) -> Kernel:
    """Compile what is to become vector code: dividing by zero gives inf or nan, as raising would be a branch."""
    return cast(Kernel, njit(cache=True, error_model="numpy")(function))


def built_of(function: Kernel, *modules: ModuleType) -> Kernel:
    """The same, its machine code kept under the text of these modules as well.

    Functions and constants of other modules are compiled in, but numba keeps the result under the text of one.
    """
    files: Any = getattr(getattr(function, "_cache", None), "_cache_file", None)
    if files is not None:
        text = hashlib.sha256("".join(map(inspect.getsource, modules)).encode()).hexdigest()
        files._source_stamp = (files._source_stamp, text)
    return function
