"""One training step as a function of arrays, and what to say where it gives no numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops import trees
from zoonet.ops.types import as_dtype, is_floating
from zoonet.zoo.modules import Module, functional_call, keyed_by, observed_by
from zoonet.zoo.train.objective import Objective

__all__ = ["first_not_finite", "make_gradients"]

Array = Any
Arrays = dict[str, Array]


def make_gradients(network: Module, objective: Objective, precision: str = "float32") -> Any:
    """A function (trained parameters, inputs, targets, key, scale) -> (loss, gradients, new state); it can be traced.

    scale: what the loss is multiplied by before it is differentiated, so that gradients in 16 bits do not vanish; they
    come divided by it. precision: what the network computes in; matrices and inputs are cast to it.
    """
    low = None if precision == "float32" else as_dtype(precision)

    def lowered(array: Array) -> Array:
        return ops.cast(array, low) if low is not None and is_floating(array.dtype) else array

    def gradients(parameters: Arrays, inputs: Array, targets: Array, key: Array, scale: Array) -> Any:
        def scalar(values: Arrays) -> Any:
            def loss(x: Array) -> Any:
                with keyed_by(key):
                    outputs = network(x)
                if low is not None:
                    outputs = trees.map_leaves(lambda y: ops.cast(y, "float32"), outputs)
                return objective.loss(outputs, targets)

            cast = {name: lowered(a) if a.ndim > 1 else a for name, a in values.items()} if low is not None else values
            value, state = functional_call(network, cast, lowered(inputs), function=loss)
            return value * scale, (value, state)

        (_, (value, state)), found = ops.value_and_grad(scalar, has_aux=True)(parameters)
        return value, {name: gradient / scale for name, gradient in found.items()}, state

    def unscaled(parameters: Arrays, inputs: Array, targets: Array, key: Array, scale: Array = None) -> Any:
        def scalar(values: Arrays) -> Any:
            def loss(x: Array) -> Any:
                with keyed_by(key):
                    return objective.loss(network(x), targets)

            return functional_call(network, values, inputs, function=loss)

        (value, state), found = ops.value_and_grad(scalar, has_aux=True)(parameters)
        return value, found, state

    return unscaled if low is None else gradients


def first_not_finite(network: Module, inputs: Array, key: Array, gradients: Mapping[str, Array]) -> str:
    """Where numbers end: the first layer whose output holds one that is none, or else the last parameter's gradient."""
    if not _finite(inputs):
        return "the input"
    names = {id(module): name for name, module in network.named_modules()}
    found: list[str] = []

    def observe(module: Module, given: tuple[Any, ...]) -> Any:
        outputs = module.forward(*given)
        below = bool(found)
        if not below and not all(map(_finite, trees.leaves(outputs))):
            found.append(names.get(id(module), "") or type(module).__name__)
        return outputs

    values = {name: slot.get() for name, slot in network.slots().items()}
    with np.errstate(all="ignore"), observed_by(observe), keyed_by(key):
        functional_call(network, values, inputs)
    if found:
        return f"the output of the layer {found[0]}"
    bad = [name for name, gradient in gradients.items() if not _finite(gradient)]
    return f"the gradient of {bad[-1]}" if bad else "the loss"


def _finite(array: Any) -> bool:
    if not hasattr(array, "dtype") or not is_floating(array.dtype):
        return True
    return bool(np.isfinite(ops.to_device(array, "cpu").astype(np.float64)).all())


def clipped(gradients: Arrays, limit: float) -> Arrays:
    """Gradients whose numbers lie in ±limit."""
    return {name: ops.clip(gradient, -limit, limit) for name, gradient in gradients.items()}


def added(total: Arrays, gradients: Arrays) -> Arrays:
    """The sum of gradients by name."""
    return {name: total[name] + gradient for name, gradient in gradients.items()} if total else gradients


def one_hot(targets: Array, classes: int, dtype: Any) -> Array:
    """Classes (B,) as probabilities (B, classes)."""
    result = np.zeros((len(targets), classes), dtype)
    result[np.arange(len(targets)), targets] = 1
    return result
