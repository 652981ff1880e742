"""Shapes: reshaping, joining and cutting up arrays, by the names of the array API and NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.reductions import Axis, normalize_axes
from zoonet.ops.reductions import sum as sum_
from zoonet.ops.registry import broadcast_shapes, composite, op
from zoonet.ops.samples import floats, ints, sample
from zoonet.ops.types import Array, DType, TensorType, promote

__all__ = [
    "broadcast_to",
    "concat",
    "expand_dims",
    "flip",
    "moveaxis",
    "reshape",
    "split",
    "squeeze",
    "stack",
    "swapaxes",
    "transpose",
    "unstack",
]


def normalize_axis(name: str, ndim: int, axis: Any) -> int:
    """One axis as a non-negative number. Raises ArgumentError or ShapeError naming the operator."""
    if not isinstance(axis, int) or isinstance(axis, bool):
        raise ArgumentError(f"{name}: an axis is one integer", received=repr(axis))
    return normalize_axes(name, ndim, axis)[0]


def checked_shape(name: str, shape: Any) -> tuple[int, ...]:
    """A shape given as a number or a sequence, as a tuple. Raises ShapeError naming the operator."""
    sizes = (shape,) if isinstance(shape, int) else tuple(shape) if isinstance(shape, list | tuple) else (None,)
    if not all(isinstance(n, int) and n >= 0 for n in sizes):
        raise ShapeError(f"{name}: not a shape", expected="integers of at least 0", received=repr(shape))
    return tuple(int(n) for n in sizes)


@op(
    exact=True,
    view=True,
    samples=[sample(floats(2, 6), (3, 4)), sample(floats(2, 6), (3, -1)), sample(ints(1), ())],
)
def reshape(xp: Any, x: Array, shape: int | Sequence[Any]) -> Array:
    """The elements of x in row-major order in another shape; one size may be -1, which is then computed.

    x: any shape and dtype -> `shape`, same dtype. Raises ShapeError if the number of elements differs.
    Source: array API `reshape`.
    """
    return xp.reshape(x, shape)


@reshape.type
def _(x: TensorType, shape: int | Sequence[int]) -> TensorType:
    wanted = [shape] if isinstance(shape, int) else list(shape)
    unknown = [i for i, n in enumerate(wanted) if n == -1]
    rest = prod(n for n in wanted if n != -1)
    if len(unknown) == 1 and rest > 0 and x.size % rest == 0:
        wanted[unknown[0]] = x.size // rest
    if any(n < 0 for n in wanted) or prod(wanted) != x.size:
        raise ShapeError(
            "reshape keeps the number of elements",
            expected=f"a shape of {x.size} elements with at most one -1",
            received=f"{tuple(x.shape)} to {shape}",
        )
    return TensorType(tuple(wanted), x.dtype)


@reshape.vjp
def _(gy: Array, _y: Array, _x: TensorType, _shape: Any) -> Any:
    return reshape(gy, _x.shape)


@op(
    exact=True,
    view=True,
    samples=[
        sample(floats(2, 3, 4)),
        sample(floats(2, 3, 4), (1, -1, 0)),
        sample(ints(2, 3), (1, 0)),
        sample(floats()),
    ],
)
def transpose(xp: Any, x: Array, axes: Sequence[int] | None = None) -> Array:
    """x with its axes permuted: axis i of the result is axis axes[i] of x; all reversed for None.

    x: any shape and dtype. Raises ShapeError unless axes is a permutation. Source: array API `permute_dims`.
    """
    return xp.transpose(x, axes)


def _permutation(ndim: int, axes: Sequence[int] | None) -> tuple[int, ...]:
    if axes is None:
        return tuple(range(ndim))[::-1]
    permutation = tuple(normalize_axis("transpose", ndim, a) for a in axes)
    if sorted(permutation) != list(range(ndim)):
        raise ShapeError("transpose needs every axis once", expected=f"{ndim} distinct axes", received=axes)
    return permutation


@transpose.type
def _(x: TensorType, axes: Sequence[int] | None = None) -> TensorType:
    return TensorType(tuple(x.shape[a] for a in _permutation(x.ndim, axes)), x.dtype)


@transpose.vjp
def _(gy: Array, _y: Array, _x: TensorType, axes: Sequence[int] | None) -> Any:
    permutation = _permutation(_x.ndim, axes)
    return transpose(gy, tuple(sorted(range(_x.ndim), key=permutation.__getitem__)))


@composite(
    exact=True,
    samples=[
        sample(floats(2, 3, 4), 0, -1),
        sample(floats(2, 3, 4), (0, 1), (-1, 0)),
        sample(ints(2, 3), 1, 0),
    ],
)
def moveaxis(x: Array, source: int | Sequence[int], destination: int | Sequence[int]) -> Array:
    """x with the axes `source` at the positions `destination`, the others in their order.

    x: any shape and dtype. Raises ShapeError for axes that x does not have or that do not pair up.
    Source: array API `moveaxis`.
    """
    sources = [source] if isinstance(source, int) else list(source)
    targets = [destination] if isinstance(destination, int) else list(destination)
    ndim = len(x.shape)
    sources = [normalize_axis("moveaxis", ndim, a) for a in sources]
    targets = [normalize_axis("moveaxis", ndim, a) for a in targets]
    if len(set(sources)) != len(sources) or len(set(targets)) != len(targets) or len(sources) != len(targets):
        raise ShapeError(
            "moveaxis: axes do not pair up",
            expected="as many distinct ones each",
            received=f"{source}, {destination}",
        )
    order = [a for a in range(ndim) if a not in sources]
    for target, origin in sorted(zip(targets, sources, strict=True)):
        order.insert(target, origin)
    return transpose(x, order)


@composite(exact=True, samples=[sample(floats(2, 3, 4), 0, -1), sample(ints(2, 3), 1, 1)])
def swapaxes(x: Array, axis1: int, axis2: int) -> Array:
    """x with two axes exchanged. Any shape and dtype. Raises ShapeError for an axis that x does not have."""
    order = list(range(len(x.shape)))
    first, second = (normalize_axis("swapaxes", len(order), a) for a in (axis1, axis2))
    order[first], order[second] = second, first
    return transpose(x, order)


@op(
    exact=True,
    view=True,
    samples=[
        sample(floats(3), (2, 3)),
        sample(floats(2, 1, 3), (4, 2, 5, 3)),
        sample(floats(), (2,)),
        sample(ints(1, 3), (0, 3)),
        sample(floats(1, 3), (0, 3)),
    ],
)
def broadcast_to(xp: Any, x: Array, shape: int | Sequence[Any]) -> Array:
    """x repeated along new leading axes and axes of size 1, so that it has `shape`; a view.

    x: any shape that broadcasts to `shape`, any dtype. Raises ShapeError otherwise. Source: array API `broadcast_to`.
    """
    return xp.broadcast_to(x, shape)


@broadcast_to.type
def _(x: TensorType, shape: int | Sequence[int]) -> TensorType:
    wanted = checked_shape("broadcast_to", shape)
    if x.ndim > len(wanted) or broadcast_shapes("broadcast_to", x.shape, wanted) != wanted:
        raise ShapeError(
            "broadcast_to: the shape does not fit",
            expected=f"a shape that {list(x.shape)} broadcasts to",
            received=shape,
        )
    return TensorType(wanted, x.dtype)


@broadcast_to.vjp
def _(gy: Array, _y: Array, _x: TensorType, _shape: Any) -> Any:
    leading = len(gy.shape) - _x.ndim
    repeated = [i + leading for i, n in enumerate(_x.shape) if n == 1 and gy.shape[i + leading] != 1]
    return reshape(sum_(gy, (*range(leading), *repeated), True), _x.shape)


@op(
    exact=True,
    view=True,
    samples=[
        sample(floats(1, 3, 1)),
        sample(floats(1, 3, 1), -1),
        sample(floats(1, 3, 1), (0, 2)),
        sample(ints(2, 1)),
    ],
)
def squeeze(xp: Any, x: Array, axis: Axis = None) -> Array:
    """x without these axes, which have size 1; without all such axes for None. Any dtype.

    Raises ShapeError for an axis of another size. Source: array API `squeeze`.
    """
    return xp.squeeze(x, axis)


@squeeze.type
def _(x: TensorType, axis: Axis = None) -> TensorType:
    if axis is None:
        return TensorType(tuple(n for n in x.shape if n != 1), x.dtype)
    axes = normalize_axes("squeeze", x.ndim, axis)
    if any(x.shape[a] != 1 for a in axes):
        raise ShapeError("squeeze takes away axes of size 1", received=f"axis {axis} of {x}")
    return TensorType(tuple(n for i, n in enumerate(x.shape) if i not in axes), x.dtype)


@squeeze.vjp
def _(gy: Array, _y: Array, _x: TensorType, _axis: Any) -> Any:
    return reshape(gy, _x.shape)


@op(exact=True, view=True, samples=[sample(floats(2, 3), 1), sample(floats(2, 3), (0, -1)), sample(ints(), 0)])
def expand_dims(xp: Any, x: Array, axis: int | Sequence[int] = 0) -> Array:
    """x with new axes of size 1 at these positions of the result. Any shape and dtype.

    Raises ShapeError for a position outside the result. Source: array API `expand_dims`.
    """
    return xp.expand_dims(x, axis)


@expand_dims.type
def _(x: TensorType, axis: int | Sequence[int] = 0) -> TensorType:
    ndim = x.ndim + (1 if isinstance(axis, int) else len(axis))
    new = normalize_axes("expand_dims", ndim, axis)
    sizes = iter(x.shape)
    return TensorType(tuple(1 if i in new else next(sizes) for i in range(ndim)), x.dtype)


@expand_dims.vjp
def _(gy: Array, _y: Array, _x: TensorType, _axis: Any) -> Any:
    return reshape(gy, _x.shape)


def _joined_dtype(name: str, arrays: Sequence[TensorType]) -> DType:
    if not arrays:
        raise ArgumentError(f"{name} needs arrays", expected="at least one", received="none")
    return promote(arrays)


@op(
    exact=True,
    samples=[
        sample((floats(2, 3), floats(2, 1), floats(2, 0)), 1),
        sample([floats(2, 3), ints(1, 3)]),
        sample([ints(2)], -1),
        sample([floats(2, 3)], -1),
    ],
)
def concat(xp: Any, arrays: Sequence[Array], axis: int = 0) -> Array:
    """Arrays one after another along an axis.

    arrays: at least one, of equal shapes except on `axis`, any dtypes -> the promoted dtype. Raises ShapeError where
    they do not fit, ArgumentError for none. Source: array API `concat`.
    """
    dtype = promote(arrays)
    return xp.concatenate([a.astype(dtype, copy=False) for a in arrays], axis)


@concat.type
def _(arrays: Sequence[TensorType], axis: int = 0) -> TensorType:
    dtype = _joined_dtype("concat", arrays)
    first = arrays[0].shape
    along = normalize_axis("concat", len(first), axis)
    for a in arrays:
        if a.ndim != len(first) or any(
            n != m for i, (n, m) in enumerate(zip(a.shape, first, strict=True)) if i != along
        ):
            raise ShapeError(
                "concat: shapes differ",
                expected=f"equal sizes on every axis but {axis}",
                received=", ".join(str(list(b.shape)) for b in arrays),
            )
    sizes = [a.shape[along] for a in arrays]
    joined = None if None in sizes else sum(n for n in sizes if n is not None)
    return TensorType((*first[:along], joined, *first[along + 1 :]), dtype)


@concat.vjp
def _(gy: Array, _y: Array, _arrays: Sequence[TensorType], axis: int) -> Any:
    along = normalize_axis("concat", _arrays[0].ndim, axis)
    points: list[int] = []
    for a in _arrays[:-1]:
        points.append((points[-1] if points else 0) + (a.shape[along] or 0))
    return list(split(gy, tuple(points), along))


@op(
    exact=True,
    samples=[
        sample((floats(2, 3), floats(2, 3))),
        sample([floats(2), ints(2)], -1),
        sample([floats(2, 3)], 1),
    ],
)
def stack(xp: Any, arrays: Sequence[Array], axis: int = 0) -> Array:
    """Arrays of equal shapes along a new axis, which is `axis` of the result.

    arrays: at least one, any dtypes -> the promoted dtype. Raises ShapeError where shapes differ, ArgumentError for
    none. Source: array API `stack`.
    """
    dtype = promote(arrays)
    return xp.stack([a.astype(dtype, copy=False) for a in arrays], axis)


@stack.type
def _(arrays: Sequence[TensorType], axis: int = 0) -> TensorType:
    dtype = _joined_dtype("stack", arrays)
    shape = arrays[0].shape
    if any(a.shape != shape for a in arrays):
        raise ShapeError(
            "stack: shapes differ",
            expected="equal shapes",
            received=", ".join(str(list(a.shape)) for a in arrays),
        )
    along = normalize_axis("stack", len(shape) + 1, axis)
    return TensorType((*shape[:along], len(arrays), *shape[along:]), dtype)


@stack.vjp
def _(gy: Array, _y: Array, _arrays: Sequence[TensorType], axis: int) -> Any:
    return list(unstack(gy, axis))


@op(exact=True, view=True, samples=[sample(floats(2, 3)), sample(floats(2, 3), -1), sample(ints(1, 2))])
def unstack(xp: Any, x: Array, axis: int = 0) -> tuple[Array, ...]:
    """The slices of x along an axis, which they no longer have, as a tuple. Any dtype; at least one axis.

    Raises ShapeError for an axis that x does not have. Source: array API `unstack`.
    """
    return tuple(xp.moveaxis(x, axis, 0))


@unstack.type
def _(x: TensorType, axis: int = 0) -> tuple[TensorType, ...]:
    along = normalize_axis("unstack", x.ndim, axis)
    return (TensorType((*x.shape[:along], *x.shape[along + 1 :]), x.dtype),) * (x.shape[along] or 0)


@unstack.vjp
def _(gy: Sequence[Array], _y: Any, _x: TensorType, axis: int) -> Any:
    return stack(gy, axis)


@op(
    exact=True,
    view=True,
    samples=[
        sample(floats(2, 6), 3, 1),
        sample(floats(5, 2), (1, 3)),
        sample(floats(2, 5), (2, 2, 4), -1),
        sample(ints(4), 2),
        sample(floats(3), (5,)),
    ],
)
def split(xp: Any, x: Array, indices_or_sections: int | Sequence[int], axis: int = 0) -> tuple[Array, ...]:
    """x cut along an axis into a tuple: a number gives so many equal parts, a sequence the positions of the cuts.

    x: any dtype, at least one axis. Raises ShapeError where a number does not divide the size, ArgumentError for
    cuts that are negative or descend. Source: NumPy `split`.
    """
    along = axis % x.ndim
    cuts = _cuts(x.shape[along], indices_or_sections)
    whole = (slice(None),) * along
    return tuple(x[(*whole, slice(a, b))] for a, b in pairwise(cuts))


def _cuts(size: int, indices_or_sections: int | Sequence[int]) -> list[int]:
    """The positions of the cuts with both ends."""
    if not isinstance(indices_or_sections, int):
        points = list(indices_or_sections)
        if any(not isinstance(p, int) or p < 0 for p in points) or points != sorted(points):
            raise ArgumentError(
                "split: wrong positions",
                expected="ascending positions of at least 0",
                received=indices_or_sections,
            )
        return [0, *(min(p, size) for p in points), size]
    if indices_or_sections < 1 or size % indices_or_sections:
        raise ShapeError(
            "split: the parts are not equal",
            expected=f"a number that divides {size}",
            received=indices_or_sections,
            fix="give the positions of the cuts as a tuple",
        )
    step = size // indices_or_sections
    return [i * step for i in range(indices_or_sections + 1)]


@split.type
def _(x: TensorType, indices_or_sections: int | Sequence[int], axis: int = 0) -> tuple[TensorType, ...]:
    along = normalize_axis("split", x.ndim, axis)
    cuts = _cuts(x.shape[along] or 0, indices_or_sections)
    sizes = [b - a for a, b in pairwise(cuts)]
    return tuple(TensorType((*x.shape[:along], n, *x.shape[along + 1 :]), x.dtype) for n in sizes)


@split.vjp
def _(gy: Sequence[Array], _y: Any, _x: TensorType, _indices_or_sections: Any, axis: int) -> Any:
    return concat(gy, axis)


@op(
    exact=True,
    view=True,
    samples=[sample(floats(2, 3)), sample(floats(2, 3), -1), sample(ints(2, 3), (0, 1))],
)
def flip(xp: Any, x: Array, axis: Axis = None) -> Array:
    """x with the order of its elements reversed along axes, all of them for None. Any shape and dtype.

    Raises ShapeError for an axis that x does not have. Source: array API `flip`.
    """
    return xp.flip(x, axis)


@flip.type
def _(x: TensorType, axis: Axis = None) -> TensorType:
    normalize_axes("flip", x.ndim, axis)
    return x


@flip.vjp
def _(gy: Array, _y: Array, _x: TensorType, axis: Axis) -> Any:
    return flip(gy, axis)
