"""Elementwise functions of one operand: elementary functions, rounding, tests, activations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError
from zoonet.ops.sets.onnx.arithmetic import number
from zoonet.ops.sets.onnx.registry import onnx_operator
from zoonet.ops.types import Array, is_floating

_FLOAT8_WITHOUT_INFINITY = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2fnuz", "float4_e2m1fn")


def unary(name: str, function: Callable[[Array], Array], since: Sequence[int]) -> None:
    """Declare an operator of one operand without attributes."""

    def body(input: Array, /) -> Array:
        return function(input)

    for version in since:
        onnx_operator(name, since=version)(body)


def rounded(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """The function for floats; integers are whole already."""
    return lambda x: function(x) if is_floating(x.dtype) else x


for _name, _function, _since in (
    ("Abs", ops.abs, (1, 6, 13)),
    ("Neg", ops.negative, (1, 6, 13)),
    ("Sign", ops.sign, (9, 13)),
    ("Sqrt", ops.sqrt, (1, 6, 13)),
    ("Reciprocal", ops.reciprocal, (1, 6, 13)),
    ("Exp", ops.exp, (1, 6, 13)),
    ("Log", ops.log, (1, 6, 13)),
    ("Sin", ops.sin, (7, 22)),
    ("Cos", ops.cos, (7, 22)),
    ("Tan", ops.tan, (7, 22)),
    ("Asin", ops.asin, (7, 22)),
    ("Acos", ops.acos, (7, 22)),
    ("Atan", ops.atan, (7, 22)),
    ("Sinh", ops.sinh, (9, 22)),
    ("Cosh", ops.cosh, (9, 22)),
    ("Tanh", ops.tanh, (1, 6, 13)),
    ("Asinh", ops.asinh, (9, 22)),
    ("Acosh", ops.acosh, (9, 22)),
    ("Atanh", ops.atanh, (9, 22)),
    ("Erf", ops.erf, (9, 13)),
    ("Ceil", rounded(ops.ceil), (1, 6, 13)),
    ("Floor", rounded(ops.floor), (1, 6, 13)),
    ("Round", rounded(ops.round), (11, 22)),
    ("Not", ops.logical_not, (1,)),
    ("BitwiseNot", ops.bitwise_invert, (18,)),
    ("Relu", ops.relu, (1, 6, 13, 14)),
    ("Sigmoid", ops.sigmoid, (1, 6, 13)),
    ("Softplus", lambda x: softplus(x), (1, 22)),
    ("Softsign", ops.softsign, (1, 22)),
    ("HardSwish", ops.hardswish, (14, 22)),
    ("Mish", ops.mish, (18, 22)),
):
    unary(_name, _function, _since)


def softplus(x: Array) -> Array:
    """log(1 + exp(x)) without a threshold."""
    return ops.logaddexp(x, number(0, x.dtype))


@onnx_operator("IsNaN", since=9)
@onnx_operator("IsNaN", since=13)
@onnx_operator("IsNaN", since=20)
def is_nan(X: Array, /) -> Array:
    """Where X is not a number."""
    return ops.isnan(X)


@onnx_operator("IsInf", since=10)
@onnx_operator("IsInf", since=20)
def is_inf(X: Array, /, detect_negative: int = 1, detect_positive: int = 1) -> Array:
    """Where X is infinite, with the signs that are asked for."""
    if X.dtype.name in _FLOAT8_WITHOUT_INFINITY:
        return ops.zeros_like(X, dtype="bool")
    infinite = ops.isinf(X)
    zero = number(0, X.dtype)
    if not detect_negative:
        infinite = ops.logical_and(infinite, ops.greater(X, zero))
    if not detect_positive:
        infinite = ops.logical_and(infinite, ops.less(X, zero))
    return infinite


@onnx_operator("LeakyRelu", since=1)
@onnx_operator("LeakyRelu", since=6)
@onnx_operator("LeakyRelu", since=16)
def leaky_relu(X: Array, /, alpha: float = 0.01) -> Array:
    """X, times alpha where it is negative."""
    return ops.leaky_relu(X, alpha)


@onnx_operator("PRelu", since=1)
@onnx_operator("PRelu", since=6)
def prelu_1(X: Array, slope: Array, /) -> Array:
    """X, times slope where it is negative; a slope for each channel lies on axis 1."""
    if len(slope.shape) == 1 and len(X.shape) > 2 and slope.shape[0] == X.shape[1]:
        slope = ops.reshape(slope, (-1, *[1] * (len(X.shape) - 2)))
    return prelu(X, slope)


def prelu(x: Array, slope: Array) -> Array:
    """x, times slope where it is negative."""
    return ops.where(ops.less(x, number(0, x.dtype)), ops.multiply(x, slope), x)


@onnx_operator("PRelu", since=7)
@onnx_operator("PRelu", since=9)
@onnx_operator("PRelu", since=16)
def prelu_7(X: Array, slope: Array, /) -> Array:
    """X, times slope where it is negative; slope broadcasts to X."""
    return prelu(X, slope)


@onnx_operator("Elu", since=1)
@onnx_operator("Elu", since=6)
@onnx_operator("Elu", since=22)
def elu(X: Array, /, alpha: float = 1.0) -> Array:
    """X, alpha (exp(X) - 1) where it is negative."""
    return ops.elu(X, alpha)


@onnx_operator("Celu", since=12)
@onnx_operator("Celu", since=28)
def celu(X: Array, /, alpha: float = 1.0) -> Array:
    """max(0, X) + min(0, alpha (exp(X / alpha) - 1))."""
    return ops.celu(X, alpha)


@onnx_operator("Selu", since=1)
def selu_1(X: Array, /, alpha: float = 1.6732, gamma: float = 1.0507) -> Array:
    """gamma X, gamma alpha (exp(X) - 1) where it is negative."""
    return ops.multiply(ops.elu(X, alpha), number(gamma, X.dtype))


@onnx_operator("Selu", since=6)
@onnx_operator("Selu", since=22)
def selu_6(X: Array, /, alpha: float = 1.6732632423543772, gamma: float = 1.0507009873554805) -> Array:
    """gamma X, gamma alpha (exp(X) - 1) where it is negative."""
    return ops.multiply(ops.elu(X, alpha), number(gamma, X.dtype))


@onnx_operator("HardSigmoid", since=1)
@onnx_operator("HardSigmoid", since=6)
@onnx_operator("HardSigmoid", since=22)
def hard_sigmoid(X: Array, /, alpha: float = 0.2, beta: float = 0.5) -> Array:
    """alpha X + beta limited to [0, 1]."""
    return ops.hardsigmoid(X, alpha, beta)


@onnx_operator("ThresholdedRelu", since=1)
@onnx_operator("ThresholdedRelu", since=10)
@onnx_operator("ThresholdedRelu", since=22)
def thresholded_relu(X: Array, /, alpha: float = 1.0) -> Array:
    """X where it is above alpha, else 0."""
    return ops.threshold(X, alpha, 0.0)


@onnx_operator("Shrink", since=9)
def shrink(input: Array, /, bias: float = 0.0, lambd: float = 0.5) -> Array:
    """The input moved toward 0 by bias beyond ±lambd, and 0 between."""
    dtype = input.dtype
    low, high = number(-lambd, dtype), number(lambd, dtype)
    zero, shift = number(0, dtype), number(bias, dtype)
    above = ops.where(ops.greater(input, high), ops.subtract(input, shift), zero)
    return ops.where(ops.less(input, low), ops.add(input, shift), above)


@onnx_operator("Gelu", since=20)
def gelu(X: Array, /, approximate: str = "none") -> Array:
    """X times the normal distribution function of X, by erf or approximately by tanh."""
    if approximate not in ("none", "tanh"):
        raise ArgumentError("Gelu: unknown approximation", expected="none or tanh", received=approximate)
    return ops.gelu(X, approximate)


@onnx_operator("Swish", since=24)
def swish(X: Array, /, alpha: float = 1.0) -> Array:
    """X sigmoid(alpha X)."""
    if alpha == 1.0:
        return ops.silu(X)
    return ops.multiply(X, ops.sigmoid(ops.multiply(X, number(alpha, X.dtype))))


@onnx_operator("SwiGLU", since=28)
def swiglu(A: Array, B: Array, /, alpha: float = 1.0) -> Array:
    """The Swish of A times B."""
    return ops.multiply(swish(A, alpha), B)


def softmax_2d(function: Callable[..., Array], x: Array, axis: int) -> Array:
    """A softmax as opsets 1 to 12 have it: over all axes from `axis` on."""
    axis = axis % max(len(x.shape), 1)
    rows = math.prod(x.shape[:axis])
    flat = ops.reshape(x, (rows, math.prod(x.shape[axis:])))
    return ops.reshape(function(flat, 1), x.shape)


def hardmax(x: Array, axis: int) -> Array:
    """1 at the first largest element along the axis, 0 elsewhere."""
    first = ops.argmax(x, axis, True)
    shape = [1] * len(x.shape)
    shape[axis] = -1
    positions = ops.reshape(np.arange(x.shape[axis]), shape)
    return ops.cast(ops.equal(positions, first), x.dtype)


def softmaxes(name: str, function: Callable[..., Array]) -> None:
    """Declare a softmax with the default axis of each version."""

    def before_13(input: Array, /, axis: int = 1) -> Array:
        return softmax_2d(function, input, axis)

    def since_13(input: Array, /, axis: int = -1) -> Array:
        return function(input, axis)

    onnx_operator(name, since=1)(before_13)
    onnx_operator(name, since=11)(before_13)
    onnx_operator(name, since=13)(since_13)


def softmax(x: Array, axis: int) -> Array:
    """The softmax; of 16-bit floats by the steps of its definition, each rounded.

    Attention asks for the precision of its input where it names no other, and defines itself by Softmax.
    """
    if x.dtype.itemsize > 2:
        return ops.softmax(x, axis)
    powers = ops.exp(ops.subtract(x, ops.max(x, axis, True)))
    return ops.divide(powers, ops.sum(powers, axis, True))


softmaxes("Softmax", softmax)
softmaxes("LogSoftmax", ops.log_softmax)
softmaxes("Hardmax", hardmax)
