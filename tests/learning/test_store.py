"""Bytes on disk and between processes: exactly what was written, or an error."""

import io

import numpy as np
import pytest
from experience_rows import rows
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.lib import format as npy

from picker.learning import store
from picker.learning.store import MAGIC, StoreError, pack, unpack

KEPT = {
    "rows": rows(3, hardware=[0, 1, 1]),
    "leaves": np.linspace(-1, 1, 7, dtype=np.float32),
    "version": np.array(4),
    "hardware": np.array(["", "H100", "L40S"]),
    "nothing": np.empty((0, 5)),
}
NAMES = st.text(max_size=20)
DTYPES = st.sampled_from(["f4", "f8", "u1", "i8", "?", "<U5", "u4"])
ANY = arrays.arrays(DTYPES, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))


def section(header: bytes, payload: bytes) -> bytes:
    """A sound container around one section that somebody forged."""
    content = npy.magic(1, 0) + len(header).to_bytes(2, "little") + header + payload
    table = store._encode([store._Section("x", len(content), store._checksum(content))])
    return store._HEADER.pack(MAGIC, len(table), store._checksum(table)) + table + content


@given(st.dictionaries(NAMES, ANY, max_size=5))
def test_what_was_packed_comes_back(given: dict[str, np.ndarray]) -> None:
    back = unpack(pack(given))
    assert list(back) == list(given)
    for name, array in given.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)


def test_rows_come_back_as_experience_and_frozen() -> None:
    back = unpack(pack(KEPT))["rows"]
    np.testing.assert_array_equal(back, KEPT["rows"])
    assert back.flags.aligned
    assert not back.flags.writeable


def test_every_flipped_bit_is_an_error() -> None:
    whole = pack(KEPT)
    for bit in range(8 * len(whole)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(StoreError):
            unpack(bytes(data))


@given(st.dictionaries(NAMES, ANY, max_size=3), st.data())
def test_a_flipped_bit_of_any_arrays_is_an_error(given: dict[str, np.ndarray], data: st.DataObject) -> None:
    damaged = bytearray(pack(given))
    bit = data.draw(st.integers(0, 8 * len(damaged) - 1))
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(StoreError):
        unpack(bytes(damaged))


def test_every_truncated_store_is_an_error() -> None:
    whole = pack(KEPT)
    for length in range(len(whole)):
        with pytest.raises(StoreError):
            unpack(whole[:length])


@given(st.binary(min_size=1, max_size=40))
def test_more_than_was_written_is_an_error(more: bytes) -> None:
    with pytest.raises(StoreError):
        unpack(pack(KEPT) + more)


@given(st.binary(max_size=200))
def test_no_bytes_are_more_than_an_error(data: bytes) -> None:
    for hostile in (data, MAGIC + data):
        with pytest.raises(StoreError):
            unpack(hostile)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -1), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 1), 'more': 1}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<f8', 'fortran_order': True, 'shape': (1, 1), }",
        "{'descr': [('x', '|O')], 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '|V0', 'fortran_order': False, 'shape': (8,), }",
        "__import__('os').abort()",
        "(" * 3000,
    ],
)
def test_a_forged_section_is_an_error_before_anything_is_made_of_it(header: str) -> None:
    with pytest.raises(StoreError):
        unpack(section(header.encode(), b"\0" * 8))


def test_objects_are_not_packed() -> None:
    with pytest.raises(ValueError, match="Object arrays"):
        pack({"x": np.array([object()])})


def test_a_section_of_the_other_byte_order_is_read_as_it_is() -> None:
    file = io.BytesIO()
    npy.write_array(file, np.arange(3, dtype=">i4"), version=(1, 0))
    raw = file.getvalue()
    size = int.from_bytes(raw[8:10], "little")
    assert unpack(section(raw[10 : 10 + size], raw[10 + size :]))["x"].tolist() == [0, 1, 2]
