"""Activations by Keras's names, and the layers that are activations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from zoonet import ops
from zoonet.ops.errors import ArgumentError, OperatorError, UnsupportedFormatError
from zoonet.ops.sets.keras.common import axes_of, floating
from zoonet.ops.sets.keras.registry import layer
from zoonet.ops.types import Array

__all__ = ["activate", "activation", "activation_names"]

#: A name, a pair (name, ((option, value), …)), or None for the identity.
Activation = Any
_ACTIVATIONS: dict[str, Callable[..., Array]] = {}


def activation(*names: str) -> Callable[[Callable[..., Array]], Callable[..., Array]]:
    """Declare an activation under the names that Keras files give it; a function of an array and options.

    Raises OperatorError if a name is taken.
    """

    def register(function: Callable[..., Array]) -> Callable[..., Array]:
        for name in names:
            if name in _ACTIVATIONS:
                raise OperatorError(f"an activation named {name} exists already", fix="choose another name")
            _ACTIVATIONS[name] = function
        return function

    return register


def activation_names() -> frozenset[str]:
    """The names of all activations."""
    return frozenset(_ACTIVATIONS)


def activate(x: Array, function: Activation) -> Array:
    """An activation by name applied to x. Raises UnsupportedFormatError for one that is not known."""
    name, options = function if isinstance(function, tuple) else (function, ())
    if name in (None, "linear"):
        return x
    found = _ACTIVATIONS.get(name)
    if found is None:
        raise UnsupportedFormatError(
            f"the activation {name!r} is not known",
            expected=", ".join(sorted(_ACTIVATIONS)),
            fix=f'declare one of your own, @activation("{name}") of zoonet.ops.sets.keras',
        )
    return found(x, **dict(options))


@activation("relu")
def relu(
    x: Array, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0, alpha: float = 0.0
) -> Array:
    """max(x, 0), cut at max_value; below the threshold negative_slope · (x - threshold). alpha: Keras 2's slope."""
    slope = negative_slope or alpha
    if not slope and not threshold:
        return ops.relu(x) if max_value is None else ops.clip(x, 0.0, float(max_value))
    y = ops.where(ops.greater(x, threshold), x, 0.0) if threshold else ops.relu(x)
    if max_value is not None:
        y = ops.clip(y, 0.0, float(max_value))
    return ops.subtract(y, ops.multiply(ops.relu(ops.subtract(threshold, x)), slope)) if slope else y


@activation("leaky_relu")
def leaky_relu(x: Array, negative_slope: float = 0.2, alpha: float | None = None) -> Array:
    """x where it is positive, else negative_slope · x."""
    return ops.leaky_relu(x, negative_slope if alpha is None else alpha)


@activation("elu")
def elu(x: Array, alpha: float = 1.0) -> Array:
    """x where it is positive, else alpha · (exp(x) - 1)."""
    return ops.elu(x, alpha)


@activation("gelu")
def gelu(x: Array, approximate: bool = False) -> Array:
    """x · Φ(x), or its approximation by tanh."""
    return ops.gelu(x, "tanh" if approximate else "none")


@activation("celu")
def celu(x: Array, alpha: float = 1.0) -> Array:
    """x where it is positive, else alpha · (exp(x / alpha) - 1)."""
    return ops.celu(x, alpha)


@activation("softmax")
def softmax(x: Array, axis: int = -1) -> Array:
    """Softmax along an axis."""
    return ops.softmax(x, axis)


@activation("log_softmax")
def log_softmax(x: Array, axis: int = -1) -> Array:
    """The logarithm of softmax along an axis."""
    return ops.log_softmax(x, axis)


@activation("glu")
def glu(x: Array, axis: int = -1) -> Array:
    """One half of x by the sigmoid of the other."""
    return ops.glu(x, axis)


@activation("hard_sigmoid")
def hard_sigmoid(x: Array) -> Array:
    """relu6(x + 3) / 6, as Keras 3 has it."""
    return ops.hardsigmoid(x)


@activation("hard_sigmoid_v2")
def hard_sigmoid_v2(x: Array) -> Array:
    """0.2 · x + 0.5 cut at 0 and 1, which Keras 1 and 2 call hard_sigmoid."""
    return ops.hardsigmoid(x, 0.2, 0.5)


@activation("soft_shrink")
def soft_shrink(x: Array, threshold: float = 0.5) -> Array:
    """x moved towards 0 by the threshold."""
    return ops.softshrink(x, threshold)


@activation("hard_shrink")
def hard_shrink(x: Array, threshold: float = 0.5) -> Array:
    """x, or 0 where it is within the threshold."""
    return ops.hardshrink(x, threshold)


@activation("threshold")
def threshold(x: Array, threshold: float, default_value: float) -> Array:
    """x above the threshold, else the default value."""
    return ops.threshold(x, threshold, default_value)


@activation("sparse_plus")
def sparse_plus(x: Array) -> Array:
    """0 below -1, x above 1, (x + 1)² / 4 between."""
    middle = ops.multiply(ops.square(ops.add(x, 1.0)), 0.25)
    return ops.where(ops.less_equal(x, -1.0), 0.0, ops.where(ops.less(x, 1.0), middle, x))


@activation("sparse_sigmoid")
def sparse_sigmoid(x: Array) -> Array:
    """(x + 1) / 2 cut at 0 and 1."""
    return ops.hardsigmoid(x, 0.5, 0.5)


@activation("squareplus")
def squareplus(x: Array, b: float = 4) -> Array:
    """(x + √(x² + b)) / 2."""
    return ops.multiply(ops.add(x, ops.sqrt(ops.add(ops.square(x), float(b)))), 0.5)


@activation("sparsemax")
def sparsemax(x: Array, axis: int = -1) -> Array:
    """Keras's sparsemax: max(x - tau, 0), with tau from the sums of all sums of the largest numbers.

    The projection of Martins and Astudillo (2016) takes the last of these sums alone; models were trained with this.
    """
    moved = ops.moveaxis(x, axis, -1)
    ordered = ops.sort(moved, -1, True)
    counts = ops.arange(1, int(moved.shape[-1]) + 1, dtype=ordered.dtype)
    sums = ops.cumsum(ordered, -1)
    inside = ops.greater(ops.add(ops.multiply(ordered, counts), 1.0), sums)
    support = ops.sum(ops.cast(inside, ordered.dtype), -1, True)
    kept = ops.sum(ops.where(inside, sums, 0.0), -1, True)
    tau = ops.divide(ops.subtract(kept, 1.0), support)
    return ops.moveaxis(ops.relu(ops.subtract(moved, tau)), -1, axis)


for _names, _function in (
    (("sigmoid",), ops.sigmoid),
    (("tanh",), ops.tanh),
    (("selu",), ops.selu),
    (("softplus",), ops.softplus),
    (("softsign",), ops.softsign),
    (("relu6",), ops.relu6),
    (("silu", "swish"), ops.silu),
    (("mish",), ops.mish),
    (("exponential",), ops.exp),
    (("log_sigmoid",), ops.log_sigmoid),
    (("hard_silu", "hard_swish"), ops.hardswish),
    (("hard_tanh",), ops.hardtanh),
    (("tanh_shrink",), ops.tanhshrink),
):
    activation(*_names)(_function)


# -- layers ------------------------------------------------------------------------------------------------------


@layer("Activation", masks=True)
def activation_layer(inputs: Array, /, activation: Activation = None) -> Array:
    """An activation by its name."""
    return activate(inputs, activation)


@layer("ReLU", masks=True)
def relu_layer(
    inputs: Array, /, max_value: float | None = None, negative_slope: float = 0.0, threshold: float = 0.0
) -> Array:
    """See `relu`."""
    return relu(inputs, negative_slope, max_value, threshold)


@layer("LeakyReLU", masks=True)
def leaky_relu_layer(inputs: Array, /, negative_slope: float = 0.3) -> Array:
    """x where it is positive, else negative_slope · x."""
    return ops.leaky_relu(inputs, negative_slope)


@layer("ELU", masks=True)
def elu_layer(inputs: Array, /, alpha: float = 1.0) -> Array:
    """x where it is positive, else alpha · (exp(x) - 1)."""
    return ops.elu(inputs, alpha)


@layer("ThresholdedReLU", masks=True)
def thresholded_relu(inputs: Array, /, theta: float = 1.0) -> Array:
    """x where it exceeds theta, else 0."""
    return ops.threshold(inputs, theta, 0.0)


@layer("PReLU", weights=["alpha"], masks=True)
def prelu(inputs: Array, alpha: Array, /, shared_axes: tuple[int, ...] | None = None) -> Array:
    """x where it is positive, else alpha · x; alpha has a number for each feature, 1 along shared axes."""
    return ops.subtract(ops.relu(inputs), ops.multiply(alpha, ops.relu(ops.negative(inputs))))


@layer("Softmax", masks=True)
def softmax_layer(inputs: Array, mask: Array | None = None, /, axis: Any = -1) -> Array:
    """Softmax along one or several axes; positions that the mask leaves out get 0."""
    x = floating(inputs)
    if mask is not None:
        x = ops.where(mask, x, -3e4 if x.dtype.itemsize == 2 else -1e9)
    axes = axes_of(axis, len(x.shape), "Softmax")
    y = ops.softmax(x, axes[0]) if len(axes) == 1 else ops.exp(ops.subtract(x, ops.logsumexp(x, axes, True)))
    return y if mask is None else ops.where(mask, y, 0.0)


def numeric(value: Any, name: str, option: str) -> float:
    """A finite number. Raises ArgumentError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ArgumentError(f"{name}: {option} is not a number", expected="a finite number", received=value)
    return float(value)
