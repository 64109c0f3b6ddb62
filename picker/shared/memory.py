"""Memory with a name, for processes of one user: a memfd, found through a link in a private folder.

Whoever makes a piece keeps it: it is gone when that process and all who mapped it are, however they ended. Pages are
resident only once they are touched. Linux only. Processes that map one piece must run the same code.
"""

import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from numba import types
from numba.extending import intrinsic


class Kept:
    """A piece of zeros of `size` bytes called `name` in `folder`, until it is closed.

    Raises OSError when there is no such folder, or the name is taken.
    """

    def __init__(self, folder: Path, name: str, size: int) -> None:
        self._descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
        os.ftruncate(self._descriptor, size)
        self._link = folder / name
        self._link.symlink_to(f"/proc/{os.getpid()}/fd/{self._descriptor}")

    def close(self) -> None:
        """No more processes can map it; those that have keep what they have."""
        self._link.unlink(missing_ok=True)
        os.close(self._descriptor)


def mapped(folder: Path, name: str, size: int, *, writes: bool) -> mmap.mmap:
    """The piece of this name. Raises OSError where there is none, ValueError where it has another size."""
    descriptor = os.open(folder / name, (os.O_RDWR if writes else os.O_RDONLY) | os.O_CLOEXEC)
    try:
        if (found := os.fstat(descriptor).st_size) != size:
            raise ValueError(f"{name}: {found} bytes, not {size}")
        return mmap.mmap(descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ | (mmap.PROT_WRITE if writes else 0))
    finally:
        os.close(descriptor)


def _fence(typing: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("acq_rel")
        return context.get_dummy_value()

    return types.void(), code


fence = cast(Callable[[], None], intrinsic(_fence))
"""In compiled code: what is read or written before it is so for everybody before what comes after it is, but for a
write followed by a read. On x86-64 it only binds the compiler and costs nothing; on aarch64 it is a barrier."""
