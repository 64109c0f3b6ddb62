"""Order among the reads and writes of compiled code that shares memory with other processes."""

from collections.abc import Callable
from typing import Any, cast

from numba import types
from numba.extending import intrinsic


def _fence(typing: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("acq_rel")
        return context.get_dummy_value()

    return types.void(), code


fence = cast(Callable[[], None], intrinsic(_fence))
"""In compiled code: what is read or written before it is so for everybody before what comes after it is, but for a
write followed by a read. On x86-64 it only binds the compiler and costs nothing; on aarch64 it is a barrier."""
