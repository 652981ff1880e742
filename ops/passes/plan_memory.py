"""Decide which buffer each intermediate value lives in, so that buffers are used again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from zoonet.ops.graph import Graph, Node, Value


@dataclass(frozen=True)
class MemoryPlan:
    """buffers: sizes in bytes. placed: the buffer of each value that has one. frees: values dead after each node."""

    buffers: tuple[int, ...]
    placed: dict[Value, int]
    frees: tuple[tuple[Value, ...], ...]


def plan_memory(graph: Graph, takes_out: Callable[[Node], bool], in_place: Callable[[Node], bool]) -> MemoryPlan:
    """Buffers for the values whose nodes can write into a given one (takes_out), by a scan from first to last node.

    A buffer is free again after the last use of its value and of every view of it. in_place nodes may write over an
    operand of the same type that they are the last to use. Outputs of the graph get no buffer: they are the caller's.

    before: %1 = conv(%x); %2 = relu(%1); %3 = conv(%2); %4 = relu(%3); return %4
    after:  %1 -> buffer 0; %2 -> buffer 0; %3 -> buffer 1; %4 -> its own
    """
    roots = _roots(graph)
    last = _last_uses(graph, roots)
    escaping = {root for value in graph.outputs for root in roots.get(value, ())}
    sizes: list[int] = []
    free: list[int] = []
    placed: dict[Value, int] = {}
    frees: list[list[Value]] = [[] for _ in graph.nodes]
    for value, final in last.items():
        frees[final].append(value)
    for position, node in enumerate(graph.nodes):
        dying = [v for v in frees[position] if v in placed]
        value = node.outputs[0]
        if node.single and takes_out(node) and value not in escaping and value.type.size:
            needed = value.type.size * value.type.dtype.itemsize
            donor = None
            if in_place(node):
                donor = next((v for v in dying if v in node.inputs and v.type == value.type), None)
            if donor is not None:
                placed[value] = placed[donor]
                dying.remove(donor)
            else:
                placed[value] = _take(sizes, free, needed)
            if last.get(value) == position:
                dying.append(value)
        for dead in dying:
            if placed[dead] not in free:
                free.append(placed[dead])
    return MemoryPlan(tuple(sizes), placed, tuple(map(tuple, frees)))


def _take(sizes: list[int], free: list[int], needed: int) -> int:
    """The best-fitting free buffer, else the largest free one made larger, else a new one."""
    fitting = [b for b in free if sizes[b] >= needed]
    if fitting:
        chosen = min(fitting, key=lambda b: sizes[b])
    elif free:
        chosen = max(free, key=lambda b: sizes[b])
        sizes[chosen] = needed
    else:
        sizes.append(needed)
        return len(sizes) - 1
    free.remove(chosen)
    return chosen


def _roots(graph: Graph) -> dict[Value, tuple[Value, ...]]:
    """For each value made by a node, the values whose memory it may share (itself among them)."""
    roots: dict[Value, tuple[Value, ...]] = {}
    for node in graph.nodes:
        shared: list[Value] = []
        if node.op.view or node.op.is_composite:
            shared = [root for value in node.inputs for root in roots.get(value, ())]
        for value in node.outputs:
            roots[value] = (value, *shared)
    return roots


def _last_uses(graph: Graph, roots: dict[Value, tuple[Value, ...]]) -> dict[Value, int]:
    """The position of the last node that reads each value or a view of it; values of the graph's outputs have none."""
    last: dict[Value, int] = {}
    for position, node in enumerate(graph.nodes):
        for value in node.outputs:
            last[value] = position
        for value in node.inputs:
            for root in roots.get(value, ()):
                last[root] = position
    for value in graph.outputs:
        for root in roots.get(value, ()):
            last.pop(root, None)
    return last
