"""The file in which a picker keeps what it learned."""

import os
from pathlib import Path

import pytest

from picker.server import state_file


def test_what_was_written_last_is_read(tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "state"
    for content in (b"first", b"", b"last"):
        state_file.write(file, content)
    assert state_file.read(file, 100) == b"last"
    assert [path.name for path in file.parent.iterdir()] == ["state"]


def test_no_file_is_nothing_and_a_huge_one_is_an_error(tmp_path: Path) -> None:
    assert state_file.read(tmp_path / "state", 100) is None
    (tmp_path / "state").write_bytes(b"x" * 101)
    with pytest.raises(ValueError, match="more than 100 bytes"):
        state_file.read(tmp_path / "state", 100)


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state_file.write(tmp_path / "state", b"old")

    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        state_file.write(tmp_path / "state", b"new")
    assert state_file.read(tmp_path / "state", 100) == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
