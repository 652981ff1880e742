"""Reductions over axes, by the names of the array API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from zoonet.ops.errors import ShapeError
from zoonet.ops.registry import REGISTRY, op
from zoonet.ops.samples import floats, ints, sample
from zoonet.ops.types import BOOL, INTEGER, Array, Shape, TensorType, int64, kind_of

__all__ = ["sum"]

Axis: TypeAlias = "int | Sequence[int] | None"


def normalize_axes(name: str, ndim: int, axis: Axis) -> tuple[int, ...]:
    """Axes as sorted non-negative numbers, all of them for None. Raises ShapeError naming the operator."""
    if axis is None:
        return tuple(range(ndim))
    axes = [axis] if isinstance(axis, int) else list(axis)
    for a in axes:
        if not -ndim <= a < ndim:
            raise ShapeError(f"{name}: no such axis", expected=f"{-ndim} to {ndim - 1}", received=a)
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


def _numpy_axis(axis: Axis) -> Any:
    return tuple(axis) if isinstance(axis, list) else axis


@op(
    samples=[
        sample(floats(2, 3, 4)),
        sample(floats(2, 3, 4), 1),
        sample(floats(2, 3), (0, -1), True),
        sample(ints(4)),
    ]
)
def sum(xp: Any, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """The sum over axes (all for None). Any shape -> reduced shape, same dtype; bool and small integers -> int64.

    Raises ShapeError for an axis that x does not have. Source: array API `sum`.
    """
    return xp.sum(x, axis=_numpy_axis(axis), keepdims=keepdims)


@sum.type
def _(x: TensorType, axis: Axis = None, keepdims: bool = False) -> TensorType:
    small = kind_of(x.dtype) <= INTEGER and (kind_of(x.dtype) == BOOL or x.dtype.itemsize < 8)
    return TensorType(reduced_shape("sum", x.shape, axis, keepdims), int64 if small else x.dtype)


@sum.vjp
def _(gy: Array, _y: Array, _x: TensorType, axis: Axis, keepdims: bool) -> Any:
    kept = REGISTRY["reshape"](gy, reduced_shape("sum", _x.shape, axis, True))
    return REGISTRY["broadcast_to"](kept, _x.shape)
