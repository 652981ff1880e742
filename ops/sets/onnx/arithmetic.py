"""Elementwise arithmetic of two or more operands: Add … Pow, Mod, Max, Min, Sum, Mean, Clip, Where."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.sets.onnx.registry import onnx_operator
from zoonet.ops.types import Array, DType, is_floating, kind_of

_INTEGER = 1


def legacy_operand(a: Array, b: Array, axis: int | None, broadcast: int) -> Array:
    """The second operand as opsets 1 to 6 broadcast it: its axes match those of `a` from `axis` on."""
    if not broadcast or a.shape == b.shape:
        return b
    start = len(a.shape) - len(b.shape) if axis is None else axis % max(len(a.shape), 1)
    trailing = len(a.shape) - start - len(b.shape)
    if trailing < 0:
        raise ShapeError("the second operand does not broadcast", expected=tuple(a.shape), received=tuple(b.shape))
    return ops.reshape(b, (*b.shape, *[1] * trailing))


def binary(name: str, function: Callable[[Array, Array], Array], since: Sequence[int]) -> None:
    """Declare a binary operator: with the attributes of opsets below 7, then with NumPy's broadcasting."""

    def legacy(A: Array, B: Array, /, axis: int | None = None, broadcast: int = 0) -> Array:
        return function(A, legacy_operand(A, B, axis, broadcast))

    def modern(A: Array, B: Array, /) -> Array:
        return function(A, B)

    for version in since:
        onnx_operator(name, since=version)(legacy if version < 7 else modern)


def divide(a: Array, b: Array) -> Array:
    """The quotient; of integers truncated toward zero."""
    if kind_of(a.dtype) != _INTEGER:
        return ops.divide(a, b)
    return ops.floor_divide(ops.subtract(a, ops.fmod(a, b)), b)


def power(x: Array, y: Array) -> Array:
    """x ** y in the type of x, as the type of y may be another."""
    return ops.cast(ops.pow(x, y), x.dtype)


binary("Add", ops.add, (1, 6, 7, 13, 14))
binary("Sub", ops.subtract, (1, 6, 7, 13, 14))
binary("Mul", ops.multiply, (1, 6, 7, 13, 14))
binary("Div", divide, (1, 6, 7, 13, 14))
binary("Pow", power, (1, 7, 12, 13, 15))
binary("And", ops.logical_and, (1, 7))
binary("Or", ops.logical_or, (1, 7))
binary("Xor", ops.logical_xor, (1, 7))
binary("Equal", lambda a, b: equal(a, b), (1, 7, 11, 13, 19))
binary("Greater", ops.greater, (1, 7, 9, 13))
binary("Less", ops.less, (1, 7, 9, 13))
binary("GreaterOrEqual", ops.greater_equal, (12, 16))
binary("LessOrEqual", ops.less_equal, (12, 16))
binary("BitwiseAnd", ops.bitwise_and, (18,))
binary("BitwiseOr", ops.bitwise_or, (18,))
binary("BitwiseXor", ops.bitwise_xor, (18,))


def equal(a: Array, b: Array) -> Array:
    """a == b, of strings too."""
    if a.dtype == object:
        return np.asarray(a == b, np.bool_)
    return ops.equal(a, b)


@onnx_operator("Mod", since=10)
@onnx_operator("Mod", since=13)
@onnx_operator("Mod", since=28)
def mod(A: Array, B: Array, /, fmod: int = 0) -> Array:
    """The remainder with the sign of B, or with fmod that of A."""
    if fmod:
        return ops.fmod(A, B)
    result = ops.remainder(A, B)
    if not is_floating(A.dtype):
        return result
    return ops.where(ops.equal(result, 0), ops.copysign(result, B), result)


@onnx_operator("BitShift", since=11)
@onnx_operator("BitShift", since=28)
def bit_shift(X: Array, Y: Array, /, direction: str) -> Array:
    """X with its bits moved by Y; everything is shifted out where Y is negative or at least the number of bits."""
    if direction not in ("LEFT", "RIGHT"):
        raise ArgumentError("BitShift: unknown direction", expected="LEFT or RIGHT", received=direction)
    bits = np.asarray(X.dtype.itemsize * 8, Y.dtype)
    outside = ops.logical_or(ops.less(Y, np.asarray(0, Y.dtype)), ops.greater_equal(Y, bits))
    amount = ops.where(outside, np.asarray(0, Y.dtype), Y)
    zero = np.asarray(0, X.dtype)
    if direction == "LEFT":
        return ops.where(outside, zero, ops.bitwise_left_shift(X, amount))
    emptied = zero if X.dtype.kind == "u" else ops.where(ops.less(X, zero), np.asarray(-1, X.dtype), zero)
    return ops.where(outside, emptied, ops.bitwise_right_shift(X, amount))


def variadic(name: str, function: Callable[[Sequence[Array]], Array], since: Sequence[int]) -> None:
    """Declare an operator of any number of operands."""

    def body(data: Sequence[Array], /) -> Array:
        if not data:
            raise ShapeError(f"{name} has no operands", expected="at least one")
        return function(data)

    for version in since:
        onnx_operator(name, since=version, variadic=True)(body)


def average(data: Sequence[Array]) -> Array:
    """The mean of the operands."""
    return ops.divide(reduce(ops.add, data), number(len(data), data[0].dtype))


def number(value: float, dtype: DType) -> Any:
    """A number as a 0-d array of a type, which then promotes nothing."""
    return np.asarray(value).astype(dtype)


variadic("Max", lambda data: reduce(ops.maximum, data), (1, 6, 8, 12, 13))
variadic("Min", lambda data: reduce(ops.minimum, data), (1, 6, 8, 12, 13))
variadic("Sum", lambda data: reduce(ops.add, data), (1, 6, 8, 13))
variadic("Mean", average, (1, 6, 8, 13))


@onnx_operator("Clip", since=1)
@onnx_operator("Clip", since=6)
def clip_1(input: Array, /, max: float = 3.4028234663852886e38, min: float = -3.4028234663852886e38) -> Array:
    """The input limited to [min, max]."""
    return ops.minimum(ops.maximum(input, number(min, input.dtype)), number(max, input.dtype))


@onnx_operator("Clip", since=11)
@onnx_operator("Clip", since=12)
@onnx_operator("Clip", since=13)
def clip_11(input: Array, min: Array | None = None, max: Array | None = None, /) -> Array:
    """The input limited to [min, max]; max wins where they cross."""
    result = input if min is None else ops.maximum(input, min)
    return result if max is None else ops.minimum(result, max)


@onnx_operator("Where", since=9)
@onnx_operator("Where", since=16)
def where(condition: Array, X: Array, Y: Array, /) -> Array:
    """X where the condition holds, else Y."""
    if X.dtype == object:
        return np.where(condition, X, Y)
    return ops.where(condition, X, Y)
