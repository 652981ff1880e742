"""Softmax and its logarithm, and the gated linear unit: activations along an axis, by the names of PyTorch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from zoonet.ops.activations import sigmoid
from zoonet.ops.elementary import exp
from zoonet.ops.elementwise import multiply, subtract
from zoonet.ops.errors import ShapeError
from zoonet.ops.reductions import normalize_axes, sum
from zoonet.ops.registry import composite, op
from zoonet.ops.samples import float_values, floats, sample
from zoonet.ops.types import Array, TensorType, promote

__all__ = ["glu", "log_softmax", "softmax"]


@composite(samples=[sample(floats(2, 6)), sample(floats(4, 3), 0), sample(floats(2, 4, 3), -2)])
def glu(x: Array, axis: int = -1) -> Array:
    """The first half along an axis times the sigmoid of the second. Any shape -> the axis halved.

    Raises ShapeError if the axis has an odd size. Source: arXiv:1612.08083.
    """
    (axis,) = normalize_axes("glu", len(x.shape), axis)
    size = x.shape[axis]
    if size % 2:
        raise ShapeError("glu halves an axis", expected="an even size", received=f"{size} on axis {axis}")
    leading = (slice(None),) * axis
    gate = sigmoid(x[(*leading, slice(size // 2, size))])
    return multiply(x[(*leading, slice(0, size // 2))], gate)


NORMALIZED = [
    sample(floats(2, 3)),
    sample(floats(2, 3, 4), 1),
    sample(floats(5), 0),
    sample(floats(0, 3)),
    sample(floats(3, 0)),
    sample(float_values([[1000.0, 0.0, -1000.0], [-1e4, -1e4, -1e4]])),
]


def _shifted(xp: Any, x: Array, axis: int) -> Array:
    """x less its largest element along the axis, floating, in new memory."""
    x = x if x.dtype.kind == "f" else x.astype(np.float32)
    return x - xp.max(x, axis=axis, keepdims=True) if x.size else x.copy()


@op(samples=[*NORMALIZED, sample(float_values([[0.0, -math.inf, 1.0]]))])
def softmax(xp: Any, x: Array, axis: int = -1) -> Array:
    """e^x / Σ e^x along an axis, without overflow. Any shape, real -> same shape, floating.

    Raises ShapeError for an axis that x does not have. Source: `torch.nn.functional.softmax`.
    """
    y = _shifted(xp, x, axis)
    xp.exp(y, out=y)
    y /= xp.sum(y, axis=axis, keepdims=True)
    return y


@op(samples=NORMALIZED)
def log_softmax(xp: Any, x: Array, axis: int = -1) -> Array:
    """log(softmax(x)) along an axis, without overflow. Any shape, real -> same shape, floating.

    Raises ShapeError for an axis that x does not have. Source: `torch.nn.functional.log_softmax`.
    """
    y = _shifted(xp, x, axis)
    y -= xp.log(xp.sum(xp.exp(y), axis=axis, keepdims=True))
    return y


@softmax.type
@log_softmax.type
def _(x: TensorType, axis: int = -1) -> TensorType:
    normalize_axes("softmax", x.ndim, axis)
    return TensorType(x.shape, promote([x], floating=True))


@softmax.vjp
def _(gy: Array, y: Array, _x: Array, axis: int) -> Any:
    product = multiply(gy, y)
    return subtract(product, multiply(y, sum(product, axis, True)))


@log_softmax.vjp
def _(gy: Array, y: Array, _x: Array, axis: int) -> Any:
    return subtract(gy, multiply(exp(y), sum(gy, axis, True)))
