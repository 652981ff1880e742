"""Indexing with arrays: gathering, masks, one-hot vectors and embeddings."""

from __future__ import annotations

from math import prod
from typing import Any

from zoonet.ops.errors import ArgumentError, DTypeError, ShapeError
from zoonet.ops.reductions import normalize_axes
from zoonet.ops.registry import REGISTRY, broadcast_shapes, composite, op, type_of
from zoonet.ops.samples import bools, fixed, floats, ints, sample
from zoonet.ops.scattering import (
    along_type,
    check_indices,
    ravel_index,
    taken_shape,
    untake,
    untake_along_axis,
)
from zoonet.ops.shapes import broadcast_to, expand_dims, normalize_axis, reshape
from zoonet.ops.slicing import index, index_update
from zoonet.ops.types import BOOL, Array, Mask, Slice, TensorType, as_dtype, int64, kind_of

__all__ = [
    "compress",
    "embedding",
    "gather_elements",
    "gather_nd",
    "masked_fill",
    "masked_select",
    "nonzero",
    "one_hot",
    "take",
    "take_along_axis",
]


@op(
    exact=True,
    samples=[
        sample(floats(5, 3), ints(4, low=-5, high=5), 0),
        sample(floats(2, 4), ints(2, 3, high=4), -1),
        sample(floats(2, 3), ints(2, 2, low=-6, high=6)),
        sample(floats(3, 4), fixed(2, "int32"), 1),
        sample(floats(3, 4), fixed([], "int64"), 1),
        sample(ints(4), ints(3, high=4, dtype="uint8"), 0),
    ],
)
def take(xp: Any, x: Array, indices: Array, axis: int | None = None) -> Array:
    """The slices of x at indices along an axis; of the flattened elements for None.

    x: any dtype. indices: integers of any shape, which stands in the place of the axis; negative ones count from the
    end. Raises ShapeError on the CPU for an index out of range (on the GPU it wraps). Source: array API `take`.
    """
    return xp.take(x, indices, axis)


@take.type
def _(x: TensorType, indices: TensorType, axis: int | None = None) -> TensorType:
    return TensorType(taken_shape("take", x, indices, axis), x.dtype)


@take.vjp
def _(gy: Array, _y: Array, _x: TensorType, indices: Array, axis: int | None) -> Any:
    return untake(gy, indices, _x.shape, axis), None


@op(
    exact=True,
    samples=[
        sample(floats(2, 4), ints(2, 3, low=-4, high=4)),
        sample(floats(3, 2), ints(5, 1, high=3), 0),
        sample(floats(1, 4), ints(2, 3, high=4), 1),
        sample(ints(3, 2), ints(1, 2, high=3), 0),
    ],
)
def take_along_axis(xp: Any, x: Array, indices: Array, axis: int = -1) -> Array:
    """Elements of x at indices along an axis; on the other axes x and indices broadcast.

    x: any dtype. indices: integers with as many axes as x; negative ones count from the end. Raises ShapeError where
    they do not broadcast and, on the CPU, for an index out of range. Source: array API `take_along_axis`.
    """
    return xp.take_along_axis(x, indices, axis)


@take_along_axis.type
def _(x: TensorType, indices: TensorType, axis: int = -1) -> TensorType:
    return along_type("take_along_axis", x, indices, axis)


@take_along_axis.vjp
def _(gy: Array, _y: Array, _x: TensorType, indices: Array, axis: int) -> Any:
    return untake_along_axis(gy, indices, _x.shape, axis), None


@composite(
    exact=True,
    samples=[
        sample(floats(3, 4), ints(2, 6, low=-4, high=4), 1),
        sample(floats(3, 4), ints(2, 1, high=3), 0),
        sample(ints(4), ints(2, high=4), 0),
    ],
)
def gather_elements(x: Array, indices: Array, axis: int = 0) -> Array:
    """y[i, j, …] = x[i, indices[i, j, …], …], here for axis 1: the shape of indices, x's dtype.

    indices: integers with as many axes as x, at most x's sizes except on the axis. Unlike `take_along_axis`, nothing
    broadcasts. Raises ShapeError for other shapes and, on the CPU, an index out of range.
    Source: torch `gather`, ONNX `GatherElements`.
    """
    along = normalize_axis("gather_elements", len(x.shape), axis)
    if len(x.shape) != len(indices.shape) or any(
        i != along and m > n for i, (n, m) in enumerate(zip(x.shape, indices.shape, strict=True))
    ):
        raise ShapeError(
            "gather_elements: indices do not fit",
            expected=f"at most {list(x.shape)} except on axis {axis}",
            received=list(indices.shape),
        )
    if any(i != along and m < n for i, (n, m) in enumerate(zip(x.shape, indices.shape, strict=True))):
        sizes = enumerate(indices.shape)
        x = index(x, tuple([Slice(None, None if i == along else n, None) for i, n in sizes]))
    return take_along_axis(x, indices, axis)


@composite(
    exact=True,
    samples=[
        sample(floats(3, 4, 2), ints(2, 5, 2, low=-3, high=3)),
        sample(floats(3, 4), ints(5, 1, high=3)),
        sample(floats(2, 3, 4), ints(2, 5, 1, high=3), 1),
        sample(floats(2, 3, 4), ints(2, 2, high=3), 1),
        sample(ints(3), ints(1, high=3)),
    ],
)
def gather_nd(x: Array, indices: Array, batch_dims: int = 0) -> Array:
    """The slices of x that index tuples name, which lie along the last axis of indices.

    x: any dtype. indices: integers [*batch, ..., k] -> [*batch, ..., *x.shape[batch_dims + k:]], where the first
    batch_dims axes of both agree. Raises ShapeError for other shapes and, on the CPU, an index out of range.
    Source: ONNX `GatherND`, TensorFlow `gather_nd`.
    """
    depth = indices.shape[-1] if len(indices.shape) > batch_dims >= 0 else len(x.shape) + 1
    if batch_dims + depth > len(x.shape) or tuple(x.shape[:batch_dims]) != tuple(indices.shape[:batch_dims]):
        raise ShapeError(
            "gather_nd: indices do not fit",
            expected=f"[..., k] with equal batch axes and k up to {len(x.shape)} - {batch_dims}",
            received=f"{list(indices.shape)} for {list(x.shape)}",
        )
    batch, places, rest = (
        x.shape[:batch_dims],
        x.shape[batch_dims : batch_dims + depth],
        x.shape[batch_dims + depth :],
    )
    rows = reshape(ravel_index(indices, tuple(places)), (prod(batch), prod(indices.shape[batch_dims:-1])))
    result_shape = (*indices.shape[:-1], *rest)
    if not batch_dims:
        return reshape(take(reshape(x, (prod(places), *rest)), reshape(rows, -1), 0), result_shape)
    flat = reshape(x, (prod(batch), prod(places), prod(rest)))
    chosen = take_along_axis(flat, expand_dims(rows, 2), 1)
    return reshape(chosen, result_shape)


@op(
    differentiable=False,
    samples=[
        sample(fixed([[1, 0], [0, 1], [1, 1]], "int64")),
        sample(fixed([0.0, 2.0, -1.0], "float32")),
        sample(bools(2, 3, 2)),
    ],
)
def nonzero(xp: Any, x: Array) -> tuple[Array, ...]:
    """The places of the elements that are not 0, in row-major order: for each axis an int64 array [n].

    x: one axis or more, any dtype; NaN is not 0. Raises ShapeError for 0-d x. Source: array API `nonzero`.
    """
    return tuple(xp.nonzero(x))


@nonzero.type
def _(x: TensorType) -> tuple[TensorType, ...]:
    if not x.ndim:
        raise ShapeError("nonzero needs an axis", expected="one axis or more", received=x, fix="reshape it to [1]")
    return (TensorType((None,), int64),) * x.ndim


@op(
    differentiable=False,
    exact=True,
    samples=[
        sample(ints(2, 3, high=4), 4),
        sample(fixed([0, -1, 5], "int32"), 3, "int64", 0),
        sample(ints(high=2), 2, "bool"),
    ],
)
def one_hot(xp: Any, indices: Array, num_classes: int, dtype: Any = "float32", axis: int = -1) -> Array:
    """Vectors with 1 at the index and 0 elsewhere, along a new axis; all 0 for an index outside 0 … num_classes - 1.

    indices: integers, any shape -> that shape with num_classes at `axis`. Raises DTypeError for other dtypes.
    Source: `torch.nn.functional.one_hot`.
    """
    ndim = indices.ndim + 1
    classes = xp.arange(num_classes).reshape([-1 if i == axis % ndim else 1 for i in range(ndim)])
    return (xp.expand_dims(indices, axis) == classes).astype(as_dtype(dtype), copy=False)


@one_hot.type
def _(indices: TensorType, num_classes: int, dtype: Any = "float32", axis: int = -1) -> TensorType:
    check_indices("one_hot", indices)
    if not isinstance(num_classes, int) or num_classes < 1:
        raise ArgumentError("one_hot: wrong num_classes", expected="an integer of at least 1", received=num_classes)
    place = normalize_axis("one_hot", indices.ndim + 1, axis)
    return TensorType((*indices.shape[:place], num_classes, *indices.shape[place:]), as_dtype(dtype))


@composite(
    exact=True,
    samples=[
        sample(ints(2, 3, high=5), floats(5, 4)),
        sample(ints(3, high=3), floats(4, 2), -1),
        sample(ints(high=3), floats(3, 2)),
    ],
)
def embedding(indices: Array, weight: Array, padding_idx: int | None = None) -> Array:
    """The rows of weight at indices. Integers of any shape, [n, d] -> [*shape, d].

    padding_idx: a row whose gradient is 0. Raises ShapeError for a weight that is not a matrix or a padding_idx out of
    range and, on the CPU, for an index out of range. Source: torch.nn.functional `embedding`.
    """
    _padding_row(type_of(weight), padding_idx)
    return take(weight, indices, 0)


def _padding_row(weight: TensorType, padding_idx: int | None) -> int | None:
    if weight.ndim != 2:
        raise ShapeError("embedding: the weight is not a matrix", expected="[n, d]", received=weight)
    rows = weight.shape[0] or 0
    if padding_idx is not None and not -rows <= padding_idx < rows:
        raise ShapeError("embedding: no such padding_idx", expected=f"{-rows} to {rows - 1}", received=padding_idx)
    return padding_idx


@embedding.vjp
def _(gy: Array, _y: Array, indices: Array, _weight: TensorType, padding_idx: int | None) -> Any:
    gradient = untake(gy, indices, _weight.shape, 0)
    if padding_idx is not None:
        row = index(gradient, padding_idx)
        gradient = index_update(gradient, padding_idx, REGISTRY["zeros_like"](row))
    return None, gradient


@op(
    exact=True,
    samples=[
        sample(floats(2, 3), bools(2, 3), -1.5),
        sample(floats(2, 3), bools(3), -7),
        sample(ints(2, 3), bools(2, 1), 7),
    ],
)
def masked_fill(xp: Any, x: Array, mask: Mask, value: float) -> Array:
    """x with one number where the mask is true.

    x: any shape and dtype. mask: bool, broadcasts to x's shape. Raises ShapeError where it does not, DTypeError where
    it is not bool. Source: torch `masked_fill`.
    """
    return xp.where(mask, xp.asarray(value, dtype=x.dtype), x)


def _check_mask(name: str, mask: TensorType) -> None:
    if kind_of(mask.dtype) != BOOL:
        raise DTypeError(
            f"{name}: the mask is not bool", expected="bool", received=mask, fix="compare it, as mask != 0"
        )


@masked_fill.type
def _(x: TensorType, mask: TensorType, value: float) -> TensorType:
    _check_mask("masked_fill", mask)
    if broadcast_shapes("masked_fill", x.shape, mask.shape) != x.shape:
        raise ShapeError("masked_fill: wrong mask", expected=f"one that broadcasts to {list(x.shape)}", received=mask)
    return x


@masked_fill.vjp
def _(gy: Array, _y: Array, _x: TensorType, mask: Array, _value: float) -> Any:
    return masked_fill(gy, mask, 0), None


@composite(
    exact=True,
    samples=[sample(floats(2, 3), bools(2, 3)), sample(floats(4, 3), bools(3)), sample(ints(3), bools(3))],
)
def masked_select(x: Array, mask: Mask) -> Array:
    """The elements of x where the mask is true, in row-major order: [n], where n depends on the mask.

    x: any dtype. mask: bool, broadcasts to x's shape. Raises ShapeError where it does not, DTypeError where it is not
    bool. Source: torch `masked_select`, NumPy boolean indexing.
    """
    masked_select.infer({"x": type_of(x), "mask": type_of(mask)})
    return take(x, nonzero(reshape(broadcast_to(mask, tuple(x.shape)), -1))[0])


@masked_select.type
def _(x: TensorType, mask: TensorType) -> TensorType:
    _check_mask("masked_select", mask)
    if broadcast_shapes("masked_select", x.shape, mask.shape) != x.shape:
        raise ShapeError("masked_select: wrong mask", expected=f"one that broadcasts to {list(x.shape)}", received=mask)
    return TensorType((None,), x.dtype)


@composite(
    exact=True,
    samples=[
        sample(floats(3, 4), fixed([True, False, True], "bool"), 0),
        sample(floats(3, 4), fixed([False, True], "bool"), 1),
        sample(floats(2, 2), fixed([True, False, True], "bool")),
    ],
)
def compress(x: Array, condition: Mask, axis: int | None = None) -> Array:
    """The slices of x along an axis where a condition is true; of the flattened elements for None.

    x: any dtype. condition: bool [n], n at most the size of the axis. Raises ShapeError for a longer one, DTypeError
    where it is not bool. Source: NumPy `compress`, ONNX `Compress`.
    """
    compress.infer({"x": type_of(x), "condition": type_of(condition), "axis": axis})
    return take(x, nonzero(condition)[0], axis)


@compress.type
def _(x: TensorType, condition: TensorType, axis: int | None = None) -> TensorType:
    _check_mask("compress", condition)
    shape: tuple[int | None, ...] = (x.size,)
    along = 0
    if axis is not None:
        shape, along = x.shape, normalize_axes("compress", x.ndim, axis)[0]
    if condition.ndim != 1 or (condition.shape[0] or 0) > (shape[along] or 0):
        raise ShapeError("compress: wrong condition", expected=f"[n], n up to {shape[along]}", received=condition)
    return TensorType((*shape[:along], None, *shape[along + 1 :]), x.dtype)
