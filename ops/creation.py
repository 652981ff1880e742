"""Making arrays: constants, ranges, identity matrices and triangles, by the names of the array API and NumPy.

Operators without an array operand take `device`: "cpu" or "cuda".
"""

from __future__ import annotations

from typing import Any

from zoonet.ops.registry import composite, op
from zoonet.ops.samples import floats, sample
from zoonet.ops.types import Array, TensorType, as_dtype

__all__ = ["full_like", "ones_like", "zeros_like"]


@op(exact=True, differentiable=False, samples=[sample(floats(2, 3), 7), sample(floats(2), 1, "int32")])
def full_like(xp: Any, x: Array, value: float, dtype: Any = None) -> Array:
    """An array of x's shape filled with one number; of x's dtype unless another is given."""
    return xp.full(x.shape, value, as_dtype(dtype) if dtype is not None else x.dtype)


@full_like.type
def _(x: TensorType, value: float, dtype: Any = None) -> TensorType:
    return TensorType(x.shape, as_dtype(dtype) if dtype is not None else x.dtype)


@composite(exact=True, differentiable=False, samples=[sample(floats(2, 3)), sample(floats(2), "int32")])
def zeros_like(x: Array, dtype: Any = None) -> Array:
    """Zeros of x's shape; of x's dtype unless another is given."""
    return full_like(x, 0, dtype)


@composite(exact=True, differentiable=False, samples=[sample(floats(2, 3)), sample(floats(2), "int32")])
def ones_like(x: Array, dtype: Any = None) -> Array:
    """Ones of x's shape; of x's dtype unless another is given."""
    return full_like(x, 1, dtype)
