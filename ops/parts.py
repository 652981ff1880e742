"""Parts of numbers: sign bits, neighbours, lengths, real and imaginary parts, by the names of the array API."""

from __future__ import annotations

from typing import Any

from zoonet.ops.elementwise import POSITIVE, UNARY, divide, multiply, sign
from zoonet.ops.kinds import real_dtype, restrict
from zoonet.ops.registry import elementwise_type, op
from zoonet.ops.samples import complexes, float_values, floats, ints, sample
from zoonet.ops.types import BOOL, COMPLEX, FLOATING, INTEGER, Array, TensorType, bool_, kind_of

__all__ = ["conj", "copysign", "hypot", "imag", "nextafter", "real", "signbit"]


@op(
    promotes="floating",
    samples=[
        sample(floats(2, 3, **POSITIVE), floats(2, 3)),
        sample(floats(2, 1), floats(3)),
        sample(ints(2), 3),
    ],
)
def hypot(xp: Any, x: Array, y: Array) -> Array:
    """√(x² + y²) without overflow. Real numbers that broadcast -> the broadcast shape, floating.

    Source: array API `hypot`.
    """
    return xp.hypot(x, y)


@hypot.vjp
def _(gy: Array, z: Array, x: Array, y: Array) -> Any:
    return lambda: multiply(gy, divide(x, z)), lambda: multiply(gy, divide(y, z))


restrict(hypot, BOOL, FLOATING)


@op(
    promotes="floating",
    samples=[sample(floats(2, 3), floats(2, 3)), sample(floats(2, 1), floats(3)), sample(floats(3), -0.0)],
)
def copysign(xp: Any, x: Array, y: Array) -> Array:
    """|x| with the sign of y, that of -0 being negative. Real numbers that broadcast -> floating.

    Source: array API `copysign`.
    """
    return xp.copysign(x, y)


@copysign.vjp
def _(gy: Array, _z: Array, x: Array, y: Array) -> Any:
    return lambda: multiply(gy, multiply(sign(x), copysign(1.0, y))), None


restrict(copysign, BOOL, FLOATING)


@op(
    promotes="floating",
    exact=True,
    differentiable=False,
    samples=[sample(floats(2, 3), floats(3)), sample(floats(2), 0.0)],
)
def nextafter(xp: Any, x: Array, y: Array) -> Array:
    """The number of the promoted dtype next to x towards y. Real numbers that broadcast -> floating.

    Source: array API `nextafter`.
    """
    return xp.nextafter(x, y)


restrict(nextafter, BOOL, FLOATING)


@op(
    promotes="number",
    differentiable=False,
    samples=[*UNARY, sample(float_values([0.0, -0.0])), sample(ints(3, low=-2))],
)
def signbit(xp: Any, x: Array) -> Array:
    """True where the sign bit is set: below 0, and at -0. Real numbers (not bool) -> bool.

    Source: array API `signbit`.
    """
    return xp.signbit(x) if x.dtype.kind == "f" else x < 0


restrict(signbit, INTEGER, FLOATING, bool_)


@op(promotes="number", samples=[*UNARY, sample(complexes(2, 2))])
def conj(xp: Any, x: Array) -> Array:
    """The complex conjugate; real numbers stay. Numbers -> same shape and dtype. Source: array API `conj`."""
    return xp.conj(x)


@conj.vjp
def _(gy: Array, _y: Array, _x: Array) -> Any:
    return conj(gy)


restrict(conj, INTEGER, COMPLEX)


@op(promotes="number", exact=True, view=True, samples=[*UNARY, sample(complexes(2, 2))])
def real(xp: Any, x: Array) -> Array:
    """The real part. Numbers -> same shape; complex -> the dtype of its parts. Source: array API `real`."""
    return x.real if kind_of(x.dtype) == COMPLEX else x


@op(promotes="number", exact=True, view=True, samples=[*UNARY, sample(complexes(2, 2))])
def imag(xp: Any, x: Array) -> Array:
    """The imaginary part, 0 for real numbers. Numbers -> same shape; complex -> the dtype of its parts.

    Source: array API `imag`.
    """
    return x.imag if kind_of(x.dtype) == COMPLEX else xp.zeros_like(x)


@real.type
@imag.type
def _(x: Any) -> TensorType:
    inferred = elementwise_type(real, {"x": x})
    return TensorType(inferred.shape, real_dtype(inferred.dtype))


@real.vjp
def _(gy: Array, _y: Array, _x: Array) -> Any:
    return gy


@imag.vjp
def _(gy: Array, _y: Array, _x: TensorType) -> Any:
    return multiply(gy, 1j) if kind_of(_x.dtype) == COMPLEX else None
