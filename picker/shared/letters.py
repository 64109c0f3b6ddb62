"""What changes seldom and has no fixed size: files in the folder of the run, each replaced whole by its writer."""

import os
from pathlib import Path

MAX_BYTES = 64 << 20


class Letter:
    """The writing side. What was written before stays readable until the new text is there in full."""

    def __init__(self, folder: Path, name: str) -> None:
        self._path, self._draft = folder / name, folder / f"{name}.draft"

    @property
    def written(self) -> bool:
        """Whether anything was ever written, by us or by whoever wrote before."""
        return self._path.exists()

    def write(self, text: bytes) -> None:
        """Raises OSError."""
        self._draft.write_bytes(text)
        os.replace(self._draft, self._path)


class Box:
    """The reading side."""

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / name
        self._read = (0, 0)

    def news(self) -> bytes | None:
        """The text, if it was not read yet; None as well where nothing was ever written, or too much."""
        try:
            with self._path.open("rb") as file:
                state = os.fstat(file.fileno())
                mark = (state.st_ino, state.st_mtime_ns)
                if mark == self._read or state.st_size > MAX_BYTES:
                    return None
                text = file.read(state.st_size)
        except OSError:
            return None
        self._read = mark
        return text
