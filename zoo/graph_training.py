"""Imported graphs in training mode: batch norm by the statistics of the batch, dropout by a key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.graph import Graph, Node, Value
from zoonet.ops.registry import REGISTRY
from zoonet.ops.sets.onnx.random import drawing_from
from zoonet.ops.tracing import evaluate_graph
from zoonet.ops.types import TensorType
from zoonet.zoo.graph_weights import BATCH_NORM

_DROPOUT = "onnx.Dropout-"
_RANDOM = ("onnx.Random", "onnx.Bernoulli-", "onnx.Multinomial-")
#: Chance that a Dropout node drops where it does not say.
_USUAL_RATIO = 0.5


@dataclass(frozen=True)
class TrainingGraph:
    """A graph in training mode. outputs: how many are the graph's own; statistics: names of those that follow.

    drops: nodes of dropout, which read the key that is then the last input.
    """

    graph: Graph
    outputs: int
    statistics: tuple[str, ...]
    drops: int

    def run(self, values: Sequence[Any], key: Any) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
        """The outputs, the statistics that moved by name, and the key of the next call.

        key: what random numbers are drawn from, None where there are none.
        """
        following = None
        if key is None:
            results = evaluate_graph(self.graph, *values)
        else:
            own, following = ops.unstack(ops.random_split(key, 2), 0)
            given = [*values, own] if self.drops else values
            with drawing_from(own, self.drops):
                results = evaluate_graph(self.graph, *given)
        return results[: self.outputs], dict(zip(self.statistics, results[self.outputs :], strict=True)), following


def training_graph(graph: Graph, statistics: Mapping[Value, str]) -> TrainingGraph:
    """The graph with batch-norm nodes whose statistics are in `statistics` (value -> name) and Dropout nodes training.

    before: %y = onnx.BatchNormalization-15(%x, %scale, %b, %mean, %var); %z = onnx.Dropout-13(%y, %ratio)
    after:  %y, %mean', %var' = batch_norm_training(%x, …); %z = dropout(%y, %key'); return …, %mean', %var'
    """
    result = graph.copy()
    used = {value for node in graph.nodes for value in node.inputs} | set(graph.outputs)
    key = Value(TensorType((2,), np.dtype(np.uint32)), "dropout_key")
    moved: dict[str, Value] = {}
    nodes: list[Node] = []
    drops = 0
    for node in result.nodes:
        made = None
        if _is_batch_norm(node, statistics):
            made = _trained_batch_norm(node)
            mean, variance = list(node.arguments.values())[3:5]
            moved |= {statistics[mean]: made.outputs[1], statistics[variance]: made.outputs[2]}
        elif _is_dropout(node, used):
            own = Value(key.type)
            made = _dropping(node, own, graph.constants)
            if made is not None:
                arguments = {"key": key, "data": result.add_constant(np.asarray(drops, np.int64))}
                nodes.append(Node(REGISTRY["random_fold_in"], arguments, (own,), True))
                drops += 1
        nodes.append(node if made is None else made)
    result.nodes = nodes
    count = len(result.outputs)
    result.outputs = [*result.outputs, *moved.values()]
    if drops:
        result.inputs.append(key)
    return TrainingGraph(result, count, tuple(moved), drops)


def inference_graph(graph: Graph, statistics: Mapping[Value, str]) -> Graph:
    """The graph with no node training, though its file may say so: batch norm by its statistics, no dropout.

    before: %y = onnx.BatchNormalization-15(%x, …, training_mode=1); %z = onnx.Dropout-13(%y, %ratio, %true)
    after:  %y = batch_norm(%x, %mean, %var, …); %z = positive(%y)
    """
    result = graph.copy()
    used = {value for node in graph.nodes for value in node.inputs} | set(graph.outputs)
    replaced: dict[Value, Value] = {}
    nodes: list[Node] = []
    for node in result.nodes:
        arguments = list(node.arguments.values())
        if _is_batch_norm(node, statistics) and (len(node.outputs) > 1 or node.arguments.get("training_mode")):
            x, scale, bias, mean, variance = arguments[:5]
            given = (x, mean, variance, scale, bias, node.arguments["epsilon"])
            op = REGISTRY["batch_norm"]
            nodes.append(Node(op, dict(zip(op.parameters, given, strict=True)), node.outputs[:1], True, node.name))
            replaced |= dict(zip(node.outputs[1:], (mean, variance), strict=False))
        elif _is_dropout(node, used):
            nodes.append(Node(REGISTRY["positive"], {"x": arguments[0]}, node.outputs[:1], True, node.name))
        else:
            nodes.append(node)
    result.nodes = nodes
    result.replace_uses(replaced)
    return result


def draws(graph: Graph) -> bool:
    """Whether random numbers belong to it when it trains: those of dropout, and of operators without a seed."""
    return any(
        node.op.name.startswith(_DROPOUT) or (node.op.name.startswith(_RANDOM) and node.arguments.get("seed") is None)
        for node in graph.nodes
    )


def trains_by_itself(graph: Graph, statistics: Mapping[Value, str]) -> bool:
    """Whether the file says that its batch norms use the batch, or that its dropouts drop."""
    for node in graph.nodes:
        mode = node.arguments.get("training_mode")
        if isinstance(mode, Value):
            mode = mode in graph.constants and bool(np.asarray(graph.constants[mode]).any())
        is_norm = _is_batch_norm(node, statistics)
        if (is_norm and len(node.outputs) > 1) or (mode and (is_norm or node.op.name.startswith(_DROPOUT))):
            return True
    return False


def _is_batch_norm(node: Node, statistics: Mapping[Value, str]) -> bool:
    """Whether it is a batch norm over channels that can be put in another mode."""
    return (
        node.op.name.startswith(BATCH_NORM)
        and all(value in statistics for value in list(node.arguments.values())[3:5])
        and len(node.outputs) <= 3
        and bool(node.arguments.get("spatial", 1))
    )


def _is_dropout(node: Node, used: set[Value]) -> bool:
    """Whether it is a dropout of which nothing but the result is used."""
    return node.op.name.startswith(_DROPOUT) and not any(value in used for value in node.outputs[1:])


def _trained_batch_norm(node: Node) -> Node:
    x, scale, bias, mean, variance = list(node.arguments.values())[:5]
    arguments = {
        "x": x,
        "weight": scale,
        "bias": bias,
        "running_mean": mean,
        "running_variance": variance,
        "momentum": 1 - node.arguments["momentum"],  # ONNX counts what is kept
        "eps": node.arguments["epsilon"],
    }
    outputs = [node.outputs[0], Value(mean.type), Value(variance.type)]
    outputs[1 : len(node.outputs)] = node.outputs[1:]
    return Node(REGISTRY["batch_norm_training"], arguments, tuple(outputs), False, node.name)


def _dropping(node: Node, key: Value, constants: Mapping[Value, Any]) -> Node | None:
    ratio = node.arguments.get("ratio")
    if isinstance(ratio, Value):
        if ratio not in constants:
            return None
        ratio = float(np.asarray(constants[ratio]).reshape(-1)[0])
    arguments = {
        "x": next(iter(node.arguments.values())),
        "key": key,
        "p": _USUAL_RATIO if ratio is None else float(ratio),
        "training": True,
    }
    return Node(REGISTRY["dropout"], arguments, (node.outputs[0],), True, node.name)
