"""Which constants of an imported graph are weights: parameters that gradients train, and state that they do not."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from dataclasses import replace
from enum import Enum
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
#: By operator: the inputs that are weights where they are constant.
_WEIGHTS: dict[str, tuple[int, ...]] = {
    "BatchNormalization": (1, 2, 3, 4),
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "DeformConv": (1, 3),
    "GRU": (1, 2, 3),
    "Gather": (0,),
    "Gemm": (0, 1, 2),
    "GroupNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LSTM": (1, 2, 3, 7),
    "LayerNormalization": (1, 2),
    "MatMul": (0, 1),
    "PRelu": (1,),
    "RMSNormalization": (1,),
    "RNN": (1, 2, 3),
}
#: Operators whose result a bias may be added to.
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
#: Words in names of constants that are no parameters.
_MADE_UP = re.compile(r"const|eps|^val_|^onnx", re.IGNORECASE)
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

    Parameters are floating initializers that operators compute with, state the running statistics of batch norm. A
    single number is one where an operator has a weight (the slope of PRelu), or by a name that no exporter makes up
    (`logit_scale`, not `val_77`); a Constant node, as old exporters have weights, where an operator has one, or behind
    a product. Settings, such as the bounds of Clip, are neither.
    """
    model = untied(model)
    graph, constants = model.graph, model.graph.constants
    uses = _uses(graph)
    statistics = statistics_of(graph)
    candidates = dict(model.initializers)
    if not _is_own(model):
        known = set(candidates.values())
        for value in uses:
            if value in constants and value not in known and value.name and _Use.WEIGHT in uses[value]:
                candidates[_free(value.name, candidates)] = value
    floating = {
        name: value
        for name, value in candidates.items()
        if value in uses and value in constants and is_floating(constants[value].dtype)
        if constants[value].size != 1 or _Use.WEIGHT in uses[value] or _is_given(name)
    }
    parameters = {name: value for name, value in floating.items() if value not in statistics}
    return model, parameters, {name: value for name, value in floating.items() if value in statistics}


class _Use(Enum):
    """What a node does with a constant."""

    WEIGHT = "weight"
    OTHER = "other"


def _uses(graph: Graph) -> dict[Value, set[_Use]]:
    """What nodes do with each value that is no setting of theirs."""
    products = {output for node in graph.nodes if _operator(node) in _PRODUCTS for output in node.outputs}
    result: dict[Value, set[_Use]] = {}
    for node in graph.nodes:
        name, settings = _operator(node), _settings(node)
        follows = name == "Add" and any(value in products for value in node.inputs)  # the bias of a product
        for value, place in _reads(node):
            if place not in settings:
                array = graph.constants.get(value)
                is_weight = place in _WEIGHTS.get(name, ()) or (follows and array is not None and array.ndim > 0)
                result.setdefault(value, set()).add(_Use.WEIGHT if is_weight else _Use.OTHER)
    return result


def _is_given(name: str) -> bool:
    """Whether it may be the name of a parameter in a program: words and dots, not of a constant, not numbered."""
    words = name.split(".")
    plain = all(word.isidentifier() or word.isdigit() for word in words)
    return plain and not words[-1][-1:].isdigit() and _MADE_UP.search(name) is None


def _free(name: str, taken: Container[str]) -> str:
    while name in taken:
        name += "'"
    return name


def _is_own(model: OnnxModel) -> bool:
    """Whether zoonet wrote the file: then the arrays of the network, and no others, are initializers, each once."""
    return model.producer.split(" ")[0] == "zoonet"


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
    if _is_own(model):
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
            chosen = _free(name or names[value], initializers)
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
