"""A file that is always whole: the last good write or the one before, never half of one."""

import os
from pathlib import Path


def read(file: Path, most_bytes: int) -> bytes | None:
    """Its content; None where there is no such file. Raises OSError, ValueError for more than `most_bytes`."""
    try:
        with file.open("rb") as stream:
            content = stream.read(most_bytes + 1)
    except FileNotFoundError:
        return None
    if len(content) > most_bytes:
        raise ValueError(f"{file} holds more than {most_bytes} bytes")
    return content


def write(file: Path, content: bytes) -> None:
    """Replace it in one step, and only once the new content is on disk. Raises OSError; then the old file stays."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with beside.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
