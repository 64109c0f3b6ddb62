"""Named arrays as bytes, and back: what a restarted picker goes on from, and what it and its trainer tell each other.

Layout: a header (magic, length and checksum of the table), the table (name, length and checksum of each section), the
sections, each an array in numpy's own format. Never pickle. What is read is either exactly what was written or a
`StoreError`; no length that the bytes claim is believed before it is checked against them.
"""

import io
import math
import struct
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import numpy as np
import xxhash
from numpy.lib import format as npy
from numpy.typing import NDArray

MAGIC = b"pickerL1"
"""With the version of this layout; another one is not read."""
MAX_BYTES = 256 << 20
MAX_SECTIONS = 256
MAX_TABLE_BYTES = 1 << 16
MAX_NPY_HEADER = 1 << 14

_HEADER = struct.Struct("<8sIQ")

Arrays = Mapping[str, NDArray[Any]]


class StoreError(Exception):
    """These bytes were not written by this version, or are damaged."""


class _Section(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(max_length=256)]
    length: Annotated[int, msgspec.Meta(ge=0, le=MAX_BYTES)]
    checksum: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Annotated[list[_Section], msgspec.Meta(max_length=MAX_SECTIONS)]).decode


def pack(arrays: Arrays) -> bytes:
    """Arrays of any shape and any dtype without objects. Raises ValueError for others and for too many."""
    if len(arrays) > MAX_SECTIONS:
        raise ValueError(f"{len(arrays)} arrays are more than {MAX_SECTIONS}")
    sections, table = [], []
    for name, array in arrays.items():
        file = io.BytesIO()
        npy.write_array(file, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False)
        section = file.getvalue()
        sections.append(section)
        table.append(_Section(name, len(section), _checksum(section)))
    head = _encode(table)
    return b"".join((_HEADER.pack(MAGIC, len(head), _checksum(head)), head, *sections))


def unpack(data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays that `pack` was given, read-only. Raises StoreError."""
    if not _HEADER.size <= len(data) <= MAX_BYTES:
        raise StoreError(f"{len(data)} bytes are too few or too many")
    magic, length, checksum = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise StoreError("another format or version")
    start = _HEADER.size + length
    head = data[_HEADER.size : start]
    if length > MAX_TABLE_BYTES or len(head) != length or _checksum(head) != checksum:
        raise StoreError("the table of sections is damaged")
    try:
        table = _decode(head)
    except msgspec.MsgspecError as error:
        raise StoreError(f"the table of sections: {error}") from error
    if start + sum(section.length for section in table) != len(data):
        raise StoreError("cut off, or longer than it says")
    arrays: dict[str, NDArray[Any]] = {}
    for section in table:
        content = data[start : start + section.length]
        start += section.length
        if _checksum(content) != section.checksum or section.name in arrays:
            raise StoreError(f"section {section.name!r} is damaged")
        arrays[section.name] = _array(section.name, content)
    return arrays


def _array(name: str, content: bytes) -> NDArray[Any]:
    file = io.BytesIO(content)
    try:
        if npy.read_magic(file) != (1, 0):
            raise ValueError("another version")
        shape, fortran_order, dtype = npy.read_array_header_1_0(file, max_header_size=MAX_NPY_HEADER)
        if dtype.hasobject or (fortran_order and len(shape) > 1):
            raise ValueError("objects or another order")
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(content) - file.tell():
            raise ValueError("its shape is not that of its data")
        # Copied, since kernels are compiled for aligned arrays.
        array: NDArray[Any] = np.frombuffer(content, dtype, math.prod(shape), file.tell()).reshape(shape).copy()
    except Exception as error:  # numpy lets through whatever Python's parser raises
        raise StoreError(f"section {name!r}: {error}") from error
    array.flags.writeable = False
    return array


def _checksum(data: bytes) -> int:
    return xxhash.xxh3_64_intdigest(data)
