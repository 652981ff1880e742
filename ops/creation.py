"""Making arrays: constants, ranges, identity matrices, triangles, diagonals, by the names of the array API and NumPy.

Operators without an array operand take `device`, "cpu" or "cuda", and give constants where they are traced.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.registry import composite, op
from zoonet.ops.samples import floats, ints, sample
from zoonet.ops.shapes import broadcast_to, checked_shape, normalize_axis, reshape
from zoonet.ops.types import Array, DType, TensorType, as_dtype, int64, promote

__all__ = [
    "arange",
    "diag",
    "diagonal",
    "eye",
    "full",
    "full_like",
    "linspace",
    "meshgrid",
    "ones",
    "ones_like",
    "tril",
    "triu",
    "undiagonal",
    "zeros",
    "zeros_like",
]


def _dtype_for(dtype: Any, *numbers: Any) -> DType:
    return promote(numbers) if dtype is None else as_dtype(dtype)


@op(
    exact=True,
    differentiable=False,
    samples=[sample((2, 3), 1.5), sample((), 7), sample(2, True, "bfloat16")],
)
def full(xp: Any, shape: int | Sequence[int], value: float, dtype: Any = None, device: str = "cpu") -> Array:
    """An array filled with one number; dtype None: float32, int64 or bool by the kind of the number.

    Raises ShapeError for a wrong shape, DTypeError and DeviceError for unknown names. Source: array API `full`.
    """
    return xp.full(shape, value, _dtype_for(dtype, value))


@full.type
def _(shape: int | Sequence[int], value: float, dtype: Any = None, device: str = "cpu") -> TensorType:
    return TensorType(checked_shape("full", shape), _dtype_for(dtype, value))


@composite(exact=True, differentiable=False, samples=[sample((2, 3)), sample(3, "int32")])
def zeros(shape: int | Sequence[int], dtype: Any = "float32", device: str = "cpu") -> Array:
    """Zeros of a shape. Raises as `full`. Source: array API `zeros`."""
    return full(shape, 0, dtype, device)


@composite(exact=True, differentiable=False, samples=[sample((2, 3)), sample(3, "int32")])
def ones(shape: int | Sequence[int], dtype: Any = "float32", device: str = "cpu") -> Array:
    """Ones of a shape. Raises as `full`. Source: array API `ones`."""
    return full(shape, 1, dtype, device)


@op(exact=True, differentiable=False, samples=[sample(floats(2, 3), 7), sample(floats(2), 1, "int32")])
def full_like(xp: Any, x: Array, value: float, dtype: Any = None) -> Array:
    """An array of x's shape filled with one number; of x's dtype unless another is given. Source: array API."""
    return xp.full(x.shape, value, as_dtype(dtype) if dtype is not None else x.dtype)


@full_like.type
def _(x: TensorType, value: float, dtype: Any = None) -> TensorType:
    return TensorType(x.shape, as_dtype(dtype) if dtype is not None else x.dtype)


@composite(exact=True, differentiable=False, samples=[sample(floats(2, 3)), sample(floats(2), "int32")])
def zeros_like(x: Array, dtype: Any = None) -> Array:
    """Zeros of x's shape; of x's dtype unless another is given. Source: array API `zeros_like`."""
    return full_like(x, 0, dtype)


@composite(exact=True, differentiable=False, samples=[sample(floats(2, 3)), sample(floats(2), "int32")])
def ones_like(x: Array, dtype: Any = None) -> Array:
    """Ones of x's shape; of x's dtype unless another is given. Source: array API `ones_like`."""
    return full_like(x, 1, dtype)


@op(
    exact=True,
    differentiable=False,
    samples=[
        sample(5),
        sample(2, 9, 3),
        sample(1.0, 2.0, 0.25),
        sample(5, 0, -2, "float32"),
        sample(3, 1),
        sample(4, dtype="bfloat16"),
    ],
)
def arange(
    xp: Any, start: float, stop: float | None = None, step: float = 1, dtype: Any = None, device: str = "cpu"
) -> Array:
    """start, start + step, … below stop (0, 1, … below start where there is no stop): a 1-d array.

    dtype None: int64 if the numbers are integers, else float32. Raises ArgumentError for a step of 0.
    Source: array API `arange`.
    """
    first, last = (0, start) if stop is None else (start, stop)
    wanted = _dtype_for(dtype, first, last, step)
    whole = all(isinstance(n, int) for n in (first, last, step))
    return xp.arange(first, last, step, int64 if whole else "float64").astype(wanted, copy=False)


@arange.type
def _(start: float, stop: float | None = None, step: float = 1, dtype: Any = None, device: str = "cpu") -> TensorType:
    first, last = (0, start) if stop is None else (start, stop)
    if step == 0:
        raise ArgumentError("arange: the step is 0", expected="another number", received=step)
    return TensorType((max(ceil((last - first) / step), 0),), _dtype_for(dtype, first, last, step))


@op(
    exact=True,
    differentiable=False,
    samples=[
        sample(0, 1, 5),
        sample(2.0, -1.0, 4, "float64"),
        sample(0, 1, 4, "float32", "cpu", False),
        sample(3, 4, 1),
    ],
)
def linspace(
    xp: Any,
    start: float,
    stop: float,
    num: int,
    dtype: Any = "float32",
    device: str = "cpu",
    endpoint: bool = True,
) -> Array:
    """num evenly spaced numbers from start to stop, the last of them stop itself if endpoint: a 1-d array.

    Raises ShapeError for a negative num. Source: array API `linspace`.
    """
    return xp.linspace(start, stop, num, endpoint).astype(as_dtype(dtype), copy=False)


@linspace.type
def _(
    start: float, stop: float, num: int, dtype: Any = "float32", device: str = "cpu", endpoint: bool = True
) -> TensorType:
    return TensorType(checked_shape("linspace", (num,)), as_dtype(dtype))


@op(
    exact=True,
    differentiable=False,
    samples=[sample(3), sample(2, 4, 1), sample(4, 3, -2, "int64"), sample(2, 2, 5), sample(0, 2)],
)
def eye(
    xp: Any,
    rows: int,
    columns: int | None = None,
    offset: int = 0,
    dtype: Any = "float32",
    device: str = "cpu",
) -> Array:
    """Ones on a diagonal of a matrix of zeros; offset: how far the diagonal is right of the main one.

    columns None: as many as rows. Raises ShapeError for negative sizes. Source: array API `eye`.
    """
    return xp.eye(rows, columns, offset, as_dtype(dtype))


@eye.type
def _(
    rows: int, columns: int | None = None, offset: int = 0, dtype: Any = "float32", device: str = "cpu"
) -> TensorType:
    return TensorType(checked_shape("eye", (rows, rows if columns is None else columns)), as_dtype(dtype))


@composite(
    exact=True,
    samples=[
        sample((floats(2), floats(3))),
        sample((floats(2), floats(3), ints(2)), "ij"),
        sample((floats(3),)),
    ],
)
def meshgrid(arrays: Sequence[Array], indexing: str = "xy") -> tuple[Array, ...]:
    """Coordinate arrays of a grid: for 1-d arrays of sizes n, m, … as many arrays of shape [m, n, …].

    indexing: "xy" for the first two axes exchanged as written, "ij" for [n, m, …]. Raises ArgumentError for another
    word, ShapeError for arrays that are not 1-d. Source: array API `meshgrid`.
    """
    if indexing not in ("xy", "ij"):
        raise ArgumentError("meshgrid: unknown indexing", expected="'xy' or 'ij'", received=repr(indexing))
    if any(len(a.shape) != 1 for a in arrays):
        raise ShapeError("meshgrid takes 1-d arrays", received=", ".join(str(list(a.shape)) for a in arrays))
    places = list(range(len(arrays)))
    if indexing == "xy" and len(places) > 1:
        places[:2] = [1, 0]
    shape = [0] * len(places)
    for place, array in zip(places, arrays, strict=True):
        shape[place] = array.shape[0]
    return tuple(
        broadcast_to(reshape(a, [-1 if i == place else 1 for i in range(len(shape))]), shape)
        for place, a in zip(places, arrays, strict=True)
    )


@op(
    exact=True,
    samples=[sample(floats(3, 4)), sample(floats(2, 3, 3), -1), sample(floats(2, 4), 1), sample(ints(3, 3))],
)
def tril(xp: Any, x: Array, k: int = 0) -> Array:
    """x with zeros above the diagonal k of its last two axes (k > 0: right of the main one). Any dtype.

    Raises ShapeError for fewer than two axes. Source: array API `tril`.
    """
    return xp.tril(x, k)


@op(
    exact=True,
    samples=[sample(floats(3, 4)), sample(floats(2, 3, 3), -1), sample(floats(2, 4), 1), sample(ints(3, 3))],
)
def triu(xp: Any, x: Array, k: int = 0) -> Array:
    """x with zeros below the diagonal k of its last two axes (k > 0: right of the main one). Any dtype.

    Raises ShapeError for fewer than two axes. Source: array API `triu`.
    """
    return xp.triu(x, k)


@tril.type
@triu.type
def _(x: TensorType, k: int = 0) -> TensorType:
    if x.ndim < 2:
        raise ShapeError("tril and triu take matrices", expected="two axes or more", received=x)
    return x


@tril.vjp
def _(gy: Array, _y: Array, _x: TensorType, k: int) -> Any:
    return tril(gy, k)


@triu.vjp
def _(gy: Array, _y: Array, _x: TensorType, k: int) -> Any:
    return triu(gy, k)


def _diagonal_type(name: str, x: TensorType, offset: int, axis1: int, axis2: int) -> TensorType:
    if x.ndim < 2:
        raise ShapeError(f"{name} takes matrices", expected="two axes or more", received=x)
    first, second = normalize_axis(name, x.ndim, axis1), normalize_axis(name, x.ndim, axis2)
    if first == second:
        raise ShapeError(f"{name}: an axis is named twice", expected="two axes", received=(axis1, axis2))
    rows, columns = x.shape[first] or 0, x.shape[second] or 0
    size = min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns)
    rest = [n for i, n in enumerate(x.shape) if i not in (first, second)]
    return TensorType((*rest, max(size, 0)), x.dtype)


@op(
    exact=True,
    view=True,
    samples=[
        sample(floats(3, 4)),
        sample(floats(2, 3, 4), 1, 1, 2),
        sample(floats(3, 2, 3), -1, 0, -1),
        sample(ints(2, 2)),
    ],
)
def diagonal(xp: Any, x: Array, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Array:
    """The diagonals of the matrices on two axes of x, on a new last axis; offset: how far right of the main one.

    x: two axes or more, any dtype. Raises ShapeError for fewer, or equal axes. Source: NumPy `diagonal`.
    """
    return xp.diagonal(x, offset, axis1, axis2)


@diagonal.type
def _(x: TensorType, offset: int = 0, axis1: int = 0, axis2: int = 1) -> TensorType:
    return _diagonal_type("diagonal", x, offset, axis1, axis2)


@diagonal.vjp
def _(gy: Array, _y: Array, _x: TensorType, offset: int, axis1: int, axis2: int) -> Any:
    return undiagonal(gy, _x.shape, offset, axis1, axis2)


@op(
    exact=True,
    samples=[sample(floats(3), (3, 4)), sample(floats(2, 2), (3, 2, 3), -1, 0, -1), sample(ints(2), (2, 2))],
)
def undiagonal(xp: Any, x: Array, shape: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Array:
    """Zeros of `shape` with x on the diagonals: the transpose of `diagonal`.

    x: the shape that `diagonal` gives for an array of `shape`, any dtype. Raises ShapeError where it differs.
    """
    result = xp.zeros(shape, x.dtype)
    moved = xp.moveaxis(result, (axis1, axis2), (-2, -1))
    place = xp.arange(x.shape[-1])
    moved[..., place + max(-offset, 0), place + max(offset, 0)] = x
    return result


@undiagonal.type
def _(x: TensorType, shape: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> TensorType:
    whole = TensorType(checked_shape("undiagonal", shape), x.dtype)
    wanted = _diagonal_type("undiagonal", whole, offset, axis1, axis2)
    if wanted.shape != x.shape:
        raise ShapeError("undiagonal: wrong shape", expected=list(wanted.shape), received=list(x.shape))
    return whole


@undiagonal.vjp
def _(gy: Array, _y: Array, _x: TensorType, _shape: Any, offset: int, axis1: int, axis2: int) -> Any:
    return diagonal(gy, offset, axis1, axis2)


@composite(exact=True, samples=[sample(floats(3)), sample(floats(2), -1), sample(floats(3, 4), 1), sample(ints(2))])
def diag(x: Array, k: int = 0) -> Array:
    """The diagonal k of a matrix, or the square matrix with a vector on its diagonal k.

    x: 1-d or 2-d, any dtype. Raises ShapeError for others. Source: NumPy `diag`.
    """
    if len(x.shape) == 2:
        return diagonal(x, k)
    if len(x.shape) != 1:
        raise ShapeError("diag takes a vector or a matrix", expected="1 or 2 axes", received=list(x.shape))
    size = x.shape[0] + abs(k)
    return undiagonal(x, (size, size), k)
