"""Reductions over axes, by the names of the array API."""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from zoonet.ops.comparisons import equal
from zoonet.ops.elementwise import add, divide, multiply, where
from zoonet.ops.errors import ArgumentError, DTypeError, ShapeError
from zoonet.ops.registry import REGISTRY, op
from zoonet.ops.samples import bools, complexes, distinct, fixed, float_values, floats, ints, sample
from zoonet.ops.types import (
    BOOL,
    COMPLEX,
    FLOATING,
    INTEGER,
    Array,
    DType,
    Shape,
    TensorType,
    bool_,
    int64,
    kind_of,
    promote,
)

__all__ = ["all", "any", "argmax", "argmin", "count_nonzero", "cumprod", "cumsum", "max", "mean", "min", "prod", "sum"]

Axis: TypeAlias = "int | Sequence[int] | None"


def normalize_axes(name: str, ndim: int, axis: Axis) -> tuple[int, ...]:
    """Axes as sorted non-negative numbers, all of them for None. Raises ShapeError naming the operator."""
    if axis is None:
        return tuple(range(ndim))
    axes = [axis] if isinstance(axis, int) else list(axis)
    for a in axes:
        if not -ndim <= a < ndim:
            raise ShapeError(
                f"{name}: no such axis",
                expected=f"{-ndim} to {ndim - 1}" if ndim else "none, for there are no axes",
                received=a,
            )
    result = sorted({a % ndim for a in axes})
    if len(result) != len(axes):
        raise ShapeError(f"{name}: an axis is named twice", expected="distinct axes", received=axis)
    return tuple(result)


def reduced_shape(name: str, shape: Shape, axis: Axis, keepdims: bool) -> Shape:
    """The shape after reducing over axes."""
    axes = normalize_axes(name, len(shape), axis)
    if keepdims:
        return tuple(1 if i in axes else n for i, n in enumerate(shape))
    return tuple(n for i, n in enumerate(shape) if i not in axes)


def broadcast_back(gradient: Array, shape: Shape, axis: Axis) -> Array:
    """A reduction's gradient with the reduced axes brought back, broadcast to the operand's shape."""
    kept = REGISTRY["reshape"](gradient, reduced_shape("gradient", shape, axis, True))
    return REGISTRY["broadcast_to"](kept, shape)


def number_of_elements(shape: Shape, axis: Axis) -> int:
    """How many elements each result of a reduction over axes comes from."""
    return math.prod(shape[a] for a in normalize_axes("mean", len(shape), axis))


def require_elements(name: str, x: TensorType, axis: Axis) -> None:
    """Raise ShapeError where a reduction over axes has no element to choose."""
    if builtins.any(x.shape[a] == 0 for a in normalize_axes(name, x.ndim, axis)):
        raise ShapeError(
            f"{name} of no elements is not defined",
            expected="reduced axes of size 1 or more",
            received=list(x.shape),
        )


def require_real(name: str, x: TensorType) -> None:
    """Raise DTypeError for complex numbers and anything that is not a number."""
    if kind_of(x.dtype) > FLOATING:
        raise DTypeError(f"{name} takes real numbers", expected="bool, integer or floating", received=x.dtype.name)


#: From this number of rows on a sum is taken block by block, and the rows of a block.
_MANY_ROWS, _BLOCK = 1024, 256
REDUCED = [
    sample(floats(2, 3, 4)),
    sample(floats(2, 3, 4), 1),
    sample(floats(2, 3, 4), (0, -1), True),
    sample(floats(), None, True),
]
ORDERED = [
    sample(distinct(2, 3, 4)),
    sample(distinct(2, 3, 4), -2),
    sample(distinct(2, 3, 4), (0, -1), True),
    sample(ints(3, 4), 1),
]
SEARCHED = [s for s in ORDERED if s.args[1:] != ((0, -1), True)]


# -- sums --------------------------------------------------------------------------------------------------------


def _accumulated_dtype(dtype: DType) -> DType:
    """int64 for bool and integers narrower than 64 bits, which a sum or product would overflow."""
    small = kind_of(dtype) == BOOL or (kind_of(dtype) == INTEGER and dtype.itemsize < 8)
    return int64 if small else dtype


def accurate_sum(xp: Any, x: Array, axis: Axis, keepdims: bool) -> Array:
    """The sum, where NumPy would add up thousands of rows one by one and lose digits, block by block.

    NumPy sums in pairs along the last axis only.
    """
    axes = normalize_axes("sum", x.ndim, axis)
    rows = math.prod([x.shape[a] for a in axes])
    is_run = bool(axes) and axes == tuple(range(axes[0], axes[0] + len(axes))) and axes[-1] != x.ndim - 1
    if xp is not np or rows < _MANY_ROWS or not is_run or x.dtype.kind != "f" or not x.flags.c_contiguous:
        return xp.sum(x, axis=axis, keepdims=keepdims)
    before, after = x.shape[: axes[0]], x.shape[axes[-1] + 1 :]
    total = _sum_of_rows(x.reshape(math.prod(before), rows, math.prod(after)))
    return total.reshape((*before, *(1 for _ in axes if keepdims), *after))


def _sum_of_rows(x: Array) -> Array:
    """(before, rows, after) -> (before, after)."""
    rows, after = x.shape[1:]
    if rows < _MANY_ROWS or after == 0:
        return x.sum(1)
    if after < 16:  # each of the two ways is many times as fast as the other on its side of about 16
        return _sum_of_rows(np.add.reduceat(x, np.arange(0, rows, _BLOCK), axis=1))
    whole = rows - rows % _BLOCK
    blocks = x[:, :whole].reshape(len(x), whole // _BLOCK, _BLOCK, after)
    return _sum_of_rows(blocks.sum(2)) + x[:, whole:].sum(1)


@op(samples=[*REDUCED, sample(floats(0, 3), 0), sample(ints(4)), sample(bools(3, 2), 0), sample(complexes(3))])
def sum(xp: Any, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """The sum over axes (all for None). Any shape -> reduced shape, same dtype; bool and small integers -> int64.

    Raises ShapeError for an axis that x does not have. Source: array API `sum`.
    """
    return accurate_sum(xp, x, axis, keepdims)


@sum.type
def _(x: TensorType, axis: Axis = None, keepdims: bool = False) -> TensorType:
    return TensorType(reduced_shape("sum", x.shape, axis, keepdims), _accumulated_dtype(x.dtype))


@sum.vjp
def _(gy: Array, _y: Array, _x: TensorType, axis: Axis, keepdims: bool) -> Any:
    return broadcast_back(gy, _x.shape, axis)


@op(samples=[*REDUCED, sample(ints(4)), sample(complexes(3))])
def mean(xp: Any, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """The arithmetic mean over axes (all for None). Any shape -> reduced shape, same dtype; integers -> float32.

    NaN where there are no elements. Raises ShapeError for an axis that x does not have. Source: array API `mean`.
    """
    if kind_of(x.dtype) not in (FLOATING, COMPLEX):
        return xp.mean(x, axis=axis, keepdims=keepdims)
    return accurate_sum(xp, x, axis, keepdims) / x.dtype.type(number_of_elements(x.shape, axis))


@mean.type
def _(x: TensorType, axis: Axis = None, keepdims: bool = False) -> TensorType:
    return TensorType(reduced_shape("mean", x.shape, axis, keepdims), promote([x], floating=True))


@mean.vjp
def _(gy: Array, _y: Array, _x: TensorType, axis: Axis, keepdims: bool) -> Any:
    return broadcast_back(divide(gy, number_of_elements(_x.shape, axis)), _x.shape, axis)


# -- extremes ----------------------------------------------------------------------------------------------------


def shared_among_ties(gy: Array, y: Array, x: Array, axis: Axis) -> Array:
    """The gradient of a largest or smallest element y of x, evenly shared by the elements equal to it."""
    kept = reduced_shape("gradient", x.shape, axis, True)
    chosen = equal(x, REGISTRY["reshape"](y, kept))
    share = divide(REGISTRY["reshape"](gy, kept), sum(chosen, axis, True))
    return where(chosen, share, 0)


@op(samples=ORDERED)
def max(xp: Any, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """The largest element over axes (all for None), NaN if there is one. Real -> reduced shape, same dtype.

    Equal largest elements share the gradient evenly. Raises ShapeError where there are no elements, or no such axis.
    Source: array API `max`; gradient of `torch.amax`.
    """
    return xp.max(x, axis=axis, keepdims=keepdims)


@op(samples=ORDERED)
def min(xp: Any, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """The smallest element over axes (all for None), NaN if there is one. Real -> reduced shape, same dtype.

    Equal smallest elements share the gradient evenly. Raises ShapeError where there are no elements, or no such axis.
    Source: array API `min`; gradient of `torch.amin`.
    """
    return xp.min(x, axis=axis, keepdims=keepdims)


@max.type
@min.type
def _(x: TensorType, axis: Axis = None, keepdims: bool = False) -> TensorType:
    require_real("max or min", x)
    require_elements("max or min", x, axis)
    return TensorType(reduced_shape("max or min", x.shape, axis, keepdims), x.dtype)


@max.vjp
@min.vjp
def _(gy: Array, y: Array, x: Array, axis: Axis, keepdims: bool) -> Any:
    return shared_among_ties(gy, y, x, axis)


@op(
    differentiable=False,
    samples=[*SEARCHED, sample(fixed([2, 5, 5, 1], "int64"), 0, True, True), sample(fixed([2, 5, 5, 1], "int64"))],
)
def argmax(
    xp: Any, x: Array, axis: int | None = None, keepdims: bool = False, select_last_index: bool = False
) -> Array:
    """The index of the largest element along an axis, the first of equals unless select_last_index (as in ONNX).

    Real, any shape -> reduced shape, int64; axis None: the index into the flattened array. NaN counts as largest.
    Raises ShapeError where there are no elements, or no such axis. Source: array API `argmax`.
    """
    return _index_of(xp, xp.argmax, x, axis, keepdims, select_last_index)


@op(
    differentiable=False,
    samples=[*SEARCHED, sample(fixed([2, 1, 1, 5], "int64"), 0, True, True), sample(fixed([2, 1, 1, 5], "int64"))],
)
def argmin(
    xp: Any, x: Array, axis: int | None = None, keepdims: bool = False, select_last_index: bool = False
) -> Array:
    """The index of the smallest element along an axis, the first of equals unless select_last_index (as in ONNX).

    Real, any shape -> reduced shape, int64; axis None: the index into the flattened array. NaN counts as smallest.
    Raises ShapeError where there are no elements, or no such axis. Source: array API `argmin`.
    """
    return _index_of(xp, xp.argmin, x, axis, keepdims, select_last_index)


def _index_of(xp: Any, find: Any, x: Array, axis: int | None, keepdims: bool, select_last_index: bool) -> Array:
    along = 0 if axis is None else axis
    line = xp.reshape(x, -1) if axis is None else x
    found = find(xp.flip(line, along), axis=along) if select_last_index else find(line, axis=along)
    if select_last_index:
        found = line.shape[along] - 1 - found
    return xp.reshape(found, reduced_shape("argmax", x.shape, axis, keepdims))


@argmax.type
@argmin.type
def _(x: TensorType, axis: int | None = None, keepdims: bool = False, select_last_index: bool = False) -> TensorType:
    if not isinstance(axis, int | None):
        raise ArgumentError("argmax and argmin take one axis", expected="a number or None", received=axis)
    require_real("argmax or argmin", x)
    require_elements("argmax or argmin", x, axis)
    return TensorType(reduced_shape("argmax or argmin", x.shape, axis, keepdims), int64)


# -- products and running totals ---------------------------------------------------------------------------------


@op(
    samples=[
        *REDUCED,
        sample(floats(0, 3), 0),
        sample(ints(4)),
        sample(float_values([[0.0, 2.0, 3.0], [0.0, 0.0, 2.0], [1.0, -2.0, 0.5]]), 1),
        sample(float_values([0.0, 2.0, 3.0])),
    ]
)
def prod(xp: Any, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """The product over axes (all for None). Any shape -> reduced shape, same dtype; small integers -> int64.

    The gradient holds where elements are 0. Raises ShapeError for an axis that x does not have. Source: array API.
    """
    return xp.prod(x, axis=axis, keepdims=keepdims)


@prod.type
def _(x: TensorType, axis: Axis = None, keepdims: bool = False) -> TensorType:
    return TensorType(reduced_shape("prod", x.shape, axis, keepdims), _accumulated_dtype(x.dtype))


@prod.vjp
def _(gy: Array, _y: Array, x: Array, axis: Axis, keepdims: bool) -> Any:
    axes = normalize_axes("prod", len(x.shape), axis)
    rest = tuple(i for i in range(len(x.shape)) if i not in axes)
    order = (*rest, *axes)
    moved = REGISTRY["transpose"](x, order)
    lines = REGISTRY["reshape"](moved, (*(x.shape[i] for i in rest), number_of_elements(x.shape, axis)))
    others = multiply(cumprod(lines, -1, True, False), cumprod(lines, -1, True, True))  # without dividing by zeros
    restored = tuple(order.index(i) for i in range(len(order)))
    slopes = REGISTRY["transpose"](REGISTRY["reshape"](others, moved.shape), restored)
    return multiply(broadcast_back(gy, x.shape, axis), slopes)


def _running(xp: Any, accumulate: Any, x: Array, axis: int, exclusive: bool, reverse: bool, start: int) -> Array:
    if reverse:
        x = xp.flip(x, axis)
    # In float32, the rounding of 100,000 steps is felt in the fourth digit.
    y = accumulate(x, axis=axis, dtype=np.float64 if x.dtype == np.float32 else None)
    if exclusive and x.shape[axis]:
        leading = (slice(None),) * (axis % x.ndim)
        shifted = xp.empty_like(y)
        shifted[(*leading, slice(0, 1))] = start
        shifted[(*leading, slice(1, None))] = y[(*leading, slice(0, -1))]
        y = shifted
    return xp.flip(y, axis) if reverse else y


RUNNING = [
    sample(floats(3, 4), 1),
    sample(floats(3, 4), 0, True, False),
    sample(floats(3, 4), -1, False, True),
    sample(floats(2, 5), -1, True, True),
    sample(ints(4, high=3, dtype="int32"), 0),
    sample(floats(0, 2), 0, True),
    sample(floats(2, 1), 1, True, True),
]


@op(samples=RUNNING)
def cumsum(xp: Any, x: Array, axis: int = -1, exclusive: bool = False, reverse: bool = False) -> Array:
    """Running sums along an axis. Any shape of 1 or more axes -> same; bool and small integers -> int64.

    exclusive: without the element itself, from 0. reverse: from the end. Raises ShapeError for an axis that x does not
    have. Source: array API `cumulative_sum`; ONNX CumSum for the options.
    """
    return _running(xp, xp.cumsum, x, axis, exclusive, reverse, 0)


@op(samples=[*RUNNING, sample(float_values([[0.0, 2.0, 3.0], [2.0, 0.0, 0.0], [1.0, -2.0, 0.5]]), 1)])
def cumprod(xp: Any, x: Array, axis: int = -1, exclusive: bool = False, reverse: bool = False) -> Array:
    """Running products along an axis. Any shape of 1 or more axes -> same; bool and small integers -> int64.

    exclusive: without the element itself, from 1. reverse: from the end. The gradient holds where elements are 0.
    Raises ShapeError for an axis that x does not have. Source: `numpy.cumprod`.
    """
    return _running(xp, xp.cumprod, x, axis, exclusive, reverse, 1)


@cumsum.type
@cumprod.type
def _(x: TensorType, axis: int = -1, exclusive: bool = False, reverse: bool = False) -> TensorType:
    normalize_axes("cumulative", x.ndim, axis)
    return TensorType(x.shape, _accumulated_dtype(x.dtype))


@cumsum.vjp
def _(gy: Array, _y: Array, _x: Array, axis: int, exclusive: bool, reverse: bool) -> Any:
    return cumsum(gy, axis, exclusive, not reverse)


@cumprod.vjp
def _(gy: Array, _y: Array, x: Array, axis: int, exclusive: bool, reverse: bool) -> Any:
    """Element k's gradient is the product of those before it times s[k] = Σ_{i≥k} gy[i] · Π_{k<j≤i} x[j], which obeys
    s[k] = gy[k] + x[k+1] · s[k+1]: solved by doubling, without dividing by elements that may be 0."""
    leading = (slice(None),) * (axis % len(x.shape))
    size = x.shape[axis]

    def later(a: Array, distance: int) -> Array:
        """a[k + distance] at k along the axis that runs as the products do; 0 beyond the end."""
        distance = builtins.min(distance, size)
        edge = [*x.shape]
        edge[axis] = distance
        zeros = REGISTRY["broadcast_to"](multiply(a[(*leading, slice(0, 1))], 0), edge)
        parts = (
            [zeros, a[(*leading, slice(0, size - distance))]]
            if reverse
            else [a[(*leading, slice(distance, None))], zeros]
        )
        return REGISTRY["concat"](parts, axis)

    if not size:
        return gy
    sums = later(gy, 1) if exclusive else gy
    factors = later(x, 1)
    distance = 1
    while distance < size:
        sums = add(sums, multiply(factors, later(sums, distance)))
        factors = multiply(factors, later(factors, distance))
        distance *= 2
    return multiply(cumprod(x, axis, True, reverse), sums)


# -- truth -------------------------------------------------------------------------------------------------------


TRUTH = [
    sample(bools(2, 3)),
    sample(bools(2, 3, 4), (0, -1), True),
    sample(ints(2, 3, high=2), 1),
    sample(float_values([[0.0, 1.0], [0.0, 0.0]]), 1),
    sample(floats(0, 3), 0),
]


@op(differentiable=False, samples=TRUTH)
def any(xp: Any, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """True where an element over axes (all for None) is not 0; False for none. Any shape -> reduced shape, bool.

    Raises ShapeError for an axis that x does not have. Source: array API `any`.
    """
    return xp.any(x, axis=axis, keepdims=keepdims)


@op(differentiable=False, samples=TRUTH)
def all(xp: Any, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """True where no element over axes (all for None) is 0; True for none. Any shape -> reduced shape, bool.

    Raises ShapeError for an axis that x does not have. Source: array API `all`.
    """
    return xp.all(x, axis=axis, keepdims=keepdims)


@any.type
@all.type
def _(x: TensorType, axis: Axis = None, keepdims: bool = False) -> TensorType:
    return TensorType(reduced_shape("any or all", x.shape, axis, keepdims), bool_)


@op(differentiable=False, samples=TRUTH)
def count_nonzero(xp: Any, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """How many elements over axes (all for None) are not 0. Any shape -> reduced shape, int64.

    Raises ShapeError for an axis that x does not have. Source: array API `count_nonzero`.
    """
    return xp.sum(x != 0, axis=axis, keepdims=keepdims)


@count_nonzero.type
def _(x: TensorType, axis: Axis = None, keepdims: bool = False) -> TensorType:
    return TensorType(reduced_shape("count_nonzero", x.shape, axis, keepdims), int64)
