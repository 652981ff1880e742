"""Remove nodes and constants that no output needs."""

from __future__ import annotations

from zoonet.ops.graph import Graph


def eliminate_dead_code(graph: Graph) -> Graph:
    """A graph with only the nodes and constants that its outputs depend on; inputs are kept.

    before: %1 = relu(%x); %2 = exp(%x); return %1
    after:  %1 = relu(%x); return %1
    """
    result = graph.copy()
    needed = set(result.outputs)
    kept = []
    for node in reversed(result.nodes):
        if any(value in needed for value in node.outputs):
            needed.update(node.inputs)
            kept.append(node)
    result.nodes = kept[::-1]
    result.constants = {value: array for value, array in result.constants.items() if value in needed}
    return result
