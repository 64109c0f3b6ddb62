"""Many arrays handed to a kernel as one.

numba takes its arguments apart on every call, and each array of a tuple by itself: some three cache lines an array, a
miss each in a process that was just woken. A bundle is one array that says where the others lie.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any, TypeVar, cast

import numpy as np
from numba import typeof, types
from numba.extending import intrinsic
from numba.np import arrayobj
from numpy.typing import NDArray

from picker.engines.kernels import LAYOUT

Arrays = TypeVar("Arrays", bound=tuple[Any, ...])
Bundle = NDArray[np.int64]
"""Per array its address, shape and strides. It keeps none alive: whoever holds a bundle holds the arrays as well."""


def bundling(like: Arrays) -> tuple[Callable[[Arrays], Bundle], Callable[[Bundle], Arrays]]:
    """For tuples of arrays, or of such tuples, that have the types of `like`: what makes a bundle of one, and what, in
    compiled code, makes the tuple of its bundle.

    The first raises TypeError on other types; an array with gaps between its elements is of another type than one
    without.
    """
    kind = _type_of(like)

    def bundled(arrays: Arrays) -> Bundle:
        if (found := _type_of(arrays)) != kind:
            raise TypeError(f"{found} is not {kind}")
        return np.array([word for a in _flat(arrays) for word in (a.ctypes.data, *a.shape, *a.strides)], np.int64)

    def unbundled(typing: Any, bundle: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            words = context.make_array(signature.args[0])(context, builder, arguments[0]).data
            return _built(context, builder, kind, words, count())

        return kind(types.Array(types.int64, 1, "C")), code

    setattr(unbundled, LAYOUT, str(kind))
    return bundled, cast(Callable[[Bundle], Arrays], intrinsic(unbundled))


_type_of = cast(Callable[[Any], Any], typeof)
_populate = cast(Callable[..., None], arrayobj.populate_array)


def _flat(arrays: tuple[Any, ...]) -> Iterator[NDArray[Any]]:
    for each in arrays:
        if isinstance(each, tuple):
            yield from _flat(each)
        else:
            yield each


def _built(context: Any, builder: Any, kind: Any, words: Any, places: Iterator[int]) -> Any:
    if not isinstance(kind, types.Array):
        return context.make_tuple(builder, kind, [_built(context, builder, each, words, places) for each in kind])

    place = partial(context.get_constant, types.intp)

    def read(many: int) -> list[Any]:
        return [builder.load(builder.gep(words, [place(next(places))])) for _ in range(many)]

    array = context.make_array(kind)(context, builder)
    _populate(
        array,
        data=builder.inttoptr(read(1)[0], array.data.type),
        shape=read(kind.ndim),
        strides=read(kind.ndim),
        itemsize=place(context.get_abi_sizeof(context.get_data_type(kind.dtype))),
        meminfo=None,
    )
    return array._getvalue()
