"""Which constants of an imported graph are weights: parameters that gradients train, and state that they do not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from zoonet.ops.graph import Graph, Node, Value, map_values
from zoonet.ops.types import is_floating

if TYPE_CHECKING:
    from zoonet.formats.onnx import OnnxModel

BATCH_NORM = "onnx.BatchNormalization-"
#: By operator: the inputs that are settings and no weights, though they are floating.
_SETTINGS = {
    "Clip": (1, 2),
    "Dropout": (1,),
    "OneHot": (2,),
    "Pad": (2,),
    "Pow": (1,),
    "Range": (0, 1, 2),
    "Resize": (1, 2),
    "Upsample": (1,),
    "NonMaxSuppression": (3, 4),
    "QuantizeLinear": (1,),
    "DequantizeLinear": (1,),
    "QLinearConv": (1, 4, 6),
    "QLinearMatMul": (1, 4, 6),
}
#: By operator: what PyTorch calls the weights at its inputs.
_ROLES = {
    "BatchNormalization": {1: "weight", 2: "bias", 3: "running_mean", 4: "running_var"},
    "InstanceNormalization": {1: "weight", 2: "bias"},
    "LayerNormalization": {1: "weight", 2: "bias"},
    "GroupNormalization": {1: "weight", 2: "bias"},
    "Conv": {2: "bias"},
    "ConvTranspose": {2: "bias"},
    "Gemm": {2: "bias"},
    "Mul": {0: "weight", 1: "weight"},
    "Add": {0: "bias", 1: "bias"},
}


def weights_of(model: OnnxModel) -> tuple[OnnxModel, dict[str, Value], dict[str, Value]]:
    """The model with weights of their own for each use (see `untied`), its parameters by name, and its state.

    Parameters are floating initializers that operators compute with, state the running statistics of batch norm. Single
    numbers (initializers of no axes) and settings, such as the bounds of Clip, are neither.
    """
    model = untied(model)
    constants = model.graph.constants
    used = {value for node in model.graph.nodes for value, place in _reads(node) if place not in _settings(node)}
    statistics = statistics_of(model.graph)
    floating = {
        name: value
        for name, value in model.initializers.items()
        if value in used and value in constants and constants[value].ndim and is_floating(constants[value].dtype)
    }
    parameters = {name: value for name, value in floating.items() if value not in statistics}
    return model, parameters, {name: value for name, value in floating.items() if value in statistics}


def statistics_of(graph: Graph) -> set[Value]:
    """Means and variances that batch-norm nodes of the graph read."""
    return {
        value
        for node in graph.nodes
        if node.op.name.startswith(BATCH_NORM)
        for value in list(node.arguments.values())[3:5]
        if isinstance(value, Value)
    }


def untied(model: OnnxModel) -> OnnxModel:
    """The model in which vectors of one number that several nodes read are vectors of their own for each.

    Exporters write equal arrays once: a network that is not trained yet has all its norms' ones and zeros in one place,
    which training must not move together. PyTorch writes an Identity under the name of each array that it leaves out
    (arrays that are one in the network are one in its file); other vectors get names from those of their nodes. Files
    of zoonet have each array of the network under its name, and stay as they are.
    before: %bn2.weight = Identity(%bn1.weight); BatchNormalization(%y, %bn2.weight, …)
    after:  BatchNormalization(%y, %bn2.weight, …), where %bn2.weight is a constant
    """
    if model.producer.split(" ")[0] == "zoonet":
        return model
    graph = model.graph.copy()
    initializers = dict(model.initializers)
    copies: dict[Value, Value] = {}
    known = set(initializers.values())
    for node in graph.nodes:
        source = next(iter(node.arguments.values()), None)
        array = graph.constants.get(source) if source in known else None
        if array is None or _operator(node) != "Identity" or not is_floating(array.dtype):
            continue
        if model.producer.startswith("pytorch") or _is_plain(array):
            [output] = node.outputs
            if output.name and output.name not in initializers and output not in graph.outputs:
                own = graph.add_constant(array.view(), output.name)
                initializers[output.name] = copies[output] = own
    graph.nodes = [node for node in graph.nodes if not any(output in copies for output in node.outputs)]
    graph.replace_uses(copies)
    _split(graph, initializers)
    return replace(model, graph=graph, initializers=initializers)


def _split(graph: Graph, initializers: dict[str, Value]) -> None:
    """Give each node that reads a plain vector of `initializers` its own, which is added there by name."""
    names = {value: name for name, value in initializers.items()}
    readers: dict[Value, list[tuple[int, int]]] = {}
    for index, node in enumerate(graph.nodes):
        for value, place in _reads(node):
            if value in names and place not in _settings(node):
                readers.setdefault(value, []).append((index, place))
    for value, uses in readers.items():
        if len(uses) == 1 or value in graph.outputs or not _is_plain(graph.constants.get(value)):
            continue
        wanted = [_scoped_name(graph.nodes[index], place) for index, place in uses]
        first = wanted.index(names[value]) if names[value] in wanted else 0
        for use, ((index, place), name) in enumerate(zip(uses, wanted, strict=True)):
            if use == first:
                continue
            chosen = name or names[value]
            while chosen in initializers:
                chosen += "'"
            initializers[chosen] = own = graph.add_constant(graph.constants[value].view(), chosen)
            _replace(graph.nodes[index], place, value, own)


def _is_plain(array: Any) -> bool:
    """Whether it is a floating vector of one number."""
    return (
        array is not None
        and array.ndim == 1
        and array.size > 1
        and is_floating(array.dtype)
        and bool(np.all(array == array[0]))
    )


def _operator(node: Node) -> str:
    return node.op.name.removeprefix("onnx.").rsplit(".", 1)[-1].rsplit("-", 1)[0]


def _settings(node: Node) -> tuple[int, ...]:
    return _SETTINGS.get(_operator(node), ())


def _reads(node: Node) -> Iterator[tuple[Value, int]]:
    """The values that a node reads, with the place of the argument that holds them."""
    for place, argument in enumerate(node.arguments.values()):
        for value in _values(argument):
            yield value, place


def _values(argument: Any) -> Iterator[Value]:
    """The values in an argument, itself or nested in tuples."""
    if isinstance(argument, Value):
        yield argument
    elif isinstance(argument, tuple):
        for item in argument:
            yield from _values(item)


def _replace(node: Node, place: int, old: Value, new: Value) -> None:
    key = list(node.arguments)[place]
    node.arguments[key] = map_values(node.arguments[key], lambda v: new if v is old else v)


def _scoped_name(node: Node, place: int) -> str:
    """ "layer1.0.bn2.weight" for a weight of the node "/layer1/layer1.0/bn2/BatchNormalization"; "" where unknown."""
    role = _ROLES.get(_operator(node), {}).get(place)
    parts = (node.name or "").split("/")
    if role is None or len(parts) < 3 or parts[0]:
        return ""
    path = ""
    for part in parts[1:-1]:
        path = part if not path or part.startswith(f"{path}.") else f"{path}.{part}"
    return f"{path}.{role}"
