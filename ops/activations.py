"""Activation functions, by the names and definitions of `torch.nn.functional`.

All are elementwise unless an axis is named: any shape, floating (integers become float32) -> same shape and dtype.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from zoonet.ops.blocks import blockwise
from zoonet.ops.comparisons import greater, greater_equal, less, less_equal, logical_and
from zoonet.ops.elementary import erf, exp, tanh
from zoonet.ops.elementwise import abs, add, divide, multiply, negative, square, subtract, where
from zoonet.ops.error_function import write_erf
from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.kinds import restrict
from zoonet.ops.registry import REGISTRY, composite, elementwise_type, op
from zoonet.ops.samples import distinct, float_values, floats, ints, sample
from zoonet.ops.types import BOOL, FLOATING, INTEGER, Array, TensorType

__all__ = [
    "celu",
    "elu",
    "gelu",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "log_sigmoid",
    "mish",
    "prelu",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softplus",
    "softshrink",
    "softsign",
    "tanhshrink",
    "threshold",
]

BASIC = [sample(distinct(2, 3)), sample(floats()), sample(floats(0, 2)), sample(ints(3))]
EXTREME = sample(float_values([-1000.0, -90.0, -20.0, -1.0, 1.0, 20.0, 90.0, 1000.0]))
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


# -- piecewise linear --------------------------------------------------------------------------------------------


@op(promotes="number", samples=BASIC)
def relu(xp: Any, x: Array) -> Array:
    """max(x, 0). Any shape, real -> same. The slope at 0 is 0. Source: `torch.nn.functional.relu`."""
    return xp.maximum(x, 0)


@relu.vjp
def _(gy: Array, y: Array, _x: Array) -> Any:
    return multiply(gy, greater(y, 0))  # 20 times faster than where, which branches on every element


restrict(relu, INTEGER, FLOATING)


@op(promotes="floating", samples=[*BASIC, sample(distinct(3, 4), -0.5, 1.2)])
def hardtanh(xp: Any, x: Array, min_val: float = -1.0, max_val: float = 1.0) -> Array:
    """x limited to [min_val, max_val]. The slope at the limits is 0. Raises ArgumentError if min_val > max_val.

    Any shape, real -> same, floating. Source: `torch.nn.functional.hardtanh`.
    """
    return xp.clip(x, min_val, max_val)


@hardtanh.vjp
def _(gy: Array, y: Array, _x: Array, min_val: float, max_val: float) -> Any:
    return multiply(gy, logical_and(greater(y, min_val), less(y, max_val)))


@hardtanh.type
def _(x: Any, min_val: float = -1.0, max_val: float = 1.0) -> TensorType:
    if min_val > max_val:
        raise ArgumentError("hardtanh: the limits are in the wrong order", received=f"{min_val} > {max_val}")
    return elementwise_type(hardtanh, {"x": x, "min_val": min_val, "max_val": max_val})


@composite(samples=[sample(distinct(3, 4, low=-3.0, high=9.0)), sample(floats())])
def relu6(x: Array) -> Array:
    """min(max(x, 0), 6). The slope at 0 and 6 is 0.

    Any shape, real -> same, floating. Source: `torch.nn.functional.relu6`.
    """
    return hardtanh(x, 0.0, 6.0)


@op(promotes="floating", samples=[*BASIC, sample(distinct(3, 4), 0.2), sample(distinct(4), 1.5)])
def leaky_relu(xp: Any, x: Array, negative_slope: float = 0.01) -> Array:
    """x where above 0, negative_slope · x elsewhere.

    Any shape, real -> same, floating. Source: `torch.nn.functional.leaky_relu`.
    """
    scaled = x * negative_slope
    return xp.maximum(x, scaled) if 0 <= negative_slope <= 1 else xp.where(x > 0, x, scaled)


@leaky_relu.vjp
def _(gy: Array, _y: Array, x: Array, negative_slope: float) -> Any:
    return add(multiply(gy, negative_slope), multiply(multiply(gy, 1 - negative_slope), greater(x, 0)))


@composite(
    samples=[
        sample(distinct(2, 3, 2, 2), floats(3)),
        sample(distinct(2, 3), floats(1)),
        sample(distinct(4), floats(1)),
    ]
)
def prelu(x: Array, weight: Array) -> Array:
    """x where above 0, weight · x elsewhere.

    x: [N, C, ...] or any shape; weight: [C] for axis 1 of x, or [1] -> the shape of x.
    Raises ShapeError if the weight has another size. Source: `torch.nn.functional.prelu`.
    """
    channels = x.shape[1] if len(x.shape) > 1 else 1
    if weight.size not in (1, channels) or len(weight.shape) > 1:
        raise ShapeError(
            "prelu: weight does not fit the channels of x",
            expected=f"[1] or [{channels}]",
            received=list(weight.shape),
        )
    fitted = (1, -1, *(1 for _ in x.shape[2:])) if weight.size > 1 else (1,) * len(x.shape)
    return where(greater(x, 0), x, multiply(x, REGISTRY["reshape"](weight, fitted)))


@op(promotes="floating", samples=[*BASIC, sample(distinct(3, 4), 0.25, -7.0)])
def threshold(xp: Any, x: Array, threshold: float = 0.0, value: float = 0.0) -> Array:
    """x where above the threshold, the value elsewhere. ONNX ThresholdedRelu is that with value 0.

    Any shape, real -> same, floating.
    """
    return xp.where(x > threshold, x, x.dtype.type(value))


@threshold.vjp
def _(gy: Array, _y: Array, x: Array, threshold: float, value: float) -> Any:
    return where(greater(x, threshold), gy, 0)


@op(promotes="floating", samples=[*BASIC, sample(distinct(3, 4), 1.1)])
def hardshrink(xp: Any, x: Array, lambd: float = 0.5) -> Array:
    """x where |x| > lambd, 0 elsewhere. Any shape, real -> same, floating. Source: `torch.nn.functional.hardshrink`."""
    return xp.where(xp.abs(x) <= lambd, x.dtype.type(0), x)


@hardshrink.vjp
def _(gy: Array, _y: Array, x: Array, lambd: float) -> Any:
    return where(greater(abs(x), lambd), gy, 0)


@op(promotes="floating", samples=[*BASIC, sample(distinct(3, 4), 1.1)])
def softshrink(xp: Any, x: Array, lambd: float = 0.5) -> Array:
    """x moved towards 0 by lambd, and 0 where |x| <= lambd. Raises ArgumentError for a negative lambd.

    Any shape, real -> same, floating. Source: `torch.nn.functional.softshrink`.
    """
    return x - xp.clip(x, -lambd, lambd)


@softshrink.type
def _(x: Any, lambd: float = 0.5) -> TensorType:
    if lambd < 0:
        raise ArgumentError("softshrink: lambd is negative", expected="0 or more", received=lambd)
    return elementwise_type(softshrink, {"x": x, "lambd": lambd})


@softshrink.vjp
def _(gy: Array, _y: Array, x: Array, lambd: float) -> Any:
    return where(greater(abs(x), lambd), gy, 0)


@op(promotes="floating", samples=[*BASIC, EXTREME, sample(distinct(3, 4), 0.2, 0.5)])
def hardsigmoid(xp: Any, x: Array, alpha: float = 1 / 6, beta: float = 0.5) -> Array:
    """alpha · x + beta limited to [0, 1]. The defaults are PyTorch's; ONNX's and Keras 2's alpha is 0.2.

    Any shape, real -> same, floating.
    """
    y = x * alpha
    y += beta
    return xp.clip(y, 0, 1)


@hardsigmoid.vjp
def _(gy: Array, y: Array, _x: Array, alpha: float, beta: float) -> Any:
    return multiply(multiply(gy, alpha), logical_and(greater(y, 0), less(y, 1)))


def _write_hardswish(xp: Any, x: Array, out: Array) -> None:
    xp.multiply(x, 1 / 6, out=out)
    out += 0.5
    xp.clip(out, 0, 1, out=out)
    out *= x


@op(promotes="floating", samples=[*BASIC, EXTREME])
def hardswish(xp: Any, x: Array) -> Array:
    """x · hardsigmoid(x). Source: MobileNetV3, arXiv:1905.02244. Any shape, real -> same, floating."""
    return blockwise(xp, lambda block, out: _write_hardswish(xp, block, out), x)


@hardswish.vjp
def _(gy: Array, _y: Array, x: Array) -> Any:
    inner = add(multiply(x, 1 / 3), 0.5)
    return multiply(gy, where(less_equal(x, -3), 0, where(greater_equal(x, 3), 1, inner)))


# -- exponential -------------------------------------------------------------------------------------------------


def _write_sigmoid(xp: Any, x: Array, out: Array) -> None:
    xp.negative(x, out=out)
    xp.exp(out, out=out)
    out += 1
    xp.reciprocal(out, out=out)


@op(promotes="floating", samples=[*BASIC, EXTREME])
def sigmoid(xp: Any, x: Array) -> Array:
    """1 / (1 + e^-x); where e^-x is infinite, 0. Any shape, real -> same shape, floating. Source: `torch.sigmoid`."""
    return blockwise(xp, lambda block, out: _write_sigmoid(xp, block, out), x)


@sigmoid.vjp
def _(gy: Array, y: Array, _x: Array) -> Any:
    return multiply(gy, multiply(y, subtract(1, y)))


def _write_softplus(xp: Any, x: Array, out: Array) -> None:
    xp.abs(x, out=out)
    xp.negative(out, out=out)
    xp.exp(out, out=out)
    xp.log1p(out, out=out)
    out += xp.maximum(x, 0)


@op(promotes="floating", samples=[*BASIC, EXTREME])
def log_sigmoid(xp: Any, x: Array) -> Array:
    """log(sigmoid(x)), for any x without overflow.

    Any shape, real -> same, floating. Source: `torch.nn.functional.logsigmoid`.
    """
    return xp.negative(blockwise(xp, lambda block, out: _write_softplus(xp, block, out), -x))


@log_sigmoid.vjp
def _(gy: Array, _y: Array, x: Array) -> Any:
    return multiply(gy, sigmoid(negative(x)))


@op(
    promotes="floating",
    samples=[
        *BASIC,
        sample(distinct(3, 4), 2.0, 1.5),
        sample(floats(3), 0.5),
        sample(float_values([-1e3, -50.0, 19.0, 21.0, 1e3])),
    ],
)
def softplus(xp: Any, x: Array, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """log(1 + e^(beta · x)) / beta, and x where beta · x exceeds the threshold. Raises ArgumentError for beta 0.

    Any shape, real -> same, floating. Source: `torch.nn.functional.softplus`.
    """
    y = blockwise(xp, lambda block, out: _write_softplus(xp, block, out), x * beta)
    y /= beta
    exact = 17 if x.dtype == np.float32 else 37  # log(1 + e^x) is x to every digit from here on
    return y if threshold > exact else xp.where(x * beta > threshold, x, y)


@softplus.type
def _(x: Any, beta: float = 1.0, threshold: float = 20.0) -> TensorType:
    if beta == 0:
        raise ArgumentError("softplus: beta is 0", expected="any other number", received=beta)
    return elementwise_type(softplus, {"x": x, "beta": beta, "threshold": threshold})


@softplus.vjp
def _(gy: Array, _y: Array, x: Array, beta: float, threshold: float) -> Any:
    scaled = multiply(x, beta)
    return where(greater(scaled, threshold), gy, multiply(gy, sigmoid(scaled)))


@op(promotes="floating", samples=[*BASIC, EXTREME, sample(distinct(3, 4), 0.4)])
def elu(xp: Any, x: Array, alpha: float = 1.0) -> Array:
    """x where above 0, alpha · (e^x - 1) elsewhere. Source: arXiv:1511.07289. Any shape, real -> same, floating."""
    return xp.expm1(xp.minimum(x, 0)) * alpha + xp.maximum(x, 0)


@elu.vjp
def _(gy: Array, y: Array, x: Array, alpha: float) -> Any:
    return where(greater(x, 0), gy, multiply(gy, add(y, alpha)))


@op(promotes="floating", samples=[*BASIC, EXTREME, sample(distinct(3, 4), 0.4)])
def celu(xp: Any, x: Array, alpha: float = 1.0) -> Array:
    """x where above 0, alpha · (e^(x / alpha) - 1) elsewhere. Raises ArgumentError for alpha 0. arXiv:1704.07483.

    Any shape, real -> same, floating.
    """
    return xp.expm1(xp.minimum(x, 0) / alpha) * alpha + xp.maximum(x, 0)


@celu.type
def _(x: Any, alpha: float = 1.0) -> TensorType:
    if alpha == 0:
        raise ArgumentError("celu: alpha is 0", expected="any other number", received=alpha)
    return elementwise_type(celu, {"x": x, "alpha": alpha})


@celu.vjp
def _(gy: Array, y: Array, x: Array, alpha: float) -> Any:
    return where(greater(x, 0), gy, multiply(gy, add(multiply(y, 1 / alpha), 1)))


@composite(samples=[*BASIC, EXTREME])
def selu(x: Array) -> Array:
    """scale · elu(x, alpha) with the constants that keep mean 0 and variance 1. Source: arXiv:1706.02515.

    Any shape, real -> same, floating.
    """
    return multiply(elu(x, _SELU_ALPHA), _SELU_SCALE)


def _write_silu(xp: Any, x: Array, out: Array) -> None:
    _write_sigmoid(xp, x, out)
    out *= x


@op(promotes="floating", samples=[*BASIC, EXTREME])
def silu(xp: Any, x: Array) -> Array:
    """x · sigmoid(x), also called swish. Source: arXiv:1606.08415, arXiv:1710.05941.

    Any shape, real -> same, floating.
    """
    return blockwise(xp, lambda block, out: _write_silu(xp, block, out), x)


@silu.vjp
def _(gy: Array, y: Array, x: Array) -> Any:
    s = sigmoid(x)
    return multiply(gy, add(s, multiply(y, subtract(1, s))))


def _write_mish(xp: Any, x: Array, out: Array) -> None:
    """tanh(log(1 + e)) = e(e + 2) / (e(e + 2) + 2) with e = exp(x); it is 1 to every digit where x > 20."""
    xp.minimum(x, 20, out=out)
    xp.exp(out, out=out)
    out *= out + 2
    out /= out + 2
    out *= x


@op(promotes="floating", samples=[*BASIC, EXTREME])
def mish(xp: Any, x: Array) -> Array:
    """x · tanh(softplus(x)). Source: arXiv:1908.08681. Any shape, real -> same, floating."""
    return blockwise(xp, lambda block, out: _write_mish(xp, block, out), x)


@mish.vjp
def _(gy: Array, _y: Array, x: Array) -> Any:
    t = tanh(softplus(x))
    return multiply(gy, add(t, multiply(multiply(x, sigmoid(x)), subtract(1, square(t)))))


_TANH_SCALE, _TANH_CUBE = math.sqrt(2 / math.pi), 0.044715


def _write_gelu(xp: Any, x: Array, out: Array) -> None:
    scaled = x * (1 / math.sqrt(2))
    write_erf(xp, scaled, out)
    out += 1
    out *= x
    out *= 0.5


def _write_gelu_tanh(xp: Any, x: Array, out: Array) -> None:
    xp.multiply(x, x, out=out)
    out *= _TANH_SCALE * _TANH_CUBE
    out += _TANH_SCALE
    out *= x
    xp.tanh(out, out=out)
    out += 1
    out *= x
    out *= 0.5


@op(
    promotes="floating",
    samples=[*BASIC, sample(floats(2, 3), "tanh"), sample(float_values([-1e3, -6.0, 6.0, 1e3]))],
)
def gelu(xp: Any, x: Array, approximate: str = "none") -> Array:
    """x · Φ(x), Φ being the normal distribution function; by tanh where approximate = "tanh". arXiv:1606.08415.

    Raises ArgumentError for another value of approximate. Any shape, real -> same, floating.
    """
    write = _write_gelu if approximate == "none" else _write_gelu_tanh
    return blockwise(xp, lambda block, out: write(xp, block, out), x)


@gelu.type
def _(x: Any, approximate: str = "none") -> TensorType:
    if approximate not in ("none", "tanh"):
        raise ArgumentError("gelu: unknown approximation", expected="'none' or 'tanh'", received=repr(approximate))
    return elementwise_type(gelu, {"x": x, "approximate": approximate})


@gelu.vjp
def _(gy: Array, _y: Array, x: Array, approximate: str) -> Any:
    if approximate == "none":
        distribution = multiply(add(erf(multiply(x, 1 / math.sqrt(2))), 1), 0.5)
        density = multiply(exp(multiply(square(x), -0.5)), 1 / math.sqrt(2 * math.pi))
        return multiply(gy, add(distribution, multiply(x, density)))
    squared = square(x)
    t = tanh(multiply(x, add(multiply(squared, _TANH_SCALE * _TANH_CUBE), _TANH_SCALE)))
    slope = add(multiply(squared, 3 * _TANH_SCALE * _TANH_CUBE), _TANH_SCALE)
    bend = multiply(multiply(x, slope), subtract(1, square(t)))
    return multiply(gy, multiply(add(add(t, 1), bend), 0.5))


@composite(samples=[*BASIC, EXTREME])
def softsign(x: Array) -> Array:
    """x / (1 + |x|). x: any shape, real -> same shape, floating. Source: `torch.nn.functional.softsign`."""
    return divide(x, add(abs(x), 1))


@composite(samples=[*BASIC, EXTREME])
def tanhshrink(x: Array) -> Array:
    """x - tanh(x), element by element. x: any shape, real -> same shape, floating.

    Source: `torch.nn.functional.tanhshrink`.
    """
    return subtract(x, tanh(x))


for _activation in (leaky_relu, threshold, hardshrink, hardsigmoid, hardswish, sigmoid, log_sigmoid, elu, silu, mish):
    restrict(_activation, BOOL, FLOATING)
