"""Imported graphs in training mode: batch norm by the statistics of the batch, dropout by a key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.graph import Graph, Node, Value
from zoonet.ops.registry import REGISTRY
from zoonet.ops.tracing import evaluate_graph
from zoonet.ops.types import TensorType

_BATCH_NORM, _DROPOUT = "onnx.BatchNormalization-", "onnx.Dropout-"
#: Chance that a Dropout node drops where it does not say.
_USUAL_RATIO = 0.5


def statistics_of(graph: Graph) -> set[Value]:
    """Means and variances that batch-norm nodes of the graph read."""
    return {
        value
        for node in graph.nodes
        if node.op.name.startswith(_BATCH_NORM)
        for value in list(node.arguments.values())[3:5]
        if isinstance(value, Value)
    }


@dataclass(frozen=True)
class TrainingGraph:
    """A graph in training mode. outputs: how many are the graph's own; statistics: names of those that follow.

    key: the input that dropout reads, None where nothing drops.
    """

    graph: Graph
    outputs: int
    statistics: tuple[str, ...]
    key: Value | None

    def run(self, values: Sequence[Any], key: Any) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
        """The outputs, the statistics that moved by name, and the key of the next call."""
        given, following = list(values), None
        if self.key is not None:
            own, following = ops.unstack(ops.random_split(key, 2), 0)
            given.append(own)
        results = evaluate_graph(self.graph, *given)
        return results[: self.outputs], dict(zip(self.statistics, results[self.outputs :], strict=True)), following


def training_graph(graph: Graph, statistics: Mapping[Value, str]) -> TrainingGraph:
    """The graph with batch-norm nodes whose statistics are in `statistics` (value -> name) and Dropout nodes training.

    before: %y = onnx.BatchNormalization-15(%x, %scale, %b, %mean, %var); %z = onnx.Dropout-13(%y, %ratio)
    after:  %y, %mean', %var' = batch_norm_training(%x, …); %z = dropout(%y, %key'); return …, %mean', %var'
    Nodes that the file itself puts in training mode stay as they are.
    """
    result = graph.copy()
    used = {value for node in graph.nodes for value in node.inputs} | set(graph.outputs)
    key = Value(TensorType((2,), np.dtype(np.uint32)), "dropout_key")
    moved: dict[str, Value] = {}
    nodes: list[Node] = []
    drops = 0
    for node in result.nodes:
        made = None
        if node.op.name.startswith(_BATCH_NORM):
            made = _trained_batch_norm(node, statistics)
            if made is not None:
                mean, variance = list(node.arguments.values())[3:5]
                moved |= {statistics[mean]: made.outputs[1], statistics[variance]: made.outputs[2]}
        elif node.op.name.startswith(_DROPOUT) and not any(value in used for value in node.outputs[1:]):
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
    return TrainingGraph(result, count, tuple(moved), key if drops else None)


def _trained_batch_norm(node: Node, statistics: Mapping[Value, str]) -> Node | None:
    x, scale, bias, mean, variance = list(node.arguments.values())[:5]
    if mean not in statistics or variance not in statistics:
        return None
    if len(node.outputs) > 1 or node.arguments.get("training_mode") or not node.arguments.get("spatial", 1):
        return None
    arguments = {
        "x": x,
        "weight": scale,
        "bias": bias,
        "running_mean": mean,
        "running_variance": variance,
        "momentum": 1 - node.arguments["momentum"],  # ONNX counts what is kept
        "eps": node.arguments["epsilon"],
    }
    outputs = (node.outputs[0], Value(mean.type), Value(variance.type))
    return Node(REGISTRY["batch_norm_training"], arguments, outputs, False, node.name)


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
