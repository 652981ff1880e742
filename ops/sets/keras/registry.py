"""Declaration and lookup of Keras layers: each is an inline composite named `keras.Dense`.

A layer is a function of its inputs, its weights and its options, under the names and with the defaults of Keras. A
layer of one's own is declared with the same decorator, and is then found by readers of Keras files:

    @layer("Scale", weights=[Weight("factor")])
    def scale(inputs: Array, factor: Array, /, power: int = 1) -> Array:
        return ops.multiply(inputs, ops.pow(factor, power))
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zoonet.ops.devices import constants_follow
from zoonet.ops.errors import OperatorError, UnsupportedFormatError
from zoonet.ops.registry import REGISTRY, Op, composite

__all__ = ["Layer", "Weight", "find_layer", "is_known", "layer", "layers"]


@dataclass(frozen=True)
class Weight:
    """One array that a layer owns.

    name: the parameter that takes it. when: the option under which it exists, always if None. trainable: False for
    statistics. path: where a Keras 3 file keeps it below the layer; "vars/0", "vars/1", … in order where None.
    """

    name: str
    when: str | None = None
    trainable: bool = True
    path: str | None = None


@dataclass(frozen=True)
class Layer:
    """A declared layer.

    inputs: names of the parameters that are tensors of the graph, in the order of Keras's call. many: the first input
    is a list of tensors. options: names of those that are plain data, with their defaults; required: those without.
    passes_mask: the mask of the first input is that of the output. outputs: how many there are for given options, 1 if
    None. draws: options that make the layer draw random numbers in training, by a `random_key`, where one is not 0.
    """

    op: Op[..., Any]
    name: str
    inputs: tuple[str, ...]
    weights: tuple[Weight, ...]
    options: Mapping[str, Any]
    required: frozenset[str]
    many: bool
    passes_mask: bool
    outputs: Callable[[Mapping[str, Any]], int] | None
    cell: bool
    any_options: bool
    draws: tuple[str, ...]

    def training(self, options: Mapping[str, Any]) -> Op[..., Any] | None:
        """The same layer in training, where that differs for these options."""
        if any(options.get(option, self.options.get(option)) for option in self.draws):
            return self.op
        return REGISTRY.get(f"{self.op.name}.training")


_LAYERS: dict[str, Layer] = {}
_OF_TEXTS = "it takes texts, and the arrays of a graph hold numbers"
_OF_HASHES = "it numbers what it is given by a hash of TensorFlow"
#: Layers before a network that are known and not computed, and why.
_BEFORE = {
    "TextVectorization": _OF_TEXTS,
    "StringLookup": _OF_TEXTS,
    "Hashing": _OF_HASHES,
    "HashedCrossing": _OF_HASHES,
}


def layer(
    *names: str,
    weights: Sequence[Weight | str] = (),
    masks: bool = False,
    outputs: Callable[[Mapping[str, Any]], int] | None = None,
    cell: bool = False,
    any_options: bool = False,
    draws: Sequence[str] = (),
) -> Callable[[Callable[..., Any]], Op[..., Any]]:
    """Declare a layer under the class names that Keras files give it.

    The function's positional-only parameters are the layer's inputs (tensors), then its weights by the names of
    `weights`, then further inputs that may be missing (masks, states); those after the `/` are options from the
    layer's configuration, as plain, hashable data. weights: names, or `Weight` where more is to be said. masks: a mask
    of the first input is passed on. outputs: the number of outputs for given options; the function then returns a
    tuple. cell: Keras keeps the weights in a cell below the layer. any_options: options of the configuration that the
    function does not have are of no consequence. draws: options, such as the rate of a dropout inside, with which the
    layer draws random numbers in training: the function's last positional-only parameter is then `random_key`, None in
    inference. A name such as "Lambda:NAME" is for the layer NAME alone, and
    "PACKAGE>NAME" for a registered class. Raises OperatorError if a name is taken.
    """
    declared = tuple([Weight(weight) if isinstance(weight, str) else weight for weight in weights])

    def register(function: Callable[..., Any]) -> Op[..., Any]:
        parameters = list(inspect.signature(function).parameters.values())
        arrays = [p for p in parameters if p.kind == inspect.Parameter.POSITIONAL_ONLY]
        owned = {weight.name for weight in declared} | ({"random_key"} if draws else set())
        inputs = tuple(p.name for p in arrays if p.name not in owned)
        rest = [p for p in parameters if p not in arrays]
        if owned - {p.name for p in arrays}:
            raise OperatorError(
                f"layer {names[0]} declares a weight that its function does not take",
                expected="positional-only parameters " + ", ".join(sorted(owned)),
            )
        for name in names:
            op: Op[..., Any] = composite(inline=True, exact=True, name=f"keras.{name}")(_following(function))
            _LAYERS[name] = Layer(
                op,
                name,
                inputs,
                declared,
                {p.name: p.default for p in rest if p.default is not inspect.Parameter.empty},
                frozenset(p.name for p in rest if p.default is inspect.Parameter.empty),
                "Sequence" in str(arrays[0].annotation) if arrays else False,
                masks,
                outputs,
                cell,
                any_options,
                tuple(draws),
            )
        return op

    return register


def _following(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, whose constants (masks, first states, statistics of the configuration) lie where its inputs do."""

    @functools.wraps(function)
    def body(*args: Any) -> Any:
        with constants_follow():
            return function(*args)

    return body


def training(*names: str) -> Callable[[Callable[..., Any]], Op[..., Any]]:
    """Declare what layers do in training. The function has the parameters of the layer.

    One that draws random numbers takes a further positional-only `random_key` at the end; one that has statistics
    returns (output, new statistics in the order of its weights that are not trainable).
    """

    def register(function: Callable[..., Any]) -> Op[..., Any]:
        for name in names:
            op: Op[..., Any] = composite(inline=True, exact=True, name=f"keras.{name}.training")(_following(function))
        return op

    return register


def layers() -> dict[str, Layer]:
    """Every declared layer by name."""
    return dict(_LAYERS)


def is_known(*names: str | None) -> bool:
    """True if a layer is declared under one of these names."""
    return any(name in _LAYERS for name in names)


def find_layer(class_name: str, name: str = "", registered: str | None = None) -> Layer:
    """The layer of a class, or what is declared for the layer of this name alone.

    registered: the name of a custom class with its package. Raises UnsupportedFormatError that says what is near.
    """
    for key in (f"{class_name}:{name}", registered, class_name):
        if key in _LAYERS:
            return _LAYERS[key]
    shown = f"layer {name!r}" if name else "the layer"
    if class_name == "Lambda":
        raise UnsupportedFormatError(
            f"{shown} is a Lambda: it consists of Python code in the file, which is never run",
            expected="layers that are described by data",
            received="Lambda",
            fix=f'declare what it computes, @layer("Lambda:{name}") of zoonet.ops.sets.keras, '
            "or save the model again with a layer in its place",
        )
    if class_name in _BEFORE:
        raise UnsupportedFormatError(
            f"{shown} is a {class_name}, which is not computed: {_BEFORE[class_name]}",
            expected="a model that takes numbers",
            received=class_name,
            fix="save the part of the model after it, keras.Model(layer.output, model.output), and give it what the "
            "layer gives",
        )
    near = difflib.get_close_matches(class_name, [key for key in _LAYERS if ":" not in key], 3, 0.6)
    raise UnsupportedFormatError(
        f"{shown} is of the class {registered or class_name}, which is not known",
        expected=f"a layer of keras.layers{', such as ' + ', '.join(near) if near else ''}",
        received=registered or class_name,
        fix=f'declare a layer of your own, @layer("{class_name}") of zoonet.ops.sets.keras',
    )
