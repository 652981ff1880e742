"""Shapes: reshaping and rearranging arrays, by the names of the array API and NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.reductions import Axis, normalize_axes
from zoonet.ops.reductions import sum as sum_
from zoonet.ops.registry import broadcast_shapes, composite, op
from zoonet.ops.samples import floats, ints, sample
from zoonet.ops.types import Array, TensorType

__all__ = [
    "broadcast_to",
    "expand_dims",
    "flip",
    "moveaxis",
    "reshape",
    "squeeze",
    "swapaxes",
    "transpose",
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
    """x with two axes exchanged. Any shape and dtype. Raises ShapeError for an axis that x does not have.

    Source: NumPy `swapaxes`.
    """
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
