"""Compute equal expressions once."""

from __future__ import annotations

from typing import Any

from zoonet.ops.graph import Graph, Value


def _key(argument: Any) -> Any:
    if isinstance(argument, Value):
        return id(argument)
    if isinstance(argument, tuple):
        return tuple([_key(item) for item in argument])
    return type(argument), repr(argument)


def eliminate_common_subexpressions(graph: Graph) -> Graph:
    """A graph in which nodes with the same operator and the same arguments are one node.

    Operators are pure functions (random ones take their key), so this never changes a result.

    before: %1 = exp(%x); %2 = exp(%x); %3 = add(%1, %2); return %3
    after:  %1 = exp(%x); %3 = add(%1, %1); return %3
    """
    result = graph.copy()
    seen: dict[Any, tuple[Value, ...]] = {}
    for node in list(result.nodes):
        key = (id(node.op), tuple((name, _key(argument)) for name, argument in node.arguments.items()))
        first = seen.setdefault(key, node.outputs)
        if first is not node.outputs:
            result.nodes.remove(node)
            result.replace_uses(dict(zip(node.outputs, first, strict=True)))
    return result
