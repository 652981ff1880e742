"""Networks of your own as models: a `Module`, or a plain function of parameters and inputs.

model = zoo.wrap(MyNetwork(), labels=("cat", "dog"), preprocessing=zoo.ImagePreprocessing())
model = zoo.wrap(lambda p, x: ops.tanh(x @ p["w"]) @ p["v"], {"w": w, "v": v})
history = model.train((x, y))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, InputError
from zoonet.ops.operands import Traced
from zoonet.ops.types import TensorType, is_floating
from zoonet.zoo.arrays import Measured
from zoonet.zoo.classification import ImageClassification, floating_dtype
from zoonet.zoo.model import Card, Model
from zoonet.zoo.modules import Module

if TYPE_CHECKING:
    from zoonet.zoo.classification import Preprocessing

__all__ = ["FunctionNetwork", "OwnTask", "wrap"]

Array = Any


class FunctionNetwork(Module):
    """A function (parameters, *inputs) -> outputs as a module. parameters: arrays in nested dicts, lists and tuples.

    They are named by their places: {"layers": [{"w": …}]} has "layers.0.w".
    """

    flat = ("weights",)

    def __init__(self, function: Callable[..., Any], parameters: Any) -> None:
        self._function = function
        self.weights: dict[str, Array] = {}
        self._tree = self._enter(parameters, "")
        if not self.weights:
            raise ArgumentError("the function has no parameters", expected="arrays, or dicts and lists of them")

    def _enter(self, tree: Any, name: str) -> Any:
        """The tree with names in the place of arrays, which go to `weights`."""
        start = f"{name}." if name else ""
        if isinstance(tree, Mapping):
            return {key: self._enter(item, f"{start}{key}") for key, item in tree.items()}
        if isinstance(tree, list | tuple):
            return type(tree)([self._enter(item, f"{start}{place}") for place, item in enumerate(tree)])
        if not ops.is_array(tree) and not isinstance(tree, int | float):
            raise ArgumentError(
                f"the parameter {name or '?'} is no array", expected="arrays", received=type(tree).__name__
            )
        name = name or "parameters"
        self.weights[name] = tree if ops.is_array(tree) else np.asarray(tree, np.float32)
        return name

    @property
    def values(self) -> Any:
        """The parameters in the containers that they came in."""
        return self._filled(self._tree)

    def _filled(self, tree: Any) -> Any:
        if isinstance(tree, dict):
            return {key: self._filled(item) for key, item in tree.items()}
        if isinstance(tree, list | tuple):
            return type(tree)([self._filled(item) for item in tree])
        return self.weights[tree]

    def forward(self, *inputs: Any) -> Any:
        """What the function gives."""
        return self._function(self.values, *inputs)


class OwnTask(Measured):
    """Arrays in, what the network gives out. shape: of one input, without the batch axis, where it is known."""

    name = "own"
    unit = "arrays"

    def __init__(self, shape: tuple[int, ...] | None = None) -> None:
        self.shape = shape

    @classmethod
    def from_config(cls, config: Mapping[str, Any], network: Module, architecture: str, file: str) -> Self:
        """See `Task`."""
        return cls()

    def to_config(self) -> dict[str, Any]:
        """Nothing is known of it."""
        return {}

    def run(self, model: Model, source: Any) -> Any:
        """The outputs for arrays (N, …): an array, or a tuple of several."""
        return model(*source) if isinstance(source, tuple) else model(source)

    def from_arguments(self, arguments: Sequence[str]) -> Any:
        """Arrays from .npy and .npz files."""
        from zoonet.zoo.graphs import named_arrays

        found = [named_arrays(path) for path in arguments]
        return tuple(found) if len(found) > 1 else found[0]

    def check(self, network: Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Arrays; floats in the network's dtype. Raises InputError."""
        dtype = floating_dtype(network)
        result = []
        for value in inputs:
            try:
                array = value if ops.is_array(value) or isinstance(value, Traced) else np.asarray(value)
            except ValueError as error:
                raise InputError("the model takes arrays", received=error) from None
            if array.dtype.kind in "OUS":
                raise InputError("the model takes arrays of numbers", received=array.dtype)
            result.append(array.astype(dtype, copy=False) if is_floating(array.dtype) else array)
        return tuple(result)

    def example(self, network: Module) -> tuple[TensorType, ...]:
        """The type of one input. Raises ArgumentError where its shape is not known."""
        if self.shape is None:
            raise ArgumentError("the shape of the input is not known", fix="zoo.wrap(network, shape=…)")
        return (TensorType((1, *self.shape), floating_dtype(network)),)


def wrap(
    network: Module | Callable[..., Any],
    parameters: Any = None,
    *,
    labels: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
    shape: Sequence[int] | None = None,
    name: str = "",
) -> Model:
    """A network of your own as a Model, with `train`, `evaluate` and `run`.

    network: a Module, or a function (parameters, x) -> outputs with its parameters: arrays in nested dicts and lists.
    preprocessing: for pictures, which `run` and `train` then take; labels: of the classes, those of the training data
    where None. Without preprocessing it takes arrays. shape: of one input. `save` writes the weights alone, which
    `model.network.load_state_dict(formats.read(path))` takes again. Raises ArgumentError.
    """
    if isinstance(network, Module):
        if parameters is not None:
            raise ArgumentError("a module has parameters of its own", fix="leave parameters out")
        module = network
    elif callable(network):
        if parameters is None:
            raise ArgumentError("the function has no parameters", fix="give them: zoo.wrap(function, parameters)")
        module = FunctionNetwork(network, parameters)
    else:
        raise ArgumentError(
            "this is no network", expected="a Module, or a function with parameters", received=type(network).__name__
        )
    task: Any = OwnTask(tuple(shape) if shape is not None else None)
    if preprocessing is not None:
        task = ImageClassification(preprocessing, labels or ())
    called = name or (
        type(network).__name__ if isinstance(network, Module) else getattr(network, "__name__", "function")
    )
    return Model(module, "own", task, card=Card(name=called.strip("<>"), notes="random parameters"))
