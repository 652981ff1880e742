"""Compute what depends on constants alone once, when the graph is compiled."""

from __future__ import annotations

from zoonet.ops.graph import Graph
from zoonet.ops.tracing import run_node

#: A folded result may be this much larger than the constants that it came from (1 MiB is always allowed), so that
#: a broadcast of a small constant does not become a large one.
GROWTH = 2
ALLOWED = 1 << 20


def fold_constants(graph: Graph) -> Graph:
    """A graph in which nodes whose operands are all constants are replaced by their results.

    before: %c = constant; %1 = exp(%c); %2 = add(%x, %1); return %2
    after:  %1 = constant; %2 = add(%x, %1); return %2
    """
    result = graph.copy()
    kept = []
    for node in result.nodes:
        inputs = node.inputs
        if not all(value in result.constants for value in inputs):
            kept.append(node)
            continue
        before = sum(result.constants[value].nbytes for value in set(inputs))
        after = sum(value.type.size * value.type.dtype.itemsize for value in node.outputs)
        if after > max(ALLOWED, GROWTH * before):
            kept.append(node)
            continue
        outputs = run_node(node.op, node.arguments, result.constants.__getitem__)
        result.constants.update(zip(node.outputs, outputs, strict=True))
    result.nodes = kept
    return result
