"""Fold batch normalisation with constant statistics into the convolution or linear layer before it."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoonet.ops.devices import array_module
from zoonet.ops.graph import Graph, Node, Value
from zoonet.ops.types import TensorType

#: Operators whose output channels are scaled by scaling their weight, with the weight's axis of output channels.
_OUTPUT_AXIS = {"conv": 0, "linear": 0}


def fold_batch_norm(graph: Graph) -> Graph:
    """A graph in which conv or linear followed by batch_norm is one conv or linear with another weight and bias.

    Only where the weight and the statistics are constants and nothing else reads the unnormalised result. The new
    weight is computed in float64 and rounded once.

    before: %1 = conv(%x, %w); %2 = batch_norm(%1, %mean, %variance, %scale, %shift); return %2
    after:  %2 = conv(%x, %w', %b'); return %2
    """
    result = graph.copy()
    readers = result.consumers()
    producers = {value: node for node in result.nodes for value in node.outputs}
    removed: set[int] = set()
    replacements: dict[Value, Value] = {}
    for node in result.nodes:
        if node.op.name != "batch_norm":
            continue
        before = producers.get(node.arguments["x"])
        if before is None or before.op.name not in _OUTPUT_AXIS or id(before) in removed:
            continue
        unnormalised = before.outputs[0]
        if before.op.name == "linear" and unnormalised.type.ndim != 2:
            continue  # its channels are last, those of batch_norm on axis 1
        if len(readers[unnormalised]) != 1 or unnormalised in result.outputs:
            continue
        if _fold(result, before, node):
            removed.add(id(node))
            replacements[node.outputs[0]] = unnormalised
            readers[unnormalised] = readers.get(node.outputs[0], [])
            producers[node.outputs[0]] = before
    result.nodes = [node for node in result.nodes if id(node) not in removed]
    result.replace_uses(replacements)
    return result


def _constant(graph: Graph, argument: Any) -> Any:
    """The array of a constant argument in float64; None for no argument; raises KeyError otherwise."""
    return None if argument is None else graph.constants[argument].astype(np.float64)


def _fold(graph: Graph, layer: Node, norm: Node) -> bool:
    try:
        weight, bias = (_constant(graph, layer.arguments[name]) for name in ("weight", "bias"))
        mean, variance, scale, shift = (
            _constant(graph, norm.arguments[name]) for name in ("mean", "variance", "weight", "bias")
        )
    except KeyError:
        return False
    dtype = layer.outputs[0].type.dtype
    if norm.outputs[0].type.dtype != dtype:
        return False
    xp = array_module(mean)
    factor = 1 / xp.sqrt(variance + norm.arguments["eps"])
    if scale is not None:
        factor = factor * scale
    offset = (0 if bias is None else bias) - mean
    offset = offset * factor + (0 if shift is None else shift)
    axis = _OUTPUT_AXIS[layer.op.name]
    shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
    arrays = {"weight": (weight * factor.reshape(shape)).astype(dtype), "bias": offset.astype(dtype)}
    for name, array in arrays.items():
        value = Value(TensorType(array.shape, array.dtype), getattr(layer.arguments[name], "name", None))
        graph.constants[value] = array
        layer.arguments[name] = value
    return True
