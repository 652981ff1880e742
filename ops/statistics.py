"""Reductions by formulas: variance, norms, and the logarithm of a sum of exponentials."""

from __future__ import annotations

import builtins
import math
from typing import Any

import numpy as np

from zoonet.ops.comparisons import equal, isfinite
from zoonet.ops.elementary import exp
from zoonet.ops.elementwise import abs, divide, multiply, pow, sign, subtract, where
from zoonet.ops.errors import ArgumentError
from zoonet.ops.kinds import real_dtype
from zoonet.ops.reductions import (
    REDUCED,
    Axis,
    accurate_sum,
    broadcast_back,
    mean,
    number_of_elements,
    reduced_shape,
    require_elements,
    require_real,
    shared_among_ties,
)
from zoonet.ops.registry import op
from zoonet.ops.samples import complexes, distinct, float_values, floats, ints, sample
from zoonet.ops.types import FLOATING, Array, Shape, TensorType, kind_of, promote

__all__ = ["logsumexp", "norm", "std", "var"]

SPREAD = [
    sample(floats(2, 3, 4)),
    sample(floats(2, 3, 4), 1, 1),
    sample(floats(2, 3, 4), (0, -1), 0.0, True),
    sample(floats(3, 4), -1, 1.5),
    sample(ints(5), None, 1),
]


def _deviation(x: Array, axis: Axis) -> Array:
    return subtract(x, mean(x, axis, True))


def _degrees_of_freedom(shape: Shape, axis: Axis, correction: float) -> float:
    return builtins.max(number_of_elements(shape, axis) - correction, 0)


def _variance(xp: Any, x: Array, axis: Axis, correction: float, keepdims: bool) -> Array:
    if kind_of(x.dtype) != FLOATING:
        x = x.astype(np.float32)
    n = number_of_elements(x.shape, axis)
    deviation = x - accurate_sum(xp, x, axis, True) / x.dtype.type(n)
    deviation *= deviation
    total = accurate_sum(xp, deviation, axis, keepdims)
    return total / x.dtype.type(builtins.max(n - correction, 0))


@op(samples=SPREAD)
def var(xp: Any, x: Array, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Array:
    """The variance over axes (all for None): Σ (x - mean)² / (n - correction). Real -> reduced shape, floating.

    correction: 0 for the population, 1 for the unbiased estimate from a sample (the default of PyTorch).
    NaN unless n exceeds the correction, as in PyTorch. Raises ShapeError for no such axis. Source: array API.
    """
    return _variance(xp, x, axis, correction, keepdims)


@var.vjp
def _(gy: Array, _y: Array, x: Array, axis: Axis, correction: float, keepdims: bool) -> Any:
    scaled = divide(multiply(gy, 2), _degrees_of_freedom(x.shape, axis, correction))
    return multiply(broadcast_back(scaled, x.shape, axis), _deviation(x, axis))


@op(samples=SPREAD)
def std(xp: Any, x: Array, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Array:
    """The square root of the variance over axes; see `var`. Its gradient is 0 where the elements are all equal.

    Source: array API `std`.
    """
    return xp.sqrt(_variance(xp, x, axis, correction, keepdims))


@std.vjp
def _(gy: Array, y: Array, x: Array, axis: Axis, correction: float, keepdims: bool) -> Any:
    constant = equal(y, 0)
    scaled = where(constant, 0, divide(gy, where(constant, 1, y)))
    scaled = divide(scaled, _degrees_of_freedom(x.shape, axis, correction))
    return multiply(broadcast_back(scaled, x.shape, axis), _deviation(x, axis))


@var.type
@std.type
def _(x: TensorType, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> TensorType:
    require_real("var or std", x)
    return TensorType(reduced_shape("var or std", x.shape, axis, keepdims), promote([x], floating=True))


@op(
    samples=[
        *REDUCED,
        sample(ints(4)),
        sample(float_values([[1000.0, 1000.0], [-1000.0, 0.0]]), 1),
    ]
)
def logsumexp(xp: Any, x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """log Σ e^x over axes (all for None), without overflow. Real -> reduced shape, floating.

    -inf where all elements are, or there are none. Raises ShapeError for no such axis.
    Source: `torch.logsumexp`.
    """
    if not number_of_elements(x.shape, axis):
        return xp.full(reduced_shape("logsumexp", x.shape, axis, keepdims), -np.inf, x.dtype)
    top = xp.max(x, axis=axis, keepdims=True)
    top = xp.where(xp.isfinite(top), top, xp.zeros_like(top))
    y = xp.log(xp.sum(xp.exp(x - top), axis=axis, keepdims=True)) + top
    return y if keepdims else xp.reshape(y, reduced_shape("logsumexp", x.shape, axis, False))


@logsumexp.type
def _(x: TensorType, axis: Axis = None, keepdims: bool = False) -> TensorType:
    require_real("logsumexp", x)
    return TensorType(reduced_shape("logsumexp", x.shape, axis, keepdims), promote([x], floating=True))


@logsumexp.vjp
def _(gy: Array, y: Array, x: Array, axis: Axis, keepdims: bool) -> Any:
    shift = broadcast_back(where(isfinite(y), y, 0), x.shape, axis)
    return multiply(broadcast_back(gy, x.shape, axis), exp(subtract(x, shift)))


@op(
    samples=[
        sample(floats(2, 3, 4)),
        sample(floats(2, 3, 4), 2, 1),
        sample(floats(2, 3, 4), 1, (0, -1), True),
        sample(distinct(3, 4), math.inf, 1),
        sample(distinct(3, 4), -math.inf, 0),
        sample(floats(3, 4), 3, 1),
        sample(floats(3, 4), 0.5, 1),
        sample(floats(3, 4), 0, 1),
        sample(complexes(3)),
    ]
)
def norm(xp: Any, x: Array, p: float = 2.0, axis: Axis = None, keepdims: bool = False) -> Array:
    """The p-norm of vectors along axes (all for None): (Σ |x|^p)^(1/p). Numbers -> reduced shape, real floating.

    p: any number; inf and -inf give the largest and the smallest |x|, 0 the count of elements that are not 0.
    The gradient at the zero vector is 0. Raises ShapeError for an axis that x does not have.
    Source: `torch.linalg.vector_norm`.
    """
    size = xp.abs(x)
    if math.isinf(p):
        return (xp.max if p > 0 else xp.min)(size, axis=axis, keepdims=keepdims)
    if p == 0:
        return xp.sum(size != 0, axis=axis, keepdims=keepdims)
    if p == 1:
        return xp.sum(size, axis=axis, keepdims=keepdims)
    if p == 2:
        return xp.sqrt(xp.sum(xp.square(size), axis=axis, keepdims=keepdims))
    return xp.power(xp.sum(xp.power(size, p), axis=axis, keepdims=keepdims), 1 / p)


@norm.type
def _(x: TensorType, p: float = 2.0, axis: Axis = None, keepdims: bool = False) -> TensorType:
    if not isinstance(p, int | float):
        raise ArgumentError("norm: p is not a number", expected="a number, inf or -inf", received=repr(p))
    if math.isinf(p):
        require_elements("norm", x, axis)
    dtype = real_dtype(promote([x], floating=True))
    return TensorType(reduced_shape("norm", x.shape, axis, keepdims), dtype)


@norm.vjp
def _(gy: Array, y: Array, x: Array, p: float, axis: Axis, keepdims: bool) -> Any:
    if p == 0:
        return None
    if math.isinf(p):
        return multiply(shared_among_ties(gy, y, abs(x), axis), sign(x))
    if p == 1:
        return multiply(broadcast_back(gy, x.shape, axis), sign(x))
    is_zero = equal(y, 0)
    divisor = where(is_zero, 1, y)
    if p == 2:
        return multiply(broadcast_back(where(is_zero, 0, divide(gy, divisor)), x.shape, axis), x)
    size = abs(x)
    powers = multiply(pow(where(equal(size, 0), 1, size), p - 1), sign(x))
    return multiply(broadcast_back(where(is_zero, 0, multiply(gy, pow(divisor, 1 - p))), x.shape, axis), powers)
