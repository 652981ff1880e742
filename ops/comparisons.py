"""Comparison, classification, logical and bitwise functions of elements, by the names of the array API.

Operands broadcast and are promoted (types.py) before they are compared. None of these has a gradient.
"""

from __future__ import annotations

from typing import Any

from zoonet.ops.kinds import restrict
from zoonet.ops.registry import op
from zoonet.ops.samples import bools, complexes, fixed, float_values, floats, ints, sample
from zoonet.ops.types import BOOL, COMPLEX, FLOATING, INTEGER, Array, bool_

__all__ = [
    "bitwise_and",
    "bitwise_invert",
    "bitwise_left_shift",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "equal",
    "greater",
    "greater_equal",
    "isfinite",
    "isinf",
    "isnan",
    "less",
    "less_equal",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "not_equal",
]

COMPARED = [
    sample(floats(2, 3), floats(2, 3)),
    sample(floats(2, 1), floats(3)),
    sample(floats(3), 0.5),
    sample(floats(0, 3), floats(3)),
    sample(ints(2, 3), ints(3)),
    sample(ints(3), 2.5),
    sample(float_values([1.0, float("nan"), float("inf")]), float_values([1.0, float("nan"), float("inf")])),
    sample(bools(3), bools(3)),
]


@op(promotes="number", differentiable=False, samples=[*COMPARED, sample(complexes(2), 1.0)])
def equal(xp: Any, x: Array, y: Array) -> Array:
    """x = y. Numbers that broadcast -> bool; NaN equals nothing. Source: array API `equal`."""
    return xp.equal(x, y)


@op(promotes="number", differentiable=False, samples=[*COMPARED, sample(complexes(2), 1.0)])
def not_equal(xp: Any, x: Array, y: Array) -> Array:
    """x ≠ y. Numbers that broadcast -> bool; NaN differs from everything. Source: array API `not_equal`."""
    return xp.not_equal(x, y)


@op(promotes="number", differentiable=False, samples=COMPARED)
def less(xp: Any, x: Array, y: Array) -> Array:
    """x < y. Real numbers that broadcast -> bool. Source: array API `less`."""
    return xp.less(x, y)


@op(promotes="number", differentiable=False, samples=COMPARED)
def less_equal(xp: Any, x: Array, y: Array) -> Array:
    """x ≤ y. Real numbers that broadcast -> bool. Source: array API `less_equal`."""
    return xp.less_equal(x, y)


@op(promotes="number", differentiable=False, samples=COMPARED)
def greater(xp: Any, x: Array, y: Array) -> Array:
    """x > y. Real numbers that broadcast -> bool. Source: array API `greater`."""
    return xp.greater(x, y)


@op(promotes="number", differentiable=False, samples=COMPARED)
def greater_equal(xp: Any, x: Array, y: Array) -> Array:
    """x ≥ y. Real numbers that broadcast -> bool. Source: array API `greater_equal`."""
    return xp.greater_equal(x, y)


for _comparison in (less, less_equal, greater, greater_equal):
    restrict(_comparison, BOOL, FLOATING, bool_)
for _comparison in (equal, not_equal):
    restrict(_comparison, BOOL, COMPLEX, bool_)


# -- classification ----------------------------------------------------------------------------------------------


CLASSIFIED = [
    sample(float_values([[1.0, float("nan")], [float("inf"), -float("inf")]])),
    sample(floats()),
    sample(ints(3)),
    sample(fixed([complex(1, float("nan")), complex(float("inf"), 0), 1j], "complex64")),
]


@op(promotes="number", differentiable=False, samples=CLASSIFIED)
def isfinite(xp: Any, x: Array) -> Array:
    """True where x is neither NaN nor infinite. Numbers -> bool. Source: array API `isfinite`."""
    return xp.isfinite(x)


@op(promotes="number", differentiable=False, samples=CLASSIFIED)
def isinf(xp: Any, x: Array) -> Array:
    """True where x is infinite. Numbers -> bool. Source: array API `isinf`."""
    return xp.isinf(x)


@op(promotes="number", differentiable=False, samples=CLASSIFIED)
def isnan(xp: Any, x: Array) -> Array:
    """True where x is NaN. Numbers -> bool. Source: array API `isnan`."""
    return xp.isnan(x)


for _classification in (isfinite, isinf, isnan):
    restrict(_classification, BOOL, COMPLEX, bool_)


# -- logic -------------------------------------------------------------------------------------------------------


LOGICAL = [
    sample(bools(2, 3), bools(2, 3)),
    sample(bools(2, 1), bools(3)),
    sample(bools(3), True),
    sample(ints(4, high=2), bools(4)),
    sample(float_values([0.0, 1.0, -0.5]), 1.0),
]


@op(promotes="number", differentiable=False, samples=LOGICAL)
def logical_and(xp: Any, x: Array, y: Array) -> Array:
    """x and y, numbers being true where not 0. Operands that broadcast -> bool. Source: array API `logical_and`."""
    return xp.logical_and(x, y)


@op(promotes="number", differentiable=False, samples=LOGICAL)
def logical_or(xp: Any, x: Array, y: Array) -> Array:
    """x or y, numbers being true where not 0. Operands that broadcast -> bool. Source: array API `logical_or`."""
    return xp.logical_or(x, y)


@op(promotes="number", differentiable=False, samples=LOGICAL)
def logical_xor(xp: Any, x: Array, y: Array) -> Array:
    """Either x or y but not both, numbers being true where not 0. Operands that broadcast -> bool.

    Source: array API `logical_xor`.
    """
    return xp.logical_xor(x, y)


@op(
    promotes="number",
    differentiable=False,
    samples=[sample(bools(2, 3)), sample(ints(4, high=2))],
)
def logical_not(xp: Any, x: Array) -> Array:
    """not x, numbers being true where not 0. Any shape -> bool. Source: array API `logical_not`."""
    return xp.logical_not(x)


for _logical in (logical_and, logical_or, logical_xor, logical_not):
    restrict(_logical, BOOL, COMPLEX, bool_)


# -- bits --------------------------------------------------------------------------------------------------------


BITWISE = [
    sample(ints(2, 3, low=-9, high=9), ints(2, 3, low=-9, high=9)),
    sample(ints(2, 1, dtype="uint8"), ints(3, dtype="uint8")),
    sample(ints(3), 3),
    sample(bools(2, 3), bools(3)),
]
SHIFTED = [
    sample(ints(2, 3, low=-9, high=9), ints(3, high=4)),
    sample(ints(3, dtype="uint8"), 2),
    sample(1, ints(3)),
]


@op(promotes="number", differentiable=False, samples=BITWISE)
def bitwise_and(xp: Any, x: Array, y: Array) -> Array:
    """The bits set in both x and y. Integers or bools that broadcast -> the promoted dtype.

    Source: array API `bitwise_and`.
    """
    return xp.bitwise_and(x, y)


@op(promotes="number", differentiable=False, samples=BITWISE)
def bitwise_or(xp: Any, x: Array, y: Array) -> Array:
    """The bits set in x or y. Integers or bools that broadcast -> the promoted dtype.

    Source: array API `bitwise_or`.
    """
    return xp.bitwise_or(x, y)


@op(promotes="number", differentiable=False, samples=BITWISE)
def bitwise_xor(xp: Any, x: Array, y: Array) -> Array:
    """The bits set in one of x and y. Integers or bools that broadcast -> the promoted dtype.

    Source: array API `bitwise_xor`.
    """
    return xp.bitwise_xor(x, y)


@op(
    promotes="number",
    differentiable=False,
    samples=[sample(ints(3)), sample(ints(3, dtype="uint8")), sample(bools(3))],
)
def bitwise_invert(xp: Any, x: Array) -> Array:
    """Every bit of x turned. Integers or bools -> same shape and dtype. Source: array API `bitwise_invert`."""
    return xp.invert(x)


@op(promotes="number", differentiable=False, samples=SHIFTED)
def bitwise_left_shift(xp: Any, x: Array, y: Array) -> Array:
    """x · 2^y by shifting bits. Integers that broadcast -> the promoted dtype.

    Source: array API `bitwise_left_shift`.
    """
    return xp.left_shift(x, y)


@op(promotes="number", differentiable=False, samples=SHIFTED)
def bitwise_right_shift(xp: Any, x: Array, y: Array) -> Array:
    """⌊x / 2^y⌋ by shifting bits, the sign kept. Integers that broadcast -> the promoted dtype.

    Source: array API `bitwise_right_shift`.
    """
    return xp.right_shift(x, y)


for _bitwise in (bitwise_and, bitwise_or, bitwise_xor, bitwise_invert):
    restrict(_bitwise, BOOL, INTEGER)
for _shift in (bitwise_left_shift, bitwise_right_shift):
    restrict(_shift, INTEGER, INTEGER)
