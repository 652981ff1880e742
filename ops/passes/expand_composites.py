"""Replace composite operators by the operators that their bodies call."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from zoonet.ops.graph import Graph, Value
from zoonet.ops.operands import type_of
from zoonet.ops.registry import Op
from zoonet.ops.tracing import Abstract, Variable, run_node, tracing_types


class _Inlining(Abstract):
    def __init__(self, name: str, device: str, keep: Container[str] | None) -> None:
        super().__init__(name)
        self.device = device
        self.keep = keep

    def call(self, op: Op[..., Any], arguments: dict[str, Any]) -> Any:
        if op.is_composite and not self._kept(op, arguments):
            return op.expand(arguments)
        return super().call(op, arguments)

    def _kept(self, op: Op[..., Any], arguments: dict[str, Any]) -> bool:
        if self.keep is not None:
            return op.name in self.keep
        return op.find_kernel(self.device, op.map_operands(arguments, type_of)) is not None


def expand_composites(graph: Graph, device: str = "cpu", keep: Container[str] | None = None) -> Graph:
    """A graph without composites, except those with a kernel for the device and types; or those in `keep`, if given.

    before: %1 = layer_norm(%x, shape=(8,)); return %1
    after:  %1 = mean(%x, axis=-1); %2 = subtract(%x, %1); …; return %9
    """
    if not any(node.op.is_composite for node in graph.nodes):
        return graph
    inlining = _Inlining(graph.name, device, keep)
    environment: dict[Value, Any] = {v: inlining.input(v.type, v.name) for v in graph.inputs}
    for value, array in graph.constants.items():
        constant = inlining.value_of(array)
        constant.name = constant.name or value.name
        environment[value] = Variable(inlining, constant)
    for node in graph.nodes:
        with tracing_types():
            results = run_node(node.op, node.arguments, environment.__getitem__)
        for value, result in zip(node.outputs, results, strict=True):
            environment[value] = result
            if isinstance(result, Variable) and result.value.name is None:
                result.value.name = value.name
    inlining.closed = True
    expanded = inlining.graph
    expanded.outputs = [inlining.value_of(environment[value]) for value in graph.outputs]
    expanded.input_tree, expanded.output_tree = graph.input_tree, graph.output_tree
    return expanded
