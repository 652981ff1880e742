"""Shapes: making, reshaping, joining and rearranging arrays, by the names of the array API and NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from zoonet.ops.errors import ShapeError
from zoonet.ops.registry import op
from zoonet.ops.samples import floats, ints, sample
from zoonet.ops.types import Array, TensorType, as_dtype

__all__ = ["full_like", "reshape"]


@op(
    exact=True,
    view=True,
    samples=[sample(floats(2, 6), (3, 4)), sample(floats(2, 6), (3, -1)), sample(ints(1), ())],
)
def reshape(xp: Any, x: Array, shape: int | Sequence[int]) -> Array:
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


@op(exact=True, differentiable=False, samples=[sample(floats(2, 3), 7), sample(floats(2), 1, "int32")])
def full_like(xp: Any, x: Array, value: float, dtype: Any = None) -> Array:
    """An array of x's shape filled with one number; of x's dtype unless another is given."""
    return xp.full(x.shape, value, as_dtype(dtype) if dtype is not None else x.dtype)


@full_like.type
def _(x: TensorType, value: float, dtype: Any = None) -> TensorType:
    return TensorType(x.shape, as_dtype(dtype) if dtype is not None else x.dtype)
