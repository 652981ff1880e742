"""Arithmetic on elements: the array API's unary, binary, comparison, logical and bitwise functions.

Semantics follow the array API standard (2023.12) and NumPy; integers given to floating functions become float32.
"""

from __future__ import annotations

from typing import Any

from zoonet.ops.registry import op
from zoonet.ops.samples import floats, ints, sample
from zoonet.ops.types import Array, DType, TensorType, as_dtype

__all__ = ["add", "cast", "multiply"]


@op(
    promotes="number",
    samples=[sample(floats(2, 3), floats(2, 3)), sample(floats(2, 1), floats(3)), sample(ints(3), 2)],
)
def add(xp: Any, x: Array, y: Array) -> Array:
    """x + y. Numbers of any shapes that broadcast -> the broadcast shape and promoted dtype."""
    return xp.add(x, y)


@add.vjp
def _(gy: Array, _y: Array, _x: Array, _other: Array) -> Any:
    return gy, gy


@op(
    promotes="number",
    samples=[sample(floats(2, 3), floats(2, 3)), sample(floats(2, 1), floats(3)), sample(floats(3), 2.5)],
)
def multiply(xp: Any, x: Array, y: Array) -> Array:
    """x · y. Numbers of any shapes that broadcast -> the broadcast shape and promoted dtype."""
    return xp.multiply(x, y)


@multiply.vjp
def _(gy: Array, _y: Array, x: Array, y: Array) -> Any:
    return lambda: multiply(gy, y), lambda: multiply(gy, x)


@op(exact=True, view=True, samples=[sample(floats(2, 3), "float32"), sample(ints(3), "float64")])
def cast(xp: Any, x: Array, dtype: Any) -> Array:
    """x in another dtype. Any shape -> same shape, `dtype` (a name or NumPy dtype). Floats to integers truncate.

    Raises DTypeError for an unknown dtype.
    """
    return x.astype(as_dtype(dtype), copy=False)


@cast.type
def _(x: TensorType, dtype: Any) -> TensorType:
    return TensorType(x.shape, as_dtype(dtype))


@cast.vjp
def _(gy: Array, _y: Array, _x: TensorType, _dtype: DType) -> Any:
    return cast(gy, _x.dtype)
