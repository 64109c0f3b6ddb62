"""Machine code for one tree and LANES rows, written in LLVM's own terms because loops over arrays keep nothing in
registers: here the rows' bits stay there while all splits of a tree are put to them, four times as fast.

Vectors of LANES are LLVM's to cut to the width of the machine. Only the last step, looking up a leaf's value per row,
knows one: with AVX-512 two registers hold all leaves of a tree and one instruction looks up sixteen of them.
"""

from typing import Any, Protocol, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils as _cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

LANES = 64
"""Rows scored together: four of the widest registers."""
MAX_LEAVES = 32
AT_ONCE = 2
"""Splits put to the rows per turn of the loop; those of a tree come in a multiple."""
DE_BRUIJN = 0x077C_B531
"""Times the i-th bit it has a number of its own in its five upper bits: the slot of leaf i, found without counting."""

cgutils: Any = _cgutils

_REGISTER = 16
_LOOK_UP = "llvm.x86.avx512.vpermi2var.ps.512"
_INT, _LONG, _FLOAT = ir.IntType(32), ir.IntType(64), ir.FloatType()
_INTS, _FLOATS = ir.VectorType(_INT, LANES), ir.VectorType(_FLOAT, LANES)


class AddTree(Protocol):
    def __call__(
        self,
        features: NDArray[np.float32],
        block: int,
        split_features: NDArray[np.uint32],
        thresholds: NDArray[np.float32],
        masks: NDArray[np.uint32],
        leaves: NDArray[np.float32],
        tree: int,
        out: NDArray[np.float32],
    ) -> None:
        """Add to `out`, (LANES,), what a tree says of a block of `features`, (blocks, F, LANES). Nothing is checked;
        arrays are C-contiguous, the others as to `quickscorer.add_scores`."""


def _add_tree(
    context: Any, features: Any, block: Any, splits: Any, thresholds: Any, masks: Any, leaves: Any, tree: Any, out: Any
) -> Any:
    """How numba is told."""
    arguments = (features, types.intp, splits, thresholds, masks, leaves, types.intp, out)
    return types.void(*arguments), _code


def _code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    features, splits, thresholds, masks, leaves, out = (
        context.make_array(signature.args[i])(context, builder, args[i]) for i in (0, 2, 3, 4, 5, 7)
    )
    block, tree = args[1], args[6]

    def times(a: Any, b: Any) -> Any:
        return builder.mul(a, b if isinstance(b, ir.Value) else _LONG(b))

    def item(data: Any, at: Any) -> Any:
        return builder.load(builder.gep(data, [at]))

    def vector_at(data: Any, at: Any, kind: Any) -> Any:
        return builder.bitcast(builder.gep(data, [at]), kind.as_pointer())

    def everywhere(value: Any) -> Any:
        none = ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined)
        first = builder.insert_element(none, value, _INT(0))
        return builder.shuffle_vector(first, none, ir.Constant(_INTS, [0] * LANES))

    rows = times(block, times(builder.extract_value(features.shape, 1), LANES))
    width = builder.extract_value(splits.shape, 1)
    begin = times(tree, width)
    left = cgutils.alloca_once_value(builder, ir.Constant(_INTS, [0xFFFF_FFFF] * LANES))
    with cgutils.for_range_slice(builder, begin, builder.add(begin, width), _LONG(AT_ONCE)) as (first, _):
        still = builder.load(left)
        for more in range(AT_ONCE):
            split = builder.add(first, _LONG(more))
            feature = builder.zext(item(splits.data, split), _LONG)
            values = vector_at(features.data, builder.add(rows, times(feature, LANES)), _FLOATS)
            right = builder.fcmp_ordered(">", builder.load(values, align=4), everywhere(item(thresholds.data, split)))
            still = builder.select(right, builder.and_(still, everywhere(item(masks.data, split))), still)
        builder.store(still, left)
    still = builder.load(left)
    one = builder.and_(still, builder.neg(still))
    slots = builder.lshr(builder.mul(one, ir.Constant(_INTS, [DE_BRUIJN] * LANES)), ir.Constant(_INTS, [27] * LANES))

    own = times(tree, MAX_LEAVES)
    if "+avx512f" in context.codegen().magic_tuple()[2].split(","):
        kind, indices = ir.VectorType(_FLOAT, _REGISTER), ir.VectorType(_INT, _REGISTER)
        lower, upper = (
            builder.load(vector_at(leaves.data, builder.add(own, _LONG(at)), kind), align=4) for at in (0, _REGISTER)
        )
        look_up = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind, indices, kind]), _LOOK_UP)
        for at in range(0, LANES, _REGISTER):
            lanes = ir.Constant(indices, list(range(at, at + _REGISTER)))
            said = builder.call(look_up, [lower, builder.shuffle_vector(slots, slots, lanes), upper])
            place = vector_at(out.data, _LONG(at), kind)
            builder.store(builder.fadd(builder.load(place, align=4), said), place, align=4)
    else:
        for at in range(LANES):
            slot = builder.zext(builder.extract_element(slots, _INT(at)), _LONG)
            place = builder.gep(out.data, [_LONG(at)])
            builder.store(builder.fadd(builder.load(place), item(leaves.data, builder.add(own, slot))), place)
    return context.get_dummy_value()


add_tree = cast(AddTree, intrinsic(_add_tree))
