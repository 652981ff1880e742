"""Elementary and special functions of elements: exponentials, logarithms, trigonometry and the error function.

Operands are floating or complex (integers become float32), results have the same shape and the promoted dtype.
Semantics follow the array API standard (2023.12).
"""

from __future__ import annotations

import math
from typing import Any

from zoonet.ops.blocks import blockwise
from zoonet.ops.elementwise import (
    add,
    conjugate,
    divide,
    multiply,
    negative,
    rsqrt,
    square,
    subtract,
)
from zoonet.ops.error_function import write_erf, write_erfc
from zoonet.ops.kinds import restrict
from zoonet.ops.registry import op
from zoonet.ops.samples import complexes, float_values, floats, ints, sample
from zoonet.ops.types import BOOL, FLOATING, Array

__all__ = [
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "cos",
    "cosh",
    "erf",
    "erfc",
    "exp",
    "expm1",
    "log",
    "log1p",
    "log2",
    "log10",
    "logaddexp",
    "sin",
    "sinh",
    "tan",
    "tanh",
]

COMPLEX_NUMBERS = sample(complexes(3))
REAL = [sample(floats(2, 3)), sample(floats()), sample(floats(0, 2)), sample(ints(3)), COMPLEX_NUMBERS]
POSITIVE = [sample(floats(2, 3, low=0.3)), sample(floats(low=0.3)), sample(ints(3, low=1)), COMPLEX_NUMBERS]
INSIDE = [sample(floats(2, 3, low=-0.9, high=0.9)), sample(ints(2, high=1)), COMPLEX_NUMBERS]
ABOVE_ONE = [sample(floats(2, 3, low=1.2, high=3.0)), sample(ints(2, low=1)), COMPLEX_NUMBERS]


# -- exponentials and logarithms ---------------------------------------------------------------------------------


@op(promotes="floating", samples=REAL)
def exp(xp: Any, x: Array) -> Array:
    """e to the power x. Any shape, floating or complex -> same. Source: array API `exp`."""
    return xp.exp(x)


@exp.vjp
def _(gy: Array, y: Array, _x: Array) -> Any:
    return multiply(gy, conjugate(y))


@op(promotes="floating", samples=[*REAL, sample(float_values([1e-6, -1e-6]))])
def expm1(xp: Any, x: Array) -> Array:
    """e^x - 1, exact near 0. Any shape, floating or complex -> same. Source: array API `expm1`."""
    return xp.expm1(x)


@expm1.vjp
def _(gy: Array, y: Array, _x: Array) -> Any:
    return multiply(gy, conjugate(add(y, 1)))


@op(promotes="floating", samples=POSITIVE)
def log(xp: Any, x: Array) -> Array:
    """The natural logarithm; -inf at 0, NaN below. Any shape, floating or complex -> same. Source: array API `log`."""
    return xp.log(x)


@log.vjp
def _(gy: Array, _y: Array, x: Array) -> Any:
    return divide(gy, conjugate(x))


@op(promotes="floating", samples=[*POSITIVE, sample(float_values([1e-6, -1e-6, -0.5]))])
def log1p(xp: Any, x: Array) -> Array:
    """log(1 + x), exact near 0. Any shape, floating or complex -> same. Source: array API `log1p`."""
    return xp.log1p(x)


@log1p.vjp
def _(gy: Array, _y: Array, x: Array) -> Any:
    return divide(gy, conjugate(add(x, 1)))


@op(promotes="floating", samples=POSITIVE)
def log2(xp: Any, x: Array) -> Array:
    """The logarithm to base 2. Any shape, floating or complex -> same. Source: array API `log2`."""
    return xp.log2(x)


@log2.vjp
def _(gy: Array, _y: Array, x: Array) -> Any:
    return divide(gy, multiply(conjugate(x), math.log(2)))


@op(promotes="floating", samples=POSITIVE)
def log10(xp: Any, x: Array) -> Array:
    """The logarithm to base 10. Any shape, floating or complex -> same. Source: array API `log10`."""
    return xp.log10(x)


@log10.vjp
def _(gy: Array, _y: Array, x: Array) -> Any:
    return divide(gy, multiply(conjugate(x), math.log(10)))


@op(
    promotes="floating",
    samples=[sample(floats(2, 3), floats(3)), sample(floats(2, 1), floats(3)), sample(floats(2), 1.5)],
)
def logaddexp(xp: Any, x: Array, y: Array) -> Array:
    """log(e^x + e^y) without overflow. Real numbers that broadcast -> the broadcast shape, floating.

    Source: array API `logaddexp`.
    """
    return xp.logaddexp(x, y)


@logaddexp.vjp
def _(gy: Array, z: Array, x: Array, y: Array) -> Any:
    return lambda: multiply(gy, exp(subtract(x, z))), lambda: multiply(gy, exp(subtract(y, z)))


restrict(logaddexp, BOOL, FLOATING)


# -- trigonometry ------------------------------------------------------------------------------------------------


@op(promotes="floating", samples=REAL)
def sin(xp: Any, x: Array) -> Array:
    """The sine of x in radians. Any shape, floating or complex -> same. Source: array API `sin`."""
    return xp.sin(x)


@sin.vjp
def _(gy: Array, _y: Array, x: Array) -> Any:
    return multiply(gy, conjugate(cos(x)))


@op(promotes="floating", samples=REAL)
def cos(xp: Any, x: Array) -> Array:
    """The cosine of x in radians. Any shape, floating or complex -> same. Source: array API `cos`."""
    return xp.cos(x)


@cos.vjp
def _(gy: Array, _y: Array, x: Array) -> Any:
    return negative(multiply(gy, conjugate(sin(x))))


@op(
    promotes="floating",
    samples=[sample(floats(2, 3, low=-1.2, high=1.2)), sample(ints(2, high=2)), COMPLEX_NUMBERS],
)
def tan(xp: Any, x: Array) -> Array:
    """The tangent of x in radians. Any shape, floating or complex -> same. Source: array API `tan`."""
    return xp.tan(x)


@tan.vjp
def _(gy: Array, y: Array, _x: Array) -> Any:
    return multiply(gy, conjugate(add(square(y), 1)))


@op(promotes="floating", samples=INSIDE)
def asin(xp: Any, x: Array) -> Array:
    """The angle in radians whose sine is x; NaN outside [-1, 1]. Any shape, floating or complex -> same.

    Source: array API `asin`.
    """
    return xp.arcsin(x)


@asin.vjp
def _(gy: Array, _y: Array, x: Array) -> Any:
    return multiply(gy, conjugate(rsqrt(subtract(1, square(x)))))


@op(promotes="floating", samples=INSIDE)
def acos(xp: Any, x: Array) -> Array:
    """The angle in radians whose cosine is x; NaN outside [-1, 1]. Any shape, floating or complex -> same.

    Source: array API `acos`.
    """
    return xp.arccos(x)


@acos.vjp
def _(gy: Array, _y: Array, x: Array) -> Any:
    return negative(multiply(gy, conjugate(rsqrt(subtract(1, square(x))))))


@op(promotes="floating", samples=REAL)
def atan(xp: Any, x: Array) -> Array:
    """The angle in radians whose tangent is x. Any shape, floating or complex -> same. Source: array API `atan`."""
    return xp.arctan(x)


@atan.vjp
def _(gy: Array, _y: Array, x: Array) -> Any:
    return divide(gy, conjugate(add(square(x), 1)))


@op(
    promotes="floating",
    samples=[sample(floats(2, 3), floats(3)), sample(floats(2, 1), floats(3)), sample(floats(2), 1.0)],
)
def atan2(xp: Any, y: Array, x: Array) -> Array:
    """The angle in radians of the point (x, y) by quadrant. Real numbers that broadcast -> floating.

    Source: array API `atan2`.
    """
    return xp.arctan2(y, x)


@atan2.vjp
def _(gy: Array, _z: Array, y: Array, x: Array) -> Any:
    def scaled() -> Array:
        return divide(gy, add(square(x), square(y)))

    return lambda: multiply(scaled(), x), lambda: negative(multiply(scaled(), y))


restrict(atan2, BOOL, FLOATING)


@op(promotes="floating", samples=REAL)
def sinh(xp: Any, x: Array) -> Array:
    """The hyperbolic sine. Any shape, floating or complex -> same. Source: array API `sinh`."""
    return xp.sinh(x)


@sinh.vjp
def _(gy: Array, _y: Array, x: Array) -> Any:
    return multiply(gy, conjugate(cosh(x)))


@op(promotes="floating", samples=REAL)
def cosh(xp: Any, x: Array) -> Array:
    """The hyperbolic cosine. Any shape, floating or complex -> same. Source: array API `cosh`."""
    return xp.cosh(x)


@cosh.vjp
def _(gy: Array, _y: Array, x: Array) -> Any:
    return multiply(gy, conjugate(sinh(x)))


@op(promotes="floating", samples=REAL)
def tanh(xp: Any, x: Array) -> Array:
    """The hyperbolic tangent. Any shape, floating or complex -> same. Source: array API `tanh`."""
    return xp.tanh(x)


@tanh.vjp
def _(gy: Array, y: Array, _x: Array) -> Any:
    return multiply(gy, subtract(1, square(conjugate(y))))


@op(promotes="floating", samples=REAL)
def asinh(xp: Any, x: Array) -> Array:
    """The inverse hyperbolic sine. Any shape, floating or complex -> same. Source: array API `asinh`."""
    return xp.arcsinh(x)


@asinh.vjp
def _(gy: Array, _y: Array, x: Array) -> Any:
    return multiply(gy, conjugate(rsqrt(add(square(x), 1))))


@op(promotes="floating", samples=ABOVE_ONE)
def acosh(xp: Any, x: Array) -> Array:
    """The inverse hyperbolic cosine; NaN below 1. Any shape, floating or complex -> same. Source: array API `acosh`."""
    return xp.arccosh(x)


@acosh.vjp
def _(gy: Array, _y: Array, x: Array) -> Any:
    return multiply(gy, conjugate(multiply(rsqrt(subtract(x, 1)), rsqrt(add(x, 1)))))


@op(promotes="floating", samples=INSIDE)
def atanh(xp: Any, x: Array) -> Array:
    """The inverse hyperbolic tangent; NaN outside [-1, 1]. Any shape, floating or complex -> same.

    Source: array API `atanh`.
    """
    return xp.arctanh(x)


@atanh.vjp
def _(gy: Array, _y: Array, x: Array) -> Any:
    return divide(gy, conjugate(subtract(1, square(x))))


# -- the error function ------------------------------------------------------------------------------------------


ERROR = [
    sample(floats(2, 3)),
    sample(floats()),
    sample(floats(0, 2)),
    sample(ints(3)),
    sample(float_values([0.0, 1e-9, -0.4, 0.47, 1.0, -2.5, 3.99, 4.01, 6.0, -6.0, 9.0])),
]


@op(promotes="floating", samples=ERROR)
def erf(xp: Any, x: Array) -> Array:
    """The error function, 2/√π ∫₀ˣ exp(-t²) dt. Any shape, real floating -> same. Source: error_function.py."""
    return blockwise(xp, lambda block, out: write_erf(xp, block, out), x)


@erf.vjp
def _(gy: Array, _y: Array, x: Array) -> Any:
    return multiply(gy, multiply(exp(negative(square(x))), 2 / math.sqrt(math.pi)))


@op(promotes="floating", samples=ERROR)
def erfc(xp: Any, x: Array) -> Array:
    """1 - erf(x), to full relative accuracy for large x. Any shape, real floating -> same. Source: `torch.erfc`."""
    return blockwise(xp, lambda block, out: write_erfc(xp, block, out), x)


@erfc.vjp
def _(gy: Array, _y: Array, x: Array) -> Any:
    return multiply(gy, multiply(exp(negative(square(x))), -2 / math.sqrt(math.pi)))


for _special in (erf, erfc):
    restrict(_special, BOOL, FLOATING)
