"""Arithmetic on elements: the array API's binary and unary functions on numbers, rounding, choice and casts.

Semantics follow the array API standard (2023.12) and NumPy; integers given to floating functions become float32.
Operands broadcast and are promoted (types.py). The gradient of a real number by a complex one is dL/dRe + i·dL/dIm,
as in PyTorch, so rules multiply by conjugates.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from zoonet.ops.comparisons import equal, greater, less, logical_and, logical_or
from zoonet.ops.errors import ArgumentError
from zoonet.ops.kinds import real_dtype, restrict
from zoonet.ops.registry import REGISTRY, elementwise_type, op
from zoonet.ops.samples import complexes, fixed, float_values, floats, ints, sample
from zoonet.ops.types import (
    BOOL,
    COMPLEX,
    FLOATING,
    INTEGER,
    Array,
    DType,
    Mask,
    TensorType,
    as_dtype,
    kind_of,
)

__all__ = [
    "abs",
    "add",
    "cast",
    "ceil",
    "clip",
    "divide",
    "floor",
    "floor_divide",
    "fmod",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "positive",
    "pow",
    "reciprocal",
    "remainder",
    "round",
    "rsqrt",
    "sign",
    "sqrt",
    "square",
    "subtract",
    "trunc",
    "where",
]


def conjugate(value: Any) -> Any:
    """The conjugate of an array or number for a gradient rule; real values are returned as they are."""
    if isinstance(value, complex):
        return value.conjugate()
    if hasattr(value, "dtype") and kind_of(value.dtype) == COMPLEX:
        return REGISTRY["conj"](value)
    return value


BINARY = [
    sample(floats(2, 3), floats(2, 3)),
    sample(floats(2, 1), floats(3)),
    sample(floats(3), 2.5),
    sample(floats(0, 3), floats(1, 3)),
    sample(floats(), floats(2)),
    sample(ints(3, low=-4), 2),
    sample(ints(2, 2, dtype="uint8"), floats(2)),
]
POSITIVE = {"low": 0.3, "high": 2.0}
UNARY = [sample(floats(2, 3)), sample(floats()), sample(floats(0, 2))]


# -- arithmetic --------------------------------------------------------------------------------------------------


@op(promotes="number", samples=[*BINARY, sample(complexes(2), complexes(2, 2))])
def add(xp: Any, x: Array, y: Array) -> Array:
    """x + y. Numbers of any shapes that broadcast -> the broadcast shape and promoted dtype.

    Source: array API `add`.
    """
    return xp.add(x, y)


@add.vjp
def _(gy: Array, _z: Array, _x: Array, _y: Array) -> Any:
    return gy, gy


restrict(add, BOOL, COMPLEX)


@op(promotes="number", samples=[*BINARY, sample(4, floats(2)), sample(complexes(2), complexes(2, 2))])
def subtract(xp: Any, x: Array, y: Array) -> Array:
    """x - y. Numbers (not bool) that broadcast -> the broadcast shape and promoted dtype.

    Source: array API `subtract`.
    """
    return xp.subtract(x, y)


@subtract.vjp
def _(gy: Array, _z: Array, _x: Array, _y: Array) -> Any:
    return gy, lambda: negative(gy)


restrict(subtract, INTEGER, COMPLEX)


@op(promotes="number", samples=[*BINARY, sample(complexes(2), complexes(2, 2))])
def multiply(xp: Any, x: Array, y: Array) -> Array:
    """x · y. Numbers of any shapes that broadcast -> the broadcast shape and promoted dtype.

    Source: array API `multiply`.
    """
    return xp.multiply(x, y)


@multiply.vjp
def _(gy: Array, _z: Array, x: Array, y: Array) -> Any:
    return lambda: multiply(gy, conjugate(y)), lambda: multiply(gy, conjugate(x))


restrict(multiply, BOOL, COMPLEX)


@op(
    promotes="floating",
    samples=[
        sample(floats(2, 3), floats(2, 3, **POSITIVE)),
        sample(floats(2, 1), floats(3, **POSITIVE)),
        sample(floats(3), -2.5),
        sample(2, floats(3, **POSITIVE)),
        sample(ints(3), ints(3, low=1)),
        sample(complexes(2), complexes(2, 2)),
    ],
)
def divide(xp: Any, x: Array, y: Array) -> Array:
    """x / y. Numbers that broadcast -> the broadcast shape and promoted dtype; integers give float32.

    Source: array API `divide`.
    """
    return xp.divide(x, y)


@divide.vjp
def _(gy: Array, z: Array, _x: Array, y: Array) -> Any:
    def gradient_by_y() -> Array:
        return negative(divide(multiply(gy, conjugate(z)), conjugate(y)))

    return lambda: divide(gy, conjugate(y)), gradient_by_y


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


@op(promotes="number", samples=[*UNARY, sample(ints(3)), sample(complexes(2))])
def negative(xp: Any, x: Array) -> Array:
    """-x. Numbers (not bool) -> same shape and dtype. Source: array API `negative`."""
    return xp.negative(x)


@negative.vjp
def _(gy: Array, _y: Array, _x: Array) -> Any:
    return negative(gy)


restrict(negative, INTEGER, COMPLEX)


@op(promotes="number", exact=True, view=True, samples=[*UNARY, sample(ints(3))])
def positive(xp: Any, x: Array) -> Array:
    """x itself. Numbers -> same shape and dtype. Source: array API `positive`."""
    return x


@positive.vjp
def _(gy: Array, _y: Array, _x: Array) -> Any:
    return gy


restrict(positive, BOOL, COMPLEX)


@op(promotes="number", samples=[*UNARY, sample(ints(4, low=-3)), sample(complexes(3))])
def abs(xp: Any, x: Array) -> Array:
    """|x|. Numbers -> same shape and dtype; complex -> the dtype of its parts. The slope at 0 is 0.

    Source: array API `abs`.
    """
    return xp.abs(x)


@abs.type
def _(x: Any) -> TensorType:
    inferred = elementwise_type(abs, {"x": x})
    return TensorType(inferred.shape, real_dtype(inferred.dtype))


@abs.vjp
def _(gy: Array, _y: Array, x: Array) -> Any:
    return multiply(gy, sign(x))


@op(promotes="number", differentiable=False, samples=[*UNARY, sample(ints(4, low=-3)), sample(complexes(3))])
def sign(xp: Any, x: Array) -> Array:
    """-1, 0 or 1 by the sign of x; x / |x| if complex; NaN stays. Numbers (not bool) -> same shape and dtype.

    Source: array API `sign`.
    """
    if kind_of(x.dtype) == COMPLEX:  # CuPy orders complex numbers here where the standard divides
        size = xp.abs(x)
        return xp.divide(x, xp.where(size == 0, xp.ones_like(size), size))
    return xp.sign(x)


restrict(sign, INTEGER, COMPLEX)


@op(promotes="number", samples=[*UNARY, sample(ints(3)), sample(complexes(2))])
def square(xp: Any, x: Array) -> Array:
    """x². Numbers (not bool) -> same shape and dtype. Source: array API `square`."""
    return xp.square(x)


@square.vjp
def _(gy: Array, _y: Array, x: Array) -> Any:
    return multiply(multiply(gy, conjugate(x)), 2)


restrict(square, INTEGER, COMPLEX)


@op(
    promotes="floating",
    samples=[sample(floats(2, 3, **POSITIVE)), sample(ints(3, low=1)), sample(complexes(2))],
)
def sqrt(xp: Any, x: Array) -> Array:
    """√x, NaN below 0. Numbers -> same shape, floating or complex. Source: array API `sqrt`."""
    return xp.sqrt(x)


@sqrt.vjp
def _(gy: Array, y: Array, _x: Array) -> Any:
    return divide(multiply(gy, 0.5), conjugate(y))


@op(
    promotes="floating",
    samples=[sample(floats(2, 3, **POSITIVE)), sample(ints(3, low=1)), sample(complexes(2))],
)
def rsqrt(xp: Any, x: Array) -> Array:
    """1 / √x. Numbers -> same shape, floating or complex. Source: `torch.rsqrt`."""
    return xp.divide(1, xp.sqrt(x))


@rsqrt.vjp
def _(gy: Array, y: Array, _x: Array) -> Any:
    return multiply(multiply(gy, -0.5), pow(conjugate(y), 3))


@op(
    promotes="floating",
    samples=[sample(floats(2, 3, **POSITIVE)), sample(ints(3, low=1)), sample(complexes(2))],
)
def reciprocal(xp: Any, x: Array) -> Array:
    """1 / x. Numbers -> same shape, floating or complex. Source: array API `reciprocal`."""
    return xp.divide(1, x)


@reciprocal.vjp
def _(gy: Array, y: Array, _x: Array) -> Any:
    return negative(multiply(gy, square(conjugate(y))))


@op(
    promotes="number",
    samples=[
        sample(floats(2, 3, **POSITIVE), floats(2, 3)),
        sample(floats(2, 1, **POSITIVE), floats(3)),
        sample(floats(2, 3), 2),
        sample(floats(2, 3), 3),
        sample(floats(2, 3, **POSITIVE), -1.5),
        sample(2.0, floats(3)),
        sample(floats(3), ints(3)),
        sample(ints(3), ints(3)),
        sample(complexes(2), 2),
        sample(complexes(2), complexes(2)),
    ],
)
def pow(xp: Any, x: Array, y: Array) -> Array:
    """x to the power y. Numbers (not bool) that broadcast -> the broadcast shape and promoted dtype.

    Raises ArgumentError for integers to a negative integer power. Source: array API `pow`.
    """
    if xp is np and y.ndim == 0 and y in (2, 3):  # NumPy computes any power by logarithms, 20 times slower
        return xp.square(x) if y == 2 else x * x * x
    if y.dtype.kind == "i" and bool((y < 0).any()):
        raise ArgumentError(
            "pow: integers have no negative powers",
            received="a negative exponent",
            fix="cast x to a floating dtype",
        )
    return xp.power(x, y)


@pow.vjp
def _(gy: Array, z: Array, x: Array, y: Array) -> Any:
    def gradient_by_x() -> Array:
        if isinstance(y, int | float | complex):
            slope = multiply(pow(x, y - 1), y) if y else 0.0
        else:  # a power of 0 is constant, also at x = 0 where its derivative's formula is 0 · ∞
            lowered = where(equal(y, 0), 0, subtract(y, 1))
            slope = multiply(pow(x, lowered), y)
        return multiply(gy, conjugate(slope))

    def gradient_by_y() -> Array:
        logarithm = REGISTRY["log"](where(equal(x, 0), 1, x))
        return multiply(gy, conjugate(multiply(z, logarithm)))

    return gradient_by_x, gradient_by_y


restrict(pow, INTEGER, COMPLEX)


# -- choice ------------------------------------------------------------------------------------------------------


@op(promotes="number", samples=BINARY)
def maximum(xp: Any, x: Array, y: Array) -> Array:
    """The larger of x and y, NaN if one is. Real numbers that broadcast -> the promoted dtype.

    Equal operands share the gradient evenly, as in PyTorch.
    """
    return xp.maximum(x, y)


@maximum.vjp
def _(gy: Array, _z: Array, x: Array, y: Array) -> Any:
    return lambda: _chosen(gy, y, x), lambda: _chosen(gy, x, y)


restrict(maximum, BOOL, FLOATING)


@op(promotes="number", samples=BINARY)
def minimum(xp: Any, x: Array, y: Array) -> Array:
    """The smaller of x and y, NaN if one is. Real numbers that broadcast -> the promoted dtype.

    Equal operands share the gradient evenly, as in PyTorch.
    """
    return xp.minimum(x, y)


@minimum.vjp
def _(gy: Array, _z: Array, x: Array, y: Array) -> Any:
    return lambda: _chosen(gy, x, y), lambda: _chosen(gy, y, x)


restrict(minimum, BOOL, FLOATING)


def _chosen(gy: Array, smaller: Array, larger: Array) -> Array:
    """gy where smaller < larger, half of it where they are equal, 0 elsewhere; NaN passes it."""
    return where(equal(smaller, larger), multiply(gy, 0.5), where(greater(smaller, larger), 0, gy))


@op(
    promotes="number",
    samples=[
        sample(floats(2, 3), -0.5, 0.7),
        sample(floats(2, 3), None, 0.3),
        sample(floats(2, 3), 0.3),
        sample(floats(2, 3)),
        sample(floats(2, 3), floats(3, low=-2.0, high=-1.0), floats(2, 1, low=-0.5, high=1.0)),
        sample(floats(4), 1.0, -1.0),
        sample(ints(5), 1, 3),
    ],
)
def clip(xp: Any, x: Array, min: Array | None = None, max: Array | None = None) -> Array:
    """x limited to [min, max]; max wins where min > max. Real numbers that broadcast -> the promoted dtype.

    A bound that is None does not limit. The gradient passes where min <= x <= max. Source: `torch.clamp`.
    """
    if min is not None:
        x = xp.maximum(x, min)
    if max is not None:
        x = xp.minimum(x, max)
    return xp.array(x) if min is None and max is None else x


@clip.vjp
def _(gy: Array, _y: Array, x: Array, min: Array, max: Array) -> Any:
    def gradient_by_x() -> Array:
        passed = gy if min is None else where(less(x, min), 0, gy)
        return passed if max is None else where(greater(x, max), 0, passed)

    def gradient_by_min() -> Array:
        limited = less(x, min)
        return where(limited if max is None else logical_and(limited, less(min, max)), gy, 0)

    def gradient_by_max() -> Array:
        limited = greater(x, max)
        return where(limited if min is None else logical_or(limited, less(max, min)), gy, 0)

    return gradient_by_x, gradient_by_min, gradient_by_max


restrict(clip, BOOL, FLOATING)


@op(
    promotes="number",
    samples=[
        sample(fixed([[True, False, True]], "bool"), floats(2, 3), floats(2, 1)),
        sample(fixed([True, False], "bool"), floats(2), 0),
        sample(fixed([[True], [False]], "bool"), 1.5, floats(3)),
        sample(fixed([True, False], "bool"), ints(2), ints(2, dtype="int32")),
        sample(fixed([0, 2], "int64"), floats(2), floats(2)),
        sample(fixed([True, False], "bool"), complexes(2), complexes(2)),
    ],
)
def where(xp: Any, condition: Mask, x: Array, y: Array) -> Array:
    """x where the condition holds (numbers: where not 0), y elsewhere.

    Any shapes that broadcast -> the broadcast shape, promoted dtype of x and y. Source: array API `where`.
    """
    return xp.where(xp.asarray(condition, dtype=bool), x, y)


@where.vjp
def _(gy: Array, _z: Array, condition: Array, _x: Array, _y: Array) -> Any:
    return None, lambda: where(condition, gy, 0), lambda: where(condition, 0, gy)


# -- rounding ----------------------------------------------------------------------------------------------------


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


# -- casts --------------------------------------------------------------------------------------------------------


@op(
    exact=True,
    view=True,
    samples=[sample(floats(2, 3), "float64"), sample(ints(3), "float32"), sample(ints(3), "int8")],
)
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
