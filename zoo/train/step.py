"""One training step as a function of arrays, and what to say where it gives no numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops import trees
from zoonet.ops.errors import TraceError
from zoonet.ops.types import as_dtype, is_floating
from zoonet.zoo.modules import Module, functional_call, keyed_by, observed_by
from zoonet.zoo.train.objective import Objective
from zoonet.zoo.train.recompute import recomputing
from zoonet.zoo.train.updates import Names

__all__ = ["Gradients", "first_not_finite"]

Array = Any
Arrays = dict[str, Array]
_SIGNATURES = 4  # shapes of batches for which compiled programs are kept


class Gradients:
    """The loss of a batch, its gradients, and the new state of the network: the part of a step that is a function.

    Called with (trained parameters, state, inputs, targets, key, scale) it gives (loss, gradients, new state), each by
    name. scale: what the loss is multiplied by before it is differentiated, so that gradients in 16 bits do not vanish;
    they come divided by it. precision: what the network computes in; matrices and inputs are cast to it.
    checkpointing: see `recompute`. It is traced and compiled for each signature, unless the network or the loss looks
    at the contents of arrays, or draws random numbers of its own.
    """

    def __init__(
        self,
        network: Module,
        objective: Objective,
        precision: str = "float32",
        device: str = "cpu",
        checkpointing: bool | Names = False,
    ) -> None:
        self.network, self.objective, self.device = network, objective, device
        self._observer = recomputing(network, checkpointing) if checkpointing else None
        self._low = None if precision == "float32" else as_dtype(precision)
        self._programs: dict[Any, Callable[..., Any]] = {}

    def __call__(
        self, parameters: Arrays, state: Arrays, inputs: Array, targets: Array, key: Array, scale: Array
    ) -> tuple[Array, Arrays, Arrays]:
        """See the class."""
        arguments = (parameters, state, inputs, targets, key, scale)
        signature = tuple([(a.shape, str(a.dtype)) for a in (inputs, targets)])
        if signature not in self._programs:
            if len(self._programs) >= _SIGNATURES:
                self._programs.pop(next(iter(self._programs)))
            self._programs[signature] = self._compiled(arguments)
        result: tuple[Array, Arrays, Arrays] = self._programs[signature](*arguments)
        return result

    def _compiled(self, arguments: tuple[Any, ...]) -> Callable[..., Any]:
        try:
            graph, again = ops.trace(self.function, *arguments), ops.trace(self.function, *arguments)
        except TraceError:
            return self.function
        first, second = list(graph.constants.values()), list(again.constants.values())
        same = len(first) == len(second) and all(
            a is b or (a.shape == b.shape and np.array_equal(_bytes(a), _bytes(b)))
            for a, b in zip(first, second, strict=True)
        )
        return ops.compile(graph, device=self.device) if same else self.function

    def function(
        self, parameters: Arrays, state: Arrays, inputs: Array, targets: Array, key: Array, scale: Array
    ) -> tuple[Array, Arrays, Arrays]:
        """The function itself, on arrays or traced values."""
        low = self._low

        def lowered(array: Array) -> Array:
            return ops.cast(array, low) if is_floating(array.dtype) else array

        def scalar(values: Arrays) -> Any:
            def loss(x: Array) -> Any:
                with keyed_by(key), observed_by(self._observer) if self._observer else nullcontext():
                    outputs = self.objective.outputs(self.network, x)
                if low is not None:
                    outputs = trees.map_leaves(lambda y: ops.cast(y, "float32"), outputs)
                return self.objective.loss(outputs, targets)

            x = inputs
            if low is not None:
                values, x = {name: lowered(a) if a.ndim > 1 else a for name, a in values.items()}, lowered(inputs)
            value, new = functional_call(self.network, {**state, **values}, x, function=loss)
            return value if low is None else value * scale, (value, new)

        (_, (value, new)), found = ops.value_and_grad(scalar, has_aux=True)(parameters)
        return value, found if low is None else {name: gradient / scale for name, gradient in found.items()}, new


def _bytes(array: Array) -> Array:
    return np.frombuffer(np.ascontiguousarray(ops.to_device(array, "cpu")).tobytes(), np.uint8)


def first_not_finite(
    network: Module, objective: Objective, inputs: Array, key: Array, gradients: Mapping[str, Array]
) -> str:
    """Where numbers end: the first layer whose output holds one that is none, or else the last parameter's gradient."""
    if not finite(inputs):
        return "the input"
    names = {id(module): name for name, module in network.named_modules()}
    found: list[str] = []

    def observe(module: Module, given: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        outputs = module.forward(*given, **keywords)
        below = bool(found)
        if not below and not all(map(finite, trees.leaves(outputs))):
            found.append(names.get(id(module), "") or type(module).__name__)
        return outputs

    values = {name: slot.get() for name, slot in network.slots().items()}
    with np.errstate(all="ignore"), observed_by(observe), keyed_by(key):
        functional_call(network, values, inputs, function=lambda x: objective.outputs(network, x))
    if found:
        return f"the output of the layer {found[0]}"
    bad = [name for name, gradient in gradients.items() if not finite(gradient)]
    return f"the gradient of {bad[-1]}" if bad else "the loss"


def finite(array: Any) -> bool:
    """Whether an array holds finite numbers only."""
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
