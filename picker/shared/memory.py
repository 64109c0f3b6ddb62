"""Memory with a name, for processes of one user: a memfd, found through a link in a private folder.

Whoever makes a piece keeps it: it is gone when that process and all who mapped it are, however they ended. Pages are
resident only once they are touched. Linux only. Processes that map one piece must run the same code.
"""

import mmap
import os
from pathlib import Path


class Kept:
    """A piece of zeros of `size` bytes called `name` in `folder`, until it is closed.

    Takes the name from whoever had it. Raises OSError when there is no such folder.
    """

    def __init__(self, folder: Path, name: str, size: int) -> None:
        self._descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
        os.ftruncate(self._descriptor, size)
        self._link = folder / name
        self._link.unlink(missing_ok=True)  # of one that died and had our number
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
