"""Scattering: the transposes of gathering, and writing or reducing updates into places of an array.

`add_at` and `add_rows` are the plain functions underneath; the operators that undo `take`, `take_along_axis` and `pad`
are built on them.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from zoonet.ops.errors import ArgumentError, DTypeError, ShapeError
from zoonet.ops.registry import REGISTRY, composite, op
from zoonet.ops.samples import distinct, fixed, floats, ints, sample
from zoonet.ops.shapes import broadcast_to, checked_shape, expand_dims, normalize_axis, reshape
from zoonet.ops.types import INTEGER, Array, TensorType, kind_of

__all__ = [
    "index_add",
    "put_along_axis",
    "ravel_index",
    "scatter_elements",
    "scatter_nd",
    "scatter_reduce",
    "untake",
    "untake_along_axis",
]

_CHUNK = 1 << 22  # elements for which positions are computed at a time
_REDUCTIONS = ("none", "add", "mul", "max", "min")


def check_indices(name: str, indices: TensorType) -> None:
    """Raise DTypeError unless indices are integers."""
    if kind_of(indices.dtype) != INTEGER:
        raise DTypeError(f"{name}: indices are not integers", expected="an integer dtype", received=indices)


def wrap_indices(xp: Any, indices: Any, size: int) -> Any:
    """Indices from 0 to size - 1 as int64, negative ones counted from the end.

    NumPy's are checked: ShapeError where one is out of range. CuPy's are not, since that would wait for the GPU.
    """
    wide = indices.astype(np.int64, copy=False)
    if xp is np and wide.size:
        low, high = int(wide.min()), int(wide.max())
        if low < -size or high >= size:
            raise ShapeError(
                "index out of range",
                expected=f"{-size} to {size - 1} on an axis of size {size}",
                received=low if low < -size else high,
            )
        if low >= 0:
            return wide
    return xp.where(wide < 0, wide + size, wide)


def flat_positions(xp: Any, shape: tuple[int, ...], indices: Any, axis: int) -> Any:
    """For each element of indices its position in a flattened array of `shape`, where it picks along an axis.

    An axis on which the array has size 1 and indices more is broadcast.
    """
    result = wrap_indices(xp, indices, shape[axis]) * prod(shape[axis + 1 :])
    for i, size in enumerate(indices.shape):
        if i != axis and shape[i] > 1:
            place = xp.arange(size) * prod(shape[i + 1 :])
            result += place.reshape([-1 if j == i else 1 for j in range(indices.ndim)])
    return result.reshape(-1)


def add_at(xp: Any, target: Any, indices: Any, values: Any) -> None:
    """target[indices] += values in place, where an index may occur several times; target 1-d."""
    if xp is not np:  # CuPy adds at indices to few dtypes; unsigned addition wraps to the same bits as signed
        if target.dtype.kind in "iub" and target.dtype.itemsize < 8:
            wide = target.astype(np.int64)
            add_at(xp, wide, indices, values)
            target[...] = wide.astype(target.dtype)
            return
        if target.dtype == np.int64:
            target, values = target.view(np.uint64), values.astype(np.int64, copy=False).view(np.uint64)
    xp.add.at(target, indices, values)


def add_rows(xp: Any, target: Any, indices: Any, values: Any) -> None:
    """target[i] += values[j] in place for each j with i = indices[j]; target contiguous, indices 1-d, at least 0."""
    width = prod(target.shape[1:])
    if not width or not indices.size:
        return
    flat = target.reshape(-1)
    step = max(_CHUNK // width, 1)
    for start in range(0, indices.size, step):
        chosen = indices[start : start + step]
        positions = (chosen[:, None] * width + xp.arange(width)).reshape(-1)
        add_at(xp, flat, positions, xp.ascontiguousarray(values[start : start + step]).reshape(-1))


def _combine(xp: Any, target: Any, indices: Any, values: Any, reduction: str) -> None:
    """target[indices] = target[indices] ∘ values in place, where an index may occur several times; all 1-d."""
    combine = {"mul": xp.multiply, "max": xp.maximum, "min": xp.minimum}[reduction]
    if xp is np:
        combine.at(target, indices, values)
        return
    # CuPy has no multiply.at: one pass for all first occurrences of an index, one for all second ones, ...
    order = xp.argsort(indices)
    ordered = indices[order]
    place = xp.arange(ordered.size)
    first = xp.concatenate([xp.ones(1, bool), ordered[1:] != ordered[:-1]]) if ordered.size else place > 0
    rank = place - xp.nonzero(first)[0][xp.cumsum(first) - 1] if ordered.size else place
    for turn in range(int(rank.max()) + 1 if ordered.size else 0):
        chosen = order[rank == turn]
        target[indices[chosen]] = combine(target[indices[chosen]], values[chosen])


def taken_shape(name: str, x: TensorType, indices: TensorType, axis: int | None) -> tuple[int | None, ...]:
    check_indices(name, indices)
    if axis is None:
        return indices.shape
    along = normalize_axis(name, x.ndim, axis)
    return (*x.shape[:along], *indices.shape, *x.shape[along + 1 :])


@op(
    samples=[
        sample(floats(4, 3), ints(4, low=-5, high=5), (5, 3), 0),
        sample(floats(2, 2, 3), ints(2, 3, high=2), (2, 4), 1),
        sample(floats(3, 2), ints(3, 2, high=6), (3, 2)),
        sample(floats(3, 0), ints(0), (3, 4), 1),
        sample(floats(0, 2), ints(2, high=4), (0, 4), 1),
    ]
)
def untake(xp: Any, x: Array, indices: Array, shape: Any, axis: int | None = None) -> Array:
    """Zeros of `shape` with the slices of x added at indices along an axis: the transpose of `take`.

    x: the shape that `take` gives for an array of `shape`, numbers. Raises ShapeError where it differs or, on the CPU,
    an index is out of range.
    """
    if axis is None:
        result = xp.zeros(prod(shape), x.dtype)
        add_at(xp, result, wrap_indices(xp, indices, result.size).reshape(-1), x.reshape(-1))
        return result.reshape(shape)
    axis %= len(shape)
    outer, size, inner = prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])
    rows = wrap_indices(xp, indices, size).reshape(-1)
    if outer != 1:
        rows = (xp.arange(outer)[:, None] * size + rows).reshape(-1)
    result = xp.zeros((outer * size, inner), x.dtype)
    add_rows(xp, result, rows, x.reshape(rows.size, inner))
    return result.reshape(shape)


@untake.type
def _(x: TensorType, indices: TensorType, shape: Any, axis: int | None = None) -> TensorType:
    whole = TensorType(checked_shape("untake", shape), x.dtype)
    wanted = taken_shape("untake", whole, indices, axis)
    if wanted != x.shape:
        raise ShapeError("untake: wrong shape", expected=list(wanted), received=list(x.shape))
    return whole


@untake.vjp
def _(gy: Array, _y: Array, _x: TensorType, indices: Array, _shape: Any, axis: int | None) -> Any:
    return REGISTRY["take"](gy, indices, axis), None


@composite(
    samples=[
        sample(floats(5, 3), ints(4, low=-5, high=5), floats(4, 3)),
        sample(floats(2, 4), ints(3, high=4), floats(2, 3), -1),
        sample(ints(4), ints(6, high=4), ints(6)),
    ]
)
def index_add(x: Array, indices: Array, updates: Array, axis: int = 0) -> Array:
    """x with the slices of updates added at indices along an axis; repeated indices add up.

    x: numbers. indices: integers [n]. updates: x's shape with n on the axis. Raises ShapeError for other shapes and,
    on the CPU, an index out of range. Source: torch `index_add`.
    """
    return REGISTRY["add"](x, untake(updates, indices, tuple(x.shape), axis))


def along_type(name: str, x: TensorType, indices: TensorType, axis: int) -> TensorType:
    check_indices(name, indices)
    along = normalize_axis(name, x.ndim, axis)
    fits = x.ndim == indices.ndim and all(
        i == along or n == m or n == 1 or m == 1 for i, (n, m) in enumerate(zip(x.shape, indices.shape, strict=True))
    )
    if not fits:
        raise ShapeError(
            f"{name}: indices do not fit",
            expected=f"sizes of {list(x.shape)} or 1, except on axis {axis}",
            received=list(indices.shape),
        )
    pairs = enumerate(zip(x.shape, indices.shape, strict=True))
    return TensorType(tuple(m if i == along or n == 1 else n for i, (n, m) in pairs), x.dtype)


@op(
    samples=[
        sample(floats(2, 3), ints(2, 3, low=-4, high=4), (2, 4)),
        sample(floats(3, 2), ints(3, 1, high=3), (3, 2), 0),
        sample(floats(2, 3), ints(2, 3, high=4), (1, 4)),
    ]
)
def untake_along_axis(xp: Any, x: Array, indices: Array, shape: Any, axis: int = -1) -> Array:
    """Zeros of `shape` with the elements of x added at indices: the transpose of `take_along_axis`.

    x: the shape that `take_along_axis` gives for an array of `shape`, numbers. Raises ShapeError where it differs or,
    on the CPU, an index is out of range.
    """
    result = xp.zeros(prod(shape), x.dtype)
    indices = xp.broadcast_to(indices, x.shape)
    add_at(xp, result, flat_positions(xp, shape, indices, axis % len(shape)), x.reshape(-1))
    return result.reshape(shape)


@untake_along_axis.type
def _(x: TensorType, indices: TensorType, shape: Any, axis: int = -1) -> TensorType:
    whole = TensorType(checked_shape("untake_along_axis", shape), x.dtype)
    wanted = along_type("untake_along_axis", whole, indices, axis)
    if wanted != x:
        raise ShapeError("untake_along_axis: wrong shape", expected=wanted, received=x)
    return whole


@untake_along_axis.vjp
def _(gy: Array, _y: Array, _x: TensorType, indices: Array, _shape: Any, axis: int) -> Any:
    return REGISTRY["take_along_axis"](gy, indices, axis), None


@op(
    samples=[
        sample(floats(4, 3), fixed([[0, 2, -1], [2, 1, 0]], "int64"), floats(2, 3)),
        sample(floats(3, 3), ints(2, 5, low=-3, high=3), floats(2, 5), 1, "add"),
        sample(floats(2, 4), ints(2, 6, high=4), floats(2, 6), -1, "mul"),
        sample(distinct(2, 3), ints(2, 6, high=3), distinct(2, 6, low=-2.1, high=1.9), 1, "max"),
        sample(distinct(2, 3), ints(2, 6, high=3), distinct(2, 6, low=-2.1, high=1.9), 1, "min"),
        sample(ints(5), ints(7, high=5), ints(7), 0, "mul"),
        sample(ints(5), ints(7, high=5), ints(7), 0, "add"),
    ]
)
def scatter_elements(
    xp: Any, x: Array, indices: Array, updates: Array, axis: int = 0, reduction: str = "none"
) -> Array:
    """A copy of x with updates[i, j, …] written or reduced into x[i, indices[i, j, …], …], here for axis 1.

    x: any shape. indices: integers, as many axes as x, at most x's sizes except on the axis. updates: the shape of
    indices; cast to x's dtype. reduction: "none" (replace; an index that occurs twice gets the last update on the
    CPU, any on the GPU), "add", "mul", "max", "min". Raises ShapeError for other shapes and, on the CPU, an index out
    of range; ArgumentError for another reduction. Ties of max and min share the gradient evenly, as in torch.
    Source: ONNX `ScatterElements`, torch `scatter` and `scatter_reduce`.
    """
    result = x.reshape(-1).copy()
    positions = flat_positions(xp, x.shape, indices, axis % x.ndim)
    values = updates.astype(x.dtype, copy=False).reshape(-1)
    if reduction == "none":
        result[positions] = values
    elif reduction == "add":
        add_at(xp, result, positions, values)
    else:
        _combine(xp, result, positions, values, reduction)
    return result.reshape(x.shape)


def _check_scatter(name: str, reduction: str) -> None:
    if reduction not in _REDUCTIONS:
        raise ArgumentError(f"{name}: unknown reduction", expected=", ".join(_REDUCTIONS), received=repr(reduction))


@scatter_elements.type
def _(x: TensorType, indices: TensorType, updates: TensorType, axis: int = 0, reduction: str = "none") -> TensorType:
    _check_scatter("scatter_elements", reduction)
    check_indices("scatter_elements", indices)
    along = normalize_axis("scatter_elements", x.ndim, axis)
    fits = x.ndim == indices.ndim and all(
        i == along or (m or 0) <= (n or 0) for i, (n, m) in enumerate(zip(x.shape, indices.shape, strict=True))
    )
    if not fits or updates.shape != indices.shape:
        raise ShapeError(
            "scatter_elements: indices or updates do not fit",
            expected=f"equal shapes, at most {list(x.shape)} except on axis {axis}",
            received=f"indices {list(indices.shape)}, updates {list(updates.shape)}",
        )
    return x


@scatter_elements.vjp
def _(gy: Array, y: Array, x: Array, indices: Array, updates: Array, axis: int, reduction: str) -> Any:
    gather = REGISTRY["gather_elements"]
    multiply, equal = REGISTRY["multiply"], REGISTRY["equal"]
    zeros, ones = REGISTRY["zeros_like"], REGISTRY["ones_like"]
    if reduction == "none":
        return (
            lambda: scatter_elements(gy, indices, zeros(updates), axis),
            None,
            lambda: gather(gy, indices, axis),
        )
    if reduction == "add":
        return gy, None, lambda: gather(gy, indices, axis)
    if reduction == "mul":
        return (
            lambda: multiply(gy, scatter_elements(ones(x), indices, updates, axis, "mul")),
            None,
            lambda: multiply(gather(gy, indices, axis), _products_of_others(x, indices, updates, axis)),
        )
    chosen = REGISTRY["cast"](equal(x, y), gy.dtype)
    also = REGISTRY["cast"](equal(updates, gather(y, indices, axis)), gy.dtype)
    share = REGISTRY["divide"](gy, REGISTRY["maximum"](scatter_elements(chosen, indices, also, axis, "add"), 1.0))
    return multiply(share, chosen), None, lambda: multiply(gather(share, indices, axis), also)


def _products_of_others(x: Array, indices: Array, updates: Array, axis: int) -> Array:
    """For each update the product of everything else that is multiplied into its place; right where there are zeros."""
    gather, where, equal, cast = (REGISTRY[n] for n in ("gather_elements", "where", "equal", "cast"))
    is_zero = equal(updates, 0)
    safe = where(is_zero, 1.0, updates)
    product = scatter_elements(where(equal(x, 0), 1.0, x), indices, safe, axis, "mul")
    zeros = scatter_elements(cast(equal(x, 0), "int64"), indices, cast(is_zero, "int64"), axis, "add")
    others = REGISTRY["subtract"](gather(zeros, indices, axis), cast(is_zero, "int64"))
    return where(equal(others, 0), REGISTRY["divide"](gather(product, indices, axis), safe), 0.0)


def _identity(reduction: str, dtype: Any) -> Any:
    """The number that a reduction leaves others unchanged with."""
    if reduction in ("add", "mean"):
        return 0
    if reduction == "mul":
        return 1
    if kind_of(dtype) <= INTEGER:
        limits = np.iinfo(dtype)
        return int(limits.min if reduction == "max" else limits.max)
    return float("-inf") if reduction == "max" else float("inf")


@composite(
    samples=[
        sample(floats(3, 3), ints(2, 5, low=-3, high=3), floats(2, 5), 1, "mean"),
        sample(floats(2, 4), ints(2, 6, high=4), floats(2, 6), -1, "mul", False),
        sample(floats(4, 2), ints(3, 2, high=3), floats(3, 2), 0, "add", False),
        sample(distinct(2, 5), ints(2, 6, high=3), distinct(2, 6, low=-2.1, high=1.9), 1, "max", False),
        sample(distinct(2, 5), ints(2, 6, high=3), distinct(2, 6, low=-2.1, high=1.9), 1, "min", False),
        sample(floats(4, 2), ints(3, 2, high=3), floats(3, 2), 0, "mean", False),
        sample(ints(4), ints(6, high=3), ints(6), 0, "max", False),
    ]
)
def scatter_reduce(
    x: Array, indices: Array, updates: Array, axis: int = 0, reduction: str = "add", include_self: bool = True
) -> Array:
    """As `scatter_elements` with the reductions "add", "mul", "max", "min" and "mean" (of floats).

    include_self: whether the elements of x take part where updates arrive. Errors as there.
    Source: torch `scatter_reduce`.
    """
    if reduction == "none":
        raise ArgumentError("scatter_reduce: unknown reduction", expected="add, mul, max, min or mean", received="none")
    ones = REGISTRY["full_like"](updates, 1, x.dtype)
    start = x
    if not include_self:
        start = scatter_elements(x, indices, REGISTRY["full_like"](updates, _identity(reduction, x.dtype)), axis)
    if reduction != "mean":
        return scatter_elements(start, indices, updates, axis, reduction)
    total = scatter_elements(start, indices, updates, axis, "add")
    count = scatter_elements(REGISTRY["full_like"](x, int(include_self)), indices, ones, axis, "add")
    return REGISTRY["divide"](total, REGISTRY["maximum"](count, 1.0))


@composite(
    samples=[
        sample(floats(4, 3), fixed([[0, 2, -1]], "int64"), floats(1, 3), 0),
        sample(floats(3, 4), fixed([[1]], "int64"), floats(), -1),
    ]
)
def put_along_axis(x: Array, indices: Array, values: Array, axis: int = -1) -> Array:
    """A copy of x with values written at indices along an axis; on the other axes indices broadcast against x.

    x: any dtype. values: broadcast against the places, cast to x's dtype. Raises ShapeError where they do not
    broadcast and, on the CPU, for an index out of range. Source: NumPy `put_along_axis`.
    """
    along = normalize_axis("put_along_axis", len(x.shape), axis)
    shape = [m if i == along else n for i, (n, m) in enumerate(zip(x.shape, indices.shape, strict=False))]
    return scatter_elements(x, broadcast_to(indices, shape), broadcast_to(values, shape), along)


@op(
    differentiable=False,
    samples=[
        sample(fixed([[0, 1], [-1, -2], [2, 2]], "int64"), (3, 4)),
        sample(ints(2, 3, 1, high=4, dtype="int32"), (4,)),
        sample(ints(2, 0), ()),
    ],
)
def ravel_index(xp: Any, indices: Array, shape: Any) -> Array:
    """The positions in a flattened array of `shape` of index tuples, which lie along the last axis of indices.

    indices: integers [..., len(shape)], negative ones counted from the end -> int64 [...]. Raises ShapeError for
    another length and, on the CPU, an index out of range. Source: NumPy `ravel_multi_index`.
    """
    result = xp.zeros(indices.shape[:-1], np.int64)
    for axis, size in enumerate(shape):
        result = result * size + wrap_indices(xp, indices[..., axis], size)
    return result


@ravel_index.type
def _(indices: TensorType, shape: Any) -> TensorType:
    check_indices("ravel_index", indices)
    if not indices.ndim or indices.shape[-1] != len(checked_shape("ravel_index", shape)):
        raise ShapeError(
            "ravel_index: wrong shape",
            expected=f"a last axis of size {len(shape)}",
            received=list(indices.shape),
        )
    return TensorType(indices.shape[:-1], np.dtype(np.int64))


@composite(
    samples=[
        sample(floats(4, 3), fixed([[1], [-1]], "int64"), floats(2, 3)),
        sample(floats(3, 4, 2), ints(2, 3, 2, high=3), floats(2, 3, 2), "add"),
        sample(floats(5), ints(7, 1, high=5), floats(7), "mul"),
        sample(distinct(3, 2), ints(4, 1, high=3), distinct(4, 2, low=-2.1, high=1.9), "max"),
        sample(distinct(3, 2), ints(4, 1, high=3), distinct(4, 2, low=-2.1, high=1.9), "min"),
    ]
)
def scatter_nd(x: Array, indices: Array, updates: Array, reduction: str = "none") -> Array:
    """A copy of x with slices written or reduced into the places that index tuples name.

    x: any shape. indices: integers [..., k], k at most x's axes. updates: [..., *x.shape[k:]]. reduction as in
    `scatter_elements`. Raises ShapeError for other shapes and, on the CPU, an index out of range; ArgumentError for
    another reduction. Source: ONNX `ScatterND`.
    """
    depth = indices.shape[-1] if len(indices.shape) else 0
    if not len(indices.shape) or depth > len(x.shape):
        raise ShapeError(
            "scatter_nd: wrong indices",
            expected=f"[..., k], k up to {len(x.shape)}",
            received=list(indices.shape),
        )
    expected = (*indices.shape[:-1], *x.shape[depth:])
    if tuple(updates.shape) != expected:
        raise ShapeError("scatter_nd: wrong updates", expected=list(expected), received=list(updates.shape))
    rows = prod(x.shape[:depth])
    width = prod(x.shape[depth:])
    places = expand_dims(reshape(ravel_index(indices, tuple(x.shape[:depth])), -1), 1)
    count = prod(indices.shape[:-1])
    result = scatter_elements(
        reshape(x, (rows, width)),
        broadcast_to(places, (count, width)),
        reshape(updates, (count, width)),
        0,
        reduction,
    )
    return reshape(result, tuple(x.shape))
