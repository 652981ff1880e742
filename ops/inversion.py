"""Square matrices: determinants and inverses."""

from __future__ import annotations

from typing import Any

from zoonet.ops.elementwise import multiply, negative
from zoonet.ops.errors import DTypeError, ShapeError
from zoonet.ops.linear import matmul
from zoonet.ops.registry import op
from zoonet.ops.samples import fixed, floats, sample
from zoonet.ops.shapes import expand_dims, swapaxes
from zoonet.ops.types import Array, TensorType, is_floating

__all__ = ["det", "inv"]

_SQUARE = [
    sample(fixed([[3.0, 1.0, 0.5], [-1.0, 2.5, 0.25], [0.5, -0.5, 4.0]], "float64")),
    sample(fixed([[[2.0, 0.5], [1.0, 1.5]], [[0.5, -2.0], [1.0, 1.0]]], "float64")),
]


def _check(name: str, x: TensorType) -> None:
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ShapeError(f"{name} takes square matrices", expected="shape (..., n, n)", received=list(x.shape))
    if not is_floating(x.dtype):
        raise DTypeError(f"{name} takes floating numbers", received=x.dtype.name)


@op(samples=[*_SQUARE, sample(floats(0, 2, 2))])
def det(xp: Any, x: Array) -> Array:
    """The determinant. x: (..., n, n), floating -> (...). Raises ShapeError or DTypeError. Source: torch.linalg.det."""
    return xp.linalg.det(x)


@det.type
def _(x: TensorType) -> TensorType:
    _check("det", x)
    return TensorType(x.shape[:-2], x.dtype)


@det.vjp
def _(gy: Array, y: Array, x: Array) -> Array:
    return multiply(expand_dims(multiply(gy, y), (-2, -1)), swapaxes(inv(x), -1, -2))


@op(samples=[*_SQUARE, sample(floats(0, 2, 2))])
def inv(xp: Any, x: Array) -> Array:
    """The inverse. x: (..., n, n), floating -> same. Source: torch.linalg.inv.

    Raises ShapeError for other shapes and for a matrix that has no inverse, DTypeError.
    """
    return xp.linalg.inv(x)


@inv.type
def _(x: TensorType) -> TensorType:
    _check("inv", x)
    return x


@inv.vjp
def _(gy: Array, y: Array, _x: TensorType) -> Array:
    turned = swapaxes(y, -1, -2)
    return negative(matmul(matmul(turned, gy), turned))
