"""Rounding, and division with a rounded quotient, by the names of the array API."""

from __future__ import annotations

from typing import Any

from zoonet.ops.elementwise import divide, multiply, negative
from zoonet.ops.kinds import restrict
from zoonet.ops.registry import op
from zoonet.ops.samples import fixed, float_values, floats, ints, sample
from zoonet.ops.types import FLOATING, INTEGER, Array

__all__ = ["ceil", "floor", "floor_divide", "fmod", "remainder", "round", "trunc"]


ROUNDED = [
    sample(floats(2, 3)),
    sample(floats()),
    sample(ints(3)),
    sample(float_values([0.5, 1.5, -2.5, -0.3])),
]


@op(promotes="number", differentiable=False, samples=ROUNDED)
def ceil(xp: Any, x: Array) -> Array:
    """The smallest whole number not below x. Real numbers -> same shape and dtype. Has no gradient.

    Source: array API `ceil`.
    """
    return xp.ceil(x) if x.dtype.kind == "f" else x.copy()


@op(promotes="number", differentiable=False, samples=ROUNDED)
def floor(xp: Any, x: Array) -> Array:
    """The largest whole number not above x. Real numbers -> same shape and dtype. Has no gradient.

    Source: array API `floor`.
    """
    return xp.floor(x) if x.dtype.kind == "f" else x.copy()


@op(promotes="number", differentiable=False, samples=ROUNDED)
def trunc(xp: Any, x: Array) -> Array:
    """x rounded towards 0. Real numbers -> same shape and dtype. Has no gradient. Source: array API `trunc`."""
    return xp.trunc(x) if x.dtype.kind == "f" else x.copy()


@op(promotes="number", differentiable=False, samples=ROUNDED)
def round(xp: Any, x: Array) -> Array:
    """x rounded to the nearest whole number, halves to the even one. Real numbers -> same. Has no gradient.

    Source: array API `round`.
    """
    return xp.rint(x) if x.dtype.kind == "f" else x.copy()


for _rounding in (ceil, floor, trunc, round):
    restrict(_rounding, INTEGER, FLOATING)


DIVISION = [
    sample(floats(2, 3), floats(2, 3, low=0.4)),
    sample(floats(2, 1), floats(3, low=-2.0, high=-0.4)),
    sample(floats(3), 0.7),
    sample(fixed([7, -7, 7, -7, 6], "int32"), fixed([3, 3, -3, -3, 3], "int32")),
    sample(ints(2, 2, dtype="uint8"), 2),
]


@op(promotes="number", differentiable=False, samples=DIVISION)
def floor_divide(xp: Any, x: Array, y: Array) -> Array:
    """⌊x / y⌋. Real numbers (not bool) that broadcast -> the promoted dtype. Has no gradient.

    Integers divided by 0 give 0. Source: array API `floor_divide`.
    """
    return xp.floor_divide(x, y)


restrict(floor_divide, INTEGER, FLOATING)


@op(promotes="number", samples=DIVISION)
def remainder(xp: Any, x: Array, y: Array) -> Array:
    """x - y·⌊x / y⌋, with the sign of y. Real numbers (not bool) that broadcast -> the promoted dtype.

    Integers by 0 give 0. Source: array API `remainder`.
    """
    return xp.remainder(x, y)


@remainder.vjp
def _(gy: Array, _z: Array, x: Array, y: Array) -> Any:
    return gy, lambda: negative(multiply(gy, floor_divide(x, y)))


restrict(remainder, INTEGER, FLOATING)


@op(promotes="number", samples=DIVISION)
def fmod(xp: Any, x: Array, y: Array) -> Array:
    """x - y·trunc(x / y), with the sign of x. Real numbers (not bool) that broadcast -> the promoted dtype.

    Source: C's `fmod`.
    """
    return xp.fmod(x, y)


@fmod.vjp
def _(gy: Array, _z: Array, x: Array, y: Array) -> Any:
    return gy, lambda: negative(multiply(gy, trunc(divide(x, y))))


restrict(fmod, INTEGER, FLOATING)
