"""The activations of darknet, by their names in a .cfg.

Source: `src/activations.h` and `src/activations.c` of AlexeyAB/darknet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zoonet import ops

Array = Any


def _relie(x: Array) -> Array:
    return ops.leaky_relu(x, 0.01)


def _leaky(x: Array) -> Array:
    return ops.leaky_relu(x, 0.1)


def _ramp(x: Array) -> Array:
    return ops.relu(x) + 0.1 * x


def _loggy(x: Array) -> Array:
    return 2.0 * ops.sigmoid(x) - 1.0


def _selu(x: Array) -> Array:
    """With the constants of darknet, which are rounded."""
    return 1.0507 * ops.where(x >= 0, x, 1.6732 * (ops.exp(ops.minimum(x, 0.0)) - 1.0))


def _gelu(x: Array) -> Array:
    return 0.5 * x * (1.0 + ops.tanh(0.797885 * x + 0.035677 * x * x * x))


def _plse(x: Array) -> Array:
    middle = 0.125 * x + 0.5
    return ops.where(x < -4, 0.01 * (x + 4.0), ops.where(x > 4, 0.01 * (x - 4.0) + 1.0, middle))


def _stair(x: Array) -> Array:
    whole = ops.floor(x)
    half = ops.floor(x * 0.5)
    return ops.where(whole - 2.0 * ops.floor(whole * 0.5) == 0, half, x - whole + half)


def _lhtan(x: Array) -> Array:
    return ops.where(x < 0, 0.001 * x, ops.where(x > 1, 0.001 * (x - 1.0) + 1.0, x))


def _hard_mish(x: Array) -> Array:
    return ops.where(x > 0, x, ops.where(x > -2, x * x * 0.5 + x, 0.0 * x))


def _normalize_channels(x: Array) -> Array:
    positive = ops.relu(x)
    return positive / (ops.sum(positive, 1, keepdims=True) + 1e-4)


def _normalize_channels_softmax(x: Array) -> Array:
    powers = ops.exp(x)
    return powers / (ops.sum(powers, 1, keepdims=True) + 1e-4)


def _normalize_channels_softmax_maxval(x: Array) -> Array:
    powers = ops.exp(x - ops.stop_gradient(ops.max(x, 1, keepdims=True)))
    return powers / (ops.sum(powers, 1, keepdims=True) + 1e-4)


def _linear(x: Array) -> Array:
    return x


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "linear": _linear,
    "logistic": ops.sigmoid,
    "loggy": _loggy,
    "relu": ops.relu,
    "relu6": ops.relu6,
    "elu": ops.elu,
    "selu": _selu,
    "gelu": _gelu,
    "relie": _relie,
    "ramp": _ramp,
    "leaky": _leaky,
    "revleaky": _leaky,
    "tanh": ops.tanh,
    "plse": _plse,
    "stair": _stair,
    "hardtan": ops.hardtanh,
    "lhtan": _lhtan,
    "softplus": ops.softplus,
    "swish": ops.silu,
    "mish": ops.mish,
    "hard_mish": _hard_mish,
    "normalize_channels": _normalize_channels,
    "normalize_channels_softmax": _normalize_channels_softmax,
    "normalize_channels_softmax_maxval": _normalize_channels_softmax_maxval,
}
