"""Reductions, cumulative sums, sorting and softmax as ONNX nodes."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from zoonet.formats.onnx.writing.builder import Builder
from zoonet.formats.onnx.writing.sizes import Number, Size, Tensor
from zoonet.formats.onnx.writing.table import emitter
from zoonet.ops.reductions import normalize_axes
from zoonet.ops.types import BOOL, bool_, int32, int64, kind_of

_REDUCTIONS = {
    "sum": "ReduceSum",
    "mean": "ReduceMean",
    "max": "ReduceMax",
    "min": "ReduceMin",
    "prod": "ReduceProd",
    "logsumexp": "ReduceLogSumExp",
}


@emitter(*_REDUCTIONS)
def _(b: Builder, x: Tensor, axis: Any, keepdims: bool) -> str:
    dtype = b.outputs[0].dtype
    axes = normalize_axes(b.operator, x.ndim, axis)
    narrow = kind_of(dtype) == BOOL
    given = b.cast(x, int32 if narrow else dtype)
    if b.operator == "logsumexp":
        return _logsumexp(b, given, axes, keepdims) if axes else b.node("Identity", given)
    result = b.reduce(_REDUCTIONS[b.operator], given, axes, keepdims) if axes else b.node("Identity", given)
    return b.cast(result, dtype) if narrow else result


def _logsumexp(b: Builder, x: str, axes: tuple[int, ...], keepdims: bool) -> str:
    """log Σ e^x with the largest taken out first, which ONNX leaves open; -inf where all are."""
    dtype = b.outputs[0].dtype
    top = b.reduce("ReduceMax", x, axes, True)
    top = b.node("Where", b.node("IsInf", top), b.constant(np.asarray(0, dtype)), top)
    total = b.reduce("ReduceSum", b.node("Exp", b.node("Sub", x, top)), axes, True)
    y = b.node("Add", b.node("Log", total), top)
    return y if keepdims else b.squeeze(y, axes)


@emitter("any", "all")
def _(b: Builder, x: Tensor, axis: Any, keepdims: bool) -> str:
    axes = normalize_axes(b.operator, x.ndim, axis)
    truth = b.cast(x, bool_)
    if not axes:
        return b.node("Identity", truth)
    counted = b.node("Cast", truth if b.operator == "any" else b.node("Not", truth), to=7)
    total = b.reduce("ReduceSum", counted, axes, keepdims)
    op_type = {"any": "Greater", "all": "Equal"}[b.operator]
    return b.node(op_type, total, b.constant(0, int64))


@emitter("count_nonzero")
def _(b: Builder, x: Tensor, axis: Any, keepdims: bool) -> str:
    axes = normalize_axes(b.operator, x.ndim, axis)
    numbers = b.node("Cast", b.cast(x, bool_), to=7)
    return b.reduce("ReduceSum", numbers, axes, keepdims) if axes else numbers


@emitter("argmax", "argmin")
def _(b: Builder, x: Tensor, axis: int | None, keepdims: bool, select_last_index: bool) -> str:
    op_type = {"argmax": "ArgMax", "argmin": "ArgMin"}[b.operator]
    given = b.cast(x, int32) if kind_of(x.dtype) == BOOL else x.name
    if axis is None:
        flat = b.node("Reshape", given, b.constant([-1], int64))
        y = b.node(op_type, flat, axis=0, keepdims=0, select_last_index=int(select_last_index))
        return b.reshape(y, b.outputs[0].shape) if keepdims else y
    return b.node(op_type, given, axis=axis, keepdims=int(keepdims), select_last_index=int(select_last_index))


@emitter("var", "std")
def _(b: Builder, x: Tensor, axis: Any, correction: float, keepdims: bool) -> str:
    axes = normalize_axes(b.operator, x.ndim, axis)
    dtype = b.outputs[0].dtype
    given = b.cast(x, dtype)
    if not axes:
        return b.node("Mul", given, b.constant(np.asarray(0, dtype)))
    deviation = b.node("Sub", given, b.reduce("ReduceMean", given, axes, True))
    y = b.reduce("ReduceMean", b.node("Mul", deviation, deviation), axes, keepdims)
    if correction:
        counts = [prod(n) for n in zip(*(_at_points(x, i) for i in axes), strict=True)]
        factors = [n / (n - correction) for n in counts]
        factor = factors[0] if len(set(factors)) == 1 else Number(tuple(factors))
        y = b.node("Mul", y, b.number(factor, dtype))
    return b.node("Sqrt", y) if b.operator == "std" else y


def _at_points(x: Tensor, axis: int) -> tuple[int, ...]:
    """A size in every trace; a fixed one as often as a free one has values."""
    n = x.shape[axis]
    points = next((len(m.values) for m in x.shape if isinstance(m, Size)), 1)
    return n.values if isinstance(n, Size) else (n,) * points


@emitter("norm")
def _(b: Builder, x: Tensor, p: float, axis: Any, keepdims: bool) -> str:
    axes = normalize_axes("norm", x.ndim, axis)
    dtype = b.outputs[0].dtype
    size = b.node("Abs", b.cast(x, dtype))
    if not axes:
        return size
    if p in (1, 2):
        return b.reduce("ReduceL1" if p == 1 else "ReduceL2", size, axes, keepdims)
    if abs(p) == float("inf"):
        return b.reduce("ReduceMax" if p > 0 else "ReduceMin", size, axes, keepdims)
    if p == 0:
        counted = b.node("Cast", b.node("Cast", size, to=9), to=7)
        return b.cast(b.reduce("ReduceSum", counted, axes, keepdims), dtype)
    total = b.reduce("ReduceSum", b.node("Pow", size, b.constant(np.asarray(p, dtype))), axes, keepdims)
    return b.node("Pow", total, b.constant(np.asarray(1 / p, dtype)))


@emitter("softmax", "log_softmax")
def _(b: Builder, x: Tensor, axis: int) -> str:
    op_type = {"softmax": "Softmax", "log_softmax": "LogSoftmax"}[b.operator]
    return b.node(op_type, b.cast(x, b.outputs[0].dtype), axis=axis)


@emitter("cumsum")
def _(b: Builder, x: Tensor, axis: int, exclusive: bool, reverse: bool) -> str:
    b.require(14) if b.outputs[0].dtype.itemsize < 4 else None
    given = b.cast(x, b.outputs[0].dtype)
    return b.node("CumSum", given, b.constant(axis % x.ndim, int64), exclusive=int(exclusive), reverse=int(reverse))


@emitter("topk")
def _(b: Builder, x: Tensor, k: Any, axis: int, largest: bool, is_sorted: bool) -> tuple[str, str]:
    values, indices = b.many("TopK", x, b.size(k), outputs=2, axis=axis, largest=int(largest), sorted=int(is_sorted))
    return values, indices


@emitter("sort", "argsort")
def _(b: Builder, x: Tensor, axis: int, descending: bool, stable: bool) -> str:
    values, indices = b.many("TopK", x, b.size(x.shape[axis]), outputs=2, axis=axis, largest=int(descending), sorted=1)
    return values if b.operator == "sort" else indices


@emitter("one_hot")
def _(b: Builder, indices: Tensor, classes: int, dtype: Any, axis: int) -> str:
    place = axis % (indices.ndim + 1)
    column = [1] * (indices.ndim + 1)
    column[place] = classes
    hit = b.node(
        "Equal",
        b.unsqueeze(b.cast(indices, int64), [place]),
        b.constant(np.arange(classes, dtype=np.int64).reshape(column)),
    )
    return b.cast(hit, b.outputs[0].dtype)


@emitter("class_indices")
def _(b: Builder, target: Tensor, classes: int, ignore_index: int, dtype: Any) -> tuple[str, str]:
    given = b.cast(target, int64)
    ignored = b.node("Equal", given, b.constant(ignore_index, int64))
    counts = b.cast(b.node("Not", ignored), b.outputs[1].dtype)
    return b.node("Where", ignored, b.constant(0, int64), given), counts


@emitter("class_targets")
def _(b: Builder, target: Tensor, classes: int, ignore_index: int, smoothing: float, dtype: Any) -> str:
    axis = 1 if target.ndim else 0
    wanted = b.outputs[0].dtype
    given = b.cast(target, int64)
    ignored = b.node("Equal", given, b.constant(ignore_index, int64))
    column = [1] * (target.ndim + 1)
    column[axis] = classes
    numbers = b.constant(np.arange(classes, dtype=np.int64).reshape(column))
    known = b.unsqueeze(b.node("Where", ignored, b.constant(-1, int64), given), [axis])
    low = smoothing / classes
    levels = [b.constant(np.asarray(v, wanted)) for v in (1 - smoothing + low, low, 0)]
    targets = b.node("Where", b.node("Equal", known, numbers), *levels[:2])
    return b.node("Where", b.unsqueeze(ignored, [axis]), levels[2], targets) if smoothing else targets
