"""Fitting a model to data: a new head for other classes, and which parameters are trained."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from copy import copy
from dataclasses import fields, replace
from typing import Any

import numpy as np

from zoonet.ops.errors import ArgumentError, InputError
from zoonet.ops.graph import Value
from zoonet.ops.types import is_floating
from zoonet.zoo import architectures
from zoonet.zoo.graphs import GraphNetwork
from zoonet.zoo.modules import Module, compare_shapes
from zoonet.zoo.train.updates import Names, matches

__all__ = ["head_of", "trainable", "with_classes"]

Array = Any


def _has_classes(network: Module) -> bool:
    config = getattr(network, "config", None)
    return config is not None and any(f.name == "classes" for f in fields(config))


def head_of(network: Module) -> list[str]:
    """The names of the parameters that make the scores: those whose shape depends on the number of classes.

    For other networks, those of the last layer.
    """
    if isinstance(network, GraphNetwork):
        return graph_head(network)
    if _has_classes(network):
        config = network.config  # type: ignore[attr-defined]
        if not config.classes and "classes" in vars(config):
            return []  # a network that gives features
        other = _remade(network, replace(config, classes=config.classes + 1), None)
        wrong = compare_shapes(network.state_dict(), other.state_dict()).wrong
        if wrong:
            layers = {name.rpartition(".")[0] for name in wrong}
            return [name for name, _ in network.named_parameters() if name.rpartition(".")[0] in layers]
    names = [name for name, _ in network.named_parameters()]
    last = names[-1].rpartition(".")[0] if names else ""
    return [name for name in names if name.rpartition(".")[0] == last]


def _remade(network: Module, config: Any, seed: int | None) -> Module:
    """A network of the same kind with another configuration."""
    kind: Any = type(network)
    if "head" in inspect.signature(kind.__init__).parameters:
        head = network.head  # type: ignore[attr-defined]
        return architectures.make(lambda given: kind(given, head), config, seed)
    return architectures.make(kind, config, seed)


def can_change_classes(network: Module) -> bool:
    """Whether a network's last layer can be made anew."""
    return isinstance(network, GraphNetwork) or _has_classes(network)


def with_classes(network: Module, classes: int, seed: int) -> Module:
    """A network of another number of classes: all weights are kept but those of the head, drawn from the seed."""
    if isinstance(network, GraphNetwork):
        return graph_with_classes(network, classes, seed)
    if not _has_classes(network):
        raise InputError(
            f"{type(network).__name__} has other classes than the data, and its last layer cannot be made anew",
            received=f"{classes} classes in the data",
            fix="make the network with this number of classes",
        )
    config = replace(network.config, classes=classes)  # type: ignore[attr-defined]
    new = _remade(network, config, seed)
    kept = set(head_of(network))
    state = {name: array for name, array in network.state_dict().items() if name not in kept}
    dtypes = {np.dtype(a.dtype) for _, a in network.named_parameters() if is_floating(a.dtype)}
    if len(dtypes) == 1:
        new.to(dtype=dtypes.pop())
    new.load_state_dict(state, strict=False)
    return new


def trainable(network: Module, freeze: Names | None) -> list[str]:
    """The names of the floating parameters that are trained. Raises ArgumentError for patterns that fit none."""
    names = [name for name, array in network.named_parameters() if is_floating(array.dtype)]
    if freeze is None:
        return names
    if freeze == "backbone":
        head = set(head_of(network))
        return [name for name in names if name in head]
    fits = matches(freeze)
    kept = [name for name in names if not fits(name)]
    if len(kept) == len(names):
        raise ArgumentError(
            "freeze fits no parameter",
            expected=f"'backbone', or patterns of {', '.join(names[:4])}, …",
            received=freeze,
        )
    if not kept:
        raise ArgumentError("everything is frozen", fix="freeze fewer parameters", received=freeze)
    return kept


def set_training(network: Module, names: Sequence[str]) -> None:
    """Training mode for the modules that have a trained parameter of their own, and for those that have none.

    A batch norm whose weights are frozen keeps its statistics.
    """
    chosen = set(names)
    network.train()
    for prefix, module in network.named_modules():
        own = [name for name, _ in module.named_parameters()]
        start = f"{prefix}." if prefix else ""
        if own and not any(start + name in chosen for name in own):
            module.training = False


# -- graphs --------------------------------------------------------------------------------------------------------


def _last_layer(network: GraphNetwork) -> list[tuple[str, int]]:
    """The parameters of a graph's last product, each with its axis of classes."""
    graph = network._graph
    places = {value: name for name, value in network._places.items()}
    makers = {value: node for node in graph.nodes for value in node.outputs}
    classes = network.config.classes
    value = graph.outputs[0]
    found: list[tuple[str, int]] = []
    for _ in range(8):
        node = makers.get(value)
        if node is None:
            return []
        weights = [v for v in node.inputs if v in places and places[v] in network.weights]
        for weight in weights:
            array = network.weights[places[weight]]
            axes = [axis for axis, n in enumerate(array.shape) if n == classes]
            if classes and axes:
                name = node.op.name.lower()
                rows = (
                    bool(node.arguments.get("transB"))
                    if "gemm" in name
                    else name.startswith("linear") or ("conv" in name and not name.startswith("keras."))
                )
                found.append((places[weight], axes[0] if rows else axes[-1]))
        if any(network.weights[name].ndim > 1 for name, _ in found):
            return found
        following = [v for v in node.inputs if isinstance(v, Value) and v not in places and v not in graph.constants]
        if not following:
            return []
        value = following[0]
    return []


def _set_units(network: GraphNetwork, weights: set[Value], classes: int) -> None:
    """Tell the layers of these weights how many outputs they have, where they say it, as Keras's do, and layers after
    them that put the classes in a shape."""
    old = network.config.classes
    for graph in (network._graph, getattr(network, "_training_graph", None)):
        after = False
        for node in graph.nodes if graph is not None else ():
            target = node.arguments.get("target_shape")
            if after and isinstance(target, tuple) and target[-1:] == (old,):
                node.arguments["target_shape"] = (*target[:-1], classes)
            after = after or not weights.isdisjoint(node.inputs)
            for size in ("units", "filters"):
                if size in node.arguments and not weights.isdisjoint(node.inputs):
                    node.arguments[size] = classes


def graph_head(network: GraphNetwork) -> list[str]:
    """The names of the parameters of a graph's last layer; of its last array where that is not known."""
    found = _last_layer(network)
    return [name for name, _ in found] or list(network.weights)[-1:]


def ends_in_softmax(network: Module) -> bool:
    """Whether a network's outputs are probabilities: those of a graph that ends in a softmax, unless it is used as a
    classifier of pictures, which gives their logarithms.
    """
    if not isinstance(network, GraphNetwork) or network.classifies:
        return False
    return bool(getattr(network.config, "probabilities", False))


def ends_in_sigmoid(network: Module) -> bool:
    """Whether the outputs of a graph are those of a sigmoid."""
    if not isinstance(network, GraphNetwork) or not network._graph.outputs:
        return False
    last = next((n for n in network._graph.nodes if network._graph.outputs[0] in n.outputs), None)
    return last is not None and (
        last.op.name.startswith("onnx.Sigmoid-") or last.arguments.get("activation") == "sigmoid"
    )


def graph_with_classes(network: GraphNetwork, classes: int, seed: int) -> Module:
    """A copy of the graph, its last layer drawn anew for another number of classes."""
    found = _last_layer(network)
    if not any(network.weights[name].ndim > 1 for name, _ in found):
        raise InputError(
            "the graph's last layer cannot be made anew for other classes",
            expected="a graph that ends in a matrix product with weights of its own",
            received=f"{network.config.classes} outputs for {classes} classes",
            fix="export a network with this number of classes",
        )
    network = copy(network)
    network.weights, network.state = dict(network.weights), dict(network.state)
    for held in ("_graph", "_training_graph"):
        if hasattr(network, held):
            setattr(network, held, getattr(network, held).copy())
    rng = np.random.default_rng(seed)
    for name, axis in found:
        old = network.weights[name]
        shape = tuple(classes if i == axis else n for i, n in enumerate(old.shape))
        if old.ndim == 1:
            network.weights[name] = np.zeros(shape, old.dtype)
        else:
            fan = max(1, int(np.prod(shape)) // classes)
            network.weights[name] = rng.uniform(-1, 1, shape).astype(old.dtype) / np.asarray(fan**0.5, old.dtype)
    _set_units(network, {network._places[name] for name, _ in found}, classes)
    output = network.config.outputs[0]
    ports = (replace(output, shape=(*(output.shape or ())[:-1], classes)), *network.config.outputs[1:])
    network.config = replace(network.config, outputs=ports)
    return network
