"""Reductions, ArgMax and ArgMin, cumulative sums and products."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.sets.onnx.arithmetic import number
from zoonet.ops.sets.onnx.common import axes_of, normalized_axis, scalar
from zoonet.ops.sets.onnx.registry import onnx_operator
from zoonet.ops.types import Array, DType, is_floating, kind_of

Reduction = Callable[[Array, tuple[int, ...] | None, bool], Array]


def reduction(name: str, function: Reduction, attribute: Sequence[int], operand: Sequence[int]) -> None:
    """Declare a reduction: axes as an attribute in the versions `attribute`, as an input in those of `operand`."""

    def with_attribute(data: Array, /, axes: Sequence[int] | None = None, keepdims: int = 1) -> Array:
        return function(data, tuple(axes) if axes else None, bool(keepdims))

    def with_operand(data: Array, axes: Any = None, /, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Array:
        chosen = axes_of(axes, f"the axes of {name}")
        if not chosen:
            chosen = () if noop_with_empty_axes else None
        return function(data, chosen, bool(keepdims))

    for version in attribute:
        onnx_operator(name, since=version)(with_attribute)
    for version in operand:
        onnx_operator(name, since=version)(with_operand)


def keeping_type(function: Callable[..., Array]) -> Reduction:
    """The reduction with the result in the type of its operand, as integer sums would be wider."""
    return lambda x, axes, keepdims: ops.cast(function(x, axes, keepdims), x.dtype)


def lowest(dtype: DType, sign: int) -> Any:
    """The value that a maximum (sign 1) or minimum (sign -1) over nothing has in ONNX."""
    if dtype == np.bool_:
        return np.asarray(sign < 0)
    if is_floating(dtype):
        return number(-sign * math.inf, dtype)
    limits: Any = ml_dtypes.iinfo(dtype)  # type: ignore[no-untyped-call]
    return number(limits.min if sign > 0 else limits.max, dtype)


def extremum(function: Callable[..., Array], sign: int) -> Reduction:
    """A maximum or minimum that is defined over nothing, and for booleans."""

    def reduce(x: Array, axes: tuple[int, ...] | None, keepdims: bool) -> Array:
        over = range(len(x.shape)) if axes is None else axes
        if any(x.shape[axis] == 0 for axis in over):
            chosen = {axis % len(x.shape) for axis in over}
            kept = [(i, 1 if i in chosen else n) for i, n in enumerate(x.shape)]
            shape = tuple(n for i, n in kept if keepdims or i not in chosen)
            return ops.broadcast_to(lowest(x.dtype, sign), shape)
        if x.dtype == np.bool_:
            return ops.any(x, axes, keepdims) if sign > 0 else ops.all(x, axes, keepdims)
        return function(x, axes, keepdims)

    return reduce


def mean(x: Array, axes: tuple[int, ...] | None, keepdims: bool) -> Array:
    """The mean; of integers truncated."""
    if is_floating(x.dtype):
        return ops.mean(x, axes, keepdims)
    return ops.cast(ops.mean(ops.cast(x, np.float64), axes, keepdims), x.dtype)


def _wide(x: Array) -> Array:
    """Integers as float64, where the result has a root or a logarithm."""
    return x if kind_of(x.dtype) >= 2 else ops.cast(x, np.float64)


_SUM = keeping_type(ops.sum)
reduction("ReduceSum", _SUM, (1, 11), (13,))
reduction("ReduceMean", mean, (1, 11, 13), (18,))
reduction("ReduceProd", keeping_type(ops.prod), (1, 11, 13), (18,))
reduction("ReduceMax", extremum(ops.max, 1), (1, 11, 12, 13), (18, 20))
reduction("ReduceMin", extremum(ops.min, -1), (1, 11, 12, 13), (18, 20))
reduction("ReduceL1", lambda x, axes, keepdims: _SUM(ops.abs(x), axes, keepdims), (1, 11, 13), (18,))
reduction("ReduceSumSquare", lambda x, axes, keepdims: _SUM(ops.square(x), axes, keepdims), (1, 11, 13), (18,))
reduction(
    "ReduceL2",
    lambda x, axes, keepdims: ops.cast(ops.sqrt(ops.sum(ops.square(_wide(x)), axes, keepdims)), x.dtype),
    (1, 11, 13),
    (18,),
)
reduction(
    "ReduceLogSum",
    lambda x, axes, keepdims: ops.cast(ops.log(ops.sum(_wide(x), axes, keepdims)), x.dtype),
    (1, 11, 13),
    (18, 28),
)
reduction("ReduceLogSumExp", lambda x, axes, keepdims: logsumexp(x, axes, keepdims), (1, 11, 13), (18, 28))


def logsumexp(x: Array, axes: tuple[int, ...] | None, keepdims: bool) -> Array:
    """log(sum(exp(x))), minus infinity over nothing."""
    over = range(len(x.shape)) if axes is None else axes
    if any(x.shape[axis] == 0 for axis in over):
        return ops.log(ops.sum(x, axes, keepdims))
    return ops.cast(ops.logsumexp(_wide(x), axes, keepdims), x.dtype)


def arguments(name: str, function: Callable[..., Array]) -> None:
    """Declare ArgMax or ArgMin."""

    def before_12(data: Array, /, axis: int = 0, keepdims: int = 1) -> Array:
        return ops.cast(function(data, axis, bool(keepdims)), np.int64)

    def since_12(data: Array, /, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Array:
        return ops.cast(function(data, axis, bool(keepdims), bool(select_last_index)), np.int64)

    for version in (1, 11):
        onnx_operator(name, since=version)(before_12)
    for version in (12, 13):
        onnx_operator(name, since=version)(since_12)


arguments("ArgMax", ops.argmax)
arguments("ArgMin", ops.argmin)


@onnx_operator("CumSum", since=11)
@onnx_operator("CumSum", since=14)
def cumsum(x: Array, axis: Array, /, exclusive: int = 0, reverse: int = 0) -> Array:
    """Sums of the elements up to each along an axis."""
    along = normalized_axis(int(scalar(axis, "the axis of CumSum")), len(x.shape), "CumSum")
    return ops.cast(ops.cumsum(x, along, bool(exclusive), bool(reverse)), x.dtype)


@onnx_operator("CumProd", since=26)
def cumprod(x: Array, axis: Array, /, exclusive: int = 0, reverse: int = 0) -> Array:
    """Products of the elements up to each along an axis."""
    along = normalized_axis(int(scalar(axis, "the axis of CumProd")), len(x.shape), "CumProd")
    return ops.cast(ops.cumprod(x, along, bool(exclusive), bool(reverse)), x.dtype)


@onnx_operator("TopK", since=1)
def top_k_1(X: Array, /, k: int, axis: int = -1, outputs: int = 2) -> tuple[Array, ...]:
    """The k largest along an axis in descending order, and where they are."""
    return top_k(X, k, axis, True, True)


@onnx_operator("TopK", since=10)
def top_k_10(X: Array, K: Array, /, axis: int = -1, outputs: int = 2) -> tuple[Array, ...]:
    """The K largest along an axis in descending order, and where they are."""
    return top_k(X, int(scalar(K, "K of TopK")), axis, True, True)


@onnx_operator("TopK", since=11)
@onnx_operator("TopK", since=24)
def top_k_11(
    X: Array, K: Array, /, axis: int = -1, largest: int = 1, sorted: int = 1, outputs: int = 2
) -> tuple[Array, ...]:
    """The K largest or smallest along an axis, and where they are; the lower index first among equals."""
    return top_k(X, int(scalar(K, "K of TopK")), axis, bool(largest), bool(sorted))


def top_k(x: Array, k: int, axis: int, largest: bool, ordered: bool) -> tuple[Array, ...]:
    """Values and int64 indices of the k largest or smallest."""
    if not x.shape:
        raise ShapeError("TopK needs at least one axis", received="a 0-d operand")
    size = x.shape[normalized_axis(axis, len(x.shape), "TopK")]
    if not 0 <= k <= size:
        raise ArgumentError("TopK: K is larger than the axis", expected=f"0 to {size}", received=k)
    values, indices = ops.topk(x, k, axis, largest, ordered)
    return values, ops.cast(indices, np.int64)
