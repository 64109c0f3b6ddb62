"""Machine code of an earlier process serves only while all that was compiled into it is as it was."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CALLED = "from picker.engines.kernels import bare\n\nSTEP = {step}\n\n\n@bare\ndef called(x):\n    return x + {more}\n"
INTRINSIC = """
from numba import types
from numba.extending import intrinsic


@intrinsic
def called(typing, x):
    def code(context, builder, signature, arguments):
        return builder.add(arguments[0], context.get_constant(types.int64, {more}))

    return types.int64(types.int64), code


STEP = 2
"""
CALLER = """
from called import STEP, called
from picker.engines.kernels import kernel


@kernel
def calling(x):
    return called(x) * STEP


print(calling(1), sum(calling.stats.cache_hits.values()))
"""


def written(folder: Path, step: int, more: int) -> Path:
    (folder / "called.py").write_text(CALLED.format(step=step, more=more))
    return folder


def run(folder: Path) -> tuple[int, int]:
    """What a new process computes, and how many of its kernels an earlier one had compiled."""
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    told = subprocess.run(
        [sys.executable, "calling.py"], cwd=folder, env=env, check=True, capture_output=True, text=True
    )
    value, hits = told.stdout.split()
    return int(value), int(hits)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "calling.py").write_text(CALLER)
    return written(tmp_path, 2, 10)


@pytest.mark.parametrize(("step", "more", "value"), [(2, 30, 62), (5, 10, 55)], ids=["function", "constant"])
def test_a_change_in_another_file_is_compiled_anew(folder: Path, step: int, more: int, value: int) -> None:
    assert run(folder) == (22, 0)
    assert run(written(folder, step, more)) == (value, 0)


def test_without_a_change_the_earlier_code_serves(folder: Path) -> None:
    assert [run(folder), run(folder)] == [(22, 0), (22, 1)]


def test_a_change_of_an_intrinsic_is_compiled_anew(folder: Path) -> None:
    (folder / "called.py").write_text(INTRINSIC.format(more=10))
    assert run(folder) == (22, 0)
    (folder / "called.py").write_text(INTRINSIC.format(more=300))
    assert run(folder) == (602, 0)


LAID_OUT = """
from typing import NamedTuple

import numpy as np

from picker.engines.bundle import bundling


class Arrays(NamedTuple):
    {fields}: np.ndarray


ARRAYS = Arrays(**{{"first": np.ones(2), "second": np.zeros((2, 2))}})
bundled, called = bundling(ARRAYS)
"""
READER = """
from called import ARRAYS, bundled, called
from picker.engines.kernels import bare


@bare
def calling(bundle):
    return called(bundle).first[1]


print(int(calling(bundled(ARRAYS))), sum(calling.stats.cache_hits.values()))
"""


def test_a_bundle_that_is_laid_out_otherwise_is_compiled_anew(folder: Path) -> None:
    (folder / "calling.py").write_text(READER)
    (folder / "called.py").write_text(LAID_OUT.format(fields="first: np.ndarray\n    second"))
    assert [run(folder), run(folder)] == [(1, 0), (1, 1)]
    (folder / "called.py").write_text(LAID_OUT.format(fields="second: np.ndarray\n    first"))
    assert run(folder) == (1, 0)
