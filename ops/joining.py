"""Joining arrays and cutting them up, by the names of the array API and NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.registry import op
from zoonet.ops.samples import floats, ints, sample
from zoonet.ops.shapes import normalize_axis
from zoonet.ops.types import Array, DType, TensorType, promote

__all__ = ["concat", "split", "stack", "unstack"]


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
