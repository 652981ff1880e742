"""Elementary and special functions of elements: exponentials, logarithms, trigonometry, error and gamma functions.

Operands are floating or complex (integers become float32), results have the same shape and promoted dtype.
"""

from __future__ import annotations

from typing import Any

from zoonet.ops.elementwise import (
    conjugate,
    divide,
    multiply,
    square,
    subtract,
)
from zoonet.ops.registry import op
from zoonet.ops.samples import complexes, floats, ints, sample
from zoonet.ops.types import Array

__all__ = ["exp", "log", "tanh"]

REAL = [sample(floats(2, 3)), sample(floats()), sample(floats(0, 2)), sample(ints(3))]
POSITIVE = [sample(floats(2, 3, low=0.3)), sample(floats(low=0.3)), sample(ints(3, low=1))]
COMPLEX_NUMBERS = sample(complexes(3))


@op(promotes="floating", samples=[*REAL, COMPLEX_NUMBERS])
def exp(xp: Any, x: Array) -> Array:
    """e to the power x."""
    return xp.exp(x)


@exp.vjp
def _(gy: Array, y: Array, _x: Array) -> Any:
    return multiply(gy, conjugate(y))


@op(promotes="floating", samples=[*POSITIVE, COMPLEX_NUMBERS])
def log(xp: Any, x: Array) -> Array:
    """The natural logarithm; -inf at 0, NaN below."""
    return xp.log(x)


@log.vjp
def _(gy: Array, _y: Array, x: Array) -> Any:
    return divide(gy, conjugate(x))


@op(promotes="floating", samples=[*REAL, COMPLEX_NUMBERS])
def tanh(xp: Any, x: Array) -> Array:
    """The hyperbolic tangent."""
    return xp.tanh(x)


@tanh.vjp
def _(gy: Array, y: Array, _x: Array) -> Any:
    return multiply(gy, subtract(1, square(conjugate(y))))
