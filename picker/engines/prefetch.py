"""Memory asked for before it is needed, in compiled code, so that several misses are waited for at once."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray


def _prefetch(typing: Any, array: Any, row: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind, flag = signature.args[0], context.get_value_type(types.int32)
        found = context.make_array(kind)(context, builder, arguments[0])
        place = builder.bitcast(_item(context, builder, kind, found, [arguments[1]]), cgutils.voidptr_t)
        takes = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, flag, flag, flag])
        asks = _function(builder.module, takes, "llvm.prefetch.p0")
        builder.call(asks, [place, flag(0), flag(3), flag(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), code


_function = cast(Callable[..., Any], cgutils.get_or_insert_function)
_item = cast(Callable[..., Any], cgutils.get_item_pointer)
prefetch = cast(Callable[[NDArray[Any], int | np.int64], None], intrinsic(_prefetch))
"""Begin to load a row of an array of shape (n,). Nothing is read: a row that does not exist does no harm."""
