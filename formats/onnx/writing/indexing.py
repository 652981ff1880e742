"""Gathering, scattering and their gradients as ONNX nodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoonet.formats.onnx.writing.builder import Builder
from zoonet.formats.onnx.writing.sizes import Tensor
from zoonet.formats.onnx.writing.table import emitter
from zoonet.ops.types import int32, int64


def _indices(b: Builder, indices: Tensor) -> str:
    return indices.name if indices.dtype in (int32, int64) else b.cast(indices, int64)


def wrapped(b: Builder, indices: Tensor, size: Any) -> str:
    """Indices as int64, negative ones counted from the end."""
    given = b.cast(indices, int64)
    negative = b.node("Less", given, b.constant(0, int64))
    return b.node("Where", negative, b.node("Add", given, b.number(size, int64)), given)


@emitter("take")
def _(b: Builder, x: Tensor, indices: Tensor, axis: int | None) -> str:
    if axis is None:
        flat = b.node("Reshape", x, b.constant([-1], int64))
        return b.node("Gather", flat, _indices(b, indices), axis=0)
    return b.node("Gather", x, _indices(b, indices), axis=axis)


@emitter("embedding")
def _(b: Builder, indices: Tensor, weight: Tensor, padding_idx: int | None) -> str:
    return b.node("Gather", weight, _indices(b, indices), axis=0)


@emitter("untake")
def _(b: Builder, x: Tensor, indices: Tensor, shape: Any, axis: int | None) -> str:
    b.require(16)
    whole = b.outputs[0]
    if axis is None:
        size = _product(b, whole)
        zeros = b.node("Expand", b.constant(np.asarray(0, whole.dtype)), size)
        given = b.cast(indices, int64)
        negative = b.node("Less", given, b.constant(0, int64))
        places = b.node("Where", negative, b.node("Add", given, b.node("Squeeze", size, b.constant([0], int64))), given)
        rows = b.unsqueeze(b.node("Reshape", places, b.constant([-1], int64)), [1])
        flat = b.node("Reshape", x, b.constant([-1], int64))
        return b.reshape(b.node("ScatterND", zeros, rows, flat, reduction="add"), whole.shape)
    rank = len(whole.shape)
    axis %= rank
    places = b.unsqueeze(wrapped(b, indices, whole.shape[axis]), [indices.ndim])
    moved: Any = x
    order = [axis, *[i for i in range(rank) if i != axis]]
    if axis:  # the axes of the indices first
        span = range(axis, axis + indices.ndim)
        moved = b.transpose(x, [*span, *[i for i in range(x.ndim) if i not in span]])
    zeros = b.full([whole.shape[i] for i in order], 0, whole.dtype)
    y = b.node("ScatterND", zeros, places, b.cast(moved, whole.dtype) if moved is x else moved, reduction="add")
    return b.transpose(y, [order.index(i) for i in range(rank)]) if axis else y


def _product(b: Builder, tensor: Tensor) -> str:
    """The number of elements, int64 [1]."""
    return b.node("ReduceProd", b.ints(tensor.shape), keepdims=1) if tensor.ndim else b.constant([1], int64)


def _broadcast(b: Builder, x: Tensor, other: Tensor, axis: int) -> str:
    """x broadcast to the other's sizes, except on the axis."""
    shape = [n if i == axis or n != 1 else m for i, (n, m) in enumerate(zip(x.shape, other.shape, strict=True))]
    return x.name if tuple(shape) == x.shape else b.expand(x, shape)


@emitter("take_along_axis")
def _(b: Builder, x: Tensor, indices: Tensor, axis: int) -> str:
    axis %= x.ndim
    chosen = Tensor(_indices(b, indices), indices.shape, indices.dtype)
    return b.node("GatherElements", _broadcast(b, x, indices, axis), _broadcast(b, chosen, x, axis), axis=axis)


@emitter("untake_along_axis")
def _(b: Builder, x: Tensor, indices: Tensor, shape: Any, axis: int) -> str:
    b.require(16)
    whole = b.outputs[0]
    axis %= x.ndim
    sums = [i for i, (n, m) in enumerate(zip(whole.shape, x.shape, strict=True)) if i != axis and n == 1 and m != 1]
    wide = [m if i in sums else n for i, (n, m) in enumerate(zip(whole.shape, x.shape, strict=True))]
    places = Tensor(wrapped(b, indices, whole.shape[axis]), indices.shape, int64)
    zeros = b.full(wide, 0, whole.dtype)
    y = b.node(
        "ScatterElements", zeros, _broadcast(b, places, x, axis), b.cast(x, whole.dtype), axis=axis, reduction="add"
    )
    return b.reduce("ReduceSum", y, sums, True) if sums else y


@emitter("scatter_elements")
def _(b: Builder, x: Tensor, indices: Tensor, updates: Tensor, axis: int, reduction: str) -> str:
    if reduction != "none":
        b.require(16 if reduction in ("add", "mul") else 18, f"the reduction {reduction}")
    chosen = None if reduction == "none" else reduction
    return b.node(
        "ScatterElements",
        b.cast(x, b.outputs[0].dtype),
        _indices(b, indices),
        b.cast(updates, b.outputs[0].dtype),
        axis=axis,
        reduction=chosen,
    )


@emitter("gather_nd")
def _(b: Builder, x: Tensor, indices: Tensor, batch_dims: int) -> str:
    return b.node("GatherND", x, b.cast(indices, int64), batch_dims=batch_dims)
