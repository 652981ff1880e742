"""The error function over an array module.

float64, and erfc: W. J. Cody, "Rational Chebyshev approximations for the error function", Mathematics of Computation
23 (1969), 631-637, three ranges of |x|; relative error below 1e-15. erf in float32: one odd rational function
with the coefficients that Eigen and XLA use, limited to ±1; error below 5e-7, and exactly ±1 beyond ±4.1.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from zoonet.ops.types import Array

# Coefficients from the highest power down; denominators without their leading 1.
_SMALL_NUMERATOR = (
    1.85777706184603153e-1,
    3.16112374387056560e0,
    1.13864154151050156e2,
    3.77485237685302021e2,
    3.20937758913846947e3,
)
_SMALL_DENOMINATOR = (
    1.0,
    2.36012909523441209e1,
    2.44024637934444173e2,
    1.28261652607737228e3,
    2.84423683343917062e3,
)
_MIDDLE_NUMERATOR = (
    2.15311535474403846e-8,
    5.64188496988670089e-1,
    8.88314979438837594e0,
    6.61191906371416295e1,
    2.98635138197400131e2,
    8.81952221241769090e2,
    1.71204761263407058e3,
    2.05107837782607147e3,
    1.23033935479799725e3,
)
_MIDDLE_DENOMINATOR = (
    1.0,
    1.57449261107098347e1,
    1.17693950891312499e2,
    5.37181101862009858e2,
    1.62138957456669019e3,
    3.29079923573345963e3,
    4.36261909014324716e3,
    3.43936767414372164e3,
    1.23033935480374942e3,
)
_LARGE_NUMERATOR = (
    1.63153871373020978e-2,
    3.05326634961232344e-1,
    3.60344899949804439e-1,
    1.25781726111229246e-1,
    1.60837851487422766e-2,
    6.58749161529837803e-4,
)
_LARGE_DENOMINATOR = (
    1.0,
    2.56852019228982242e0,
    1.87295284992346047e0,
    5.27905102951428412e-1,
    6.05183413124413191e-2,
    2.33520497626869185e-3,
)
_SINGLE_NUMERATOR = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
_SINGLE_DENOMINATOR = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)
_SMALL, _LARGE = 0.46875, 4.0
#: Where the ratio times x exceeds 1 by more than its error, so that limiting it to 1 gives exactly 1 from here on.
_SINGLE_LIMIT = 4.1


def _polynomial(xp: Any, x: Array, coefficients: tuple[float, ...]) -> Array:
    result = x * coefficients[0]
    for coefficient in coefficients[1:-1]:
        result += coefficient
        result *= x
    result += coefficients[-1]
    return result


def _ratio(xp: Any, x: Array, numerator: tuple[float, ...], denominator: tuple[float, ...]) -> Array:
    result = _polynomial(xp, x, numerator)
    result /= _polynomial(xp, x, denominator)
    return result


def _complement(xp: Any, size: Array) -> Array:
    """erfc of numbers of at least 0.46875."""
    bounded = xp.minimum(size, 30.0)  # erfc is 0 beyond; no overflow in the polynomials
    coarse = xp.floor(bounded * 16) / 16  # x² in two parts, for exp(-x²) to full relative accuracy
    scale = xp.exp(-coarse * coarse)
    scale *= xp.exp(-(bounded - coarse) * (bounded + coarse))
    middle = _ratio(xp, xp.minimum(bounded, _LARGE), _MIDDLE_NUMERATOR, _MIDDLE_DENOMINATOR)
    inverse = 1 / xp.maximum(bounded, _LARGE)
    squared = inverse * inverse
    large = (1 / math.sqrt(math.pi) - squared * _ratio(xp, squared, _LARGE_NUMERATOR, _LARGE_DENOMINATOR)) * inverse
    result = xp.where(bounded <= _LARGE, middle, large)
    result *= scale
    return result


def write_erf(xp: Any, x: Array, out: Array) -> None:
    """erf(x) to out; one-dimensional float32 or float64."""
    if x.dtype == np.float32:
        xp.clip(x, -_SINGLE_LIMIT, _SINGLE_LIMIT, out=out)
        ratio = _ratio(xp, xp.square(out), _SINGLE_NUMERATOR, _SINGLE_DENOMINATOR)
        out *= ratio
        xp.clip(out, -1, 1, out=out)
        return
    size = xp.abs(x)
    small = xp.minimum(size, _SMALL)
    inner = small * _ratio(xp, small * small, _SMALL_NUMERATOR, _SMALL_DENOMINATOR)
    outer = 1 - _complement(xp, xp.maximum(size, _SMALL))
    xp.copysign(xp.where(size <= _SMALL, inner, outer), x, out=out)


def write_erfc(xp: Any, x: Array, out: Array) -> None:
    """erfc(x) to out; one-dimensional float32 or float64."""
    size = xp.abs(x)
    small = xp.clip(x, -_SMALL, _SMALL)
    inner = 1 - small * _ratio(xp, small * small, _SMALL_NUMERATOR, _SMALL_DENOMINATOR)
    tail = _complement(xp, xp.maximum(size, _SMALL))
    out[...] = xp.where(size <= _SMALL, inner, xp.where(x < 0, 2 - tail, tail))
