"""Move transposes behind what acts on elements or axes alike, so that opposite ones meet and vanish."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from zoonet.ops.graph import Graph, Node, Value, map_values, values_in
from zoonet.ops.registry import ARRAY, REGISTRY
from zoonet.ops.types import TensorType

Axes = tuple[int, ...]


def sink_transposes(graph: Graph) -> Graph:
    """A graph in which transposes come after element by element operators, padding, concatenation, softmax and means.

    Two in a row become one, and those that undo each other vanish: a network with channels last, whose convolutions
    each turn their input and turn it back, is left with one at its beginning and one at its end, or none.

    before: %1 = transpose(%x, (0, 2, 3, 1)); %2 = relu(%1); %3 = transpose(%2, (0, 3, 1, 2)); return %3
    after:  %1 = relu(%x); return %1
    """
    result = graph.copy()
    return _Sinking(result).run() if any(node.op.name == "transpose" for node in result.nodes) else result


class _Sinking:
    """turned: for a value that is a transpose, what it is of, and the axes."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.turned: dict[Value, tuple[Value, Axes]] = {}
        self.same: dict[Value, Value] = {}
        self.nodes: list[Node] = []

    def run(self) -> Graph:
        """The graph after one walk from inputs to outputs."""
        for node in self.graph.nodes:
            node.arguments = {key: map_values(value, self._final) for key, value in node.arguments.items()}
            if node.op.name == "transpose":
                self._transpose(node)
            elif not self._sink(node):
                self.nodes.append(node)
        self.graph.nodes = self.nodes
        self.graph.outputs = [self._final(value) for value in self.graph.outputs]
        return self.graph

    def _final(self, value: Value) -> Value:
        return self.same.get(value, value)

    def _transpose(self, node: Node) -> None:
        source, [y] = node.arguments["x"], node.outputs
        rank = len(source.type.shape)
        axes = node.arguments["axes"]
        axes = tuple(range(rank))[::-1] if axes is None else tuple([a % rank for a in axes])
        if source in self.turned:
            source, first = self.turned[source]
            axes = tuple([first[a] for a in axes])
        if axes == tuple(range(rank)):
            self.same[y] = source
            return
        self.turned[y] = source, axes
        node.arguments = {"x": source, "axes": axes}
        self.nodes.append(node)

    def _sink(self, node: Node) -> bool:
        """Apply the node before the transpose of its operands, if it can be."""
        if len(node.outputs) != 1 or not any(value in self.turned for value in node.inputs):
            return False
        if node.op.name in _REDUCTIONS and not node.arguments["keepdims"]:
            self._drop(node)
            return False
        if node.op.promotes:
            arguments = self._elementwise(node)
        else:
            change = _CHANGES.get(node.op.name)
            arguments = change(self, node) if change is not None else None
        if arguments is None:
            return False
        axes = self._axes(node)
        [y] = node.outputs
        shape: list[Any] = [None] * len(axes)
        for place, axis in enumerate(axes):
            shape[axis] = y.type.shape[place]
        inner = Value(TensorType(tuple(shape), y.type.dtype), y.name)
        self.nodes.append(Node(node.op, arguments, (inner,), node.single, node.name))
        self.nodes.append(Node(REGISTRY["transpose"], {"x": inner, "axes": axes}, (y,), True))
        self.turned[y] = inner, axes
        return True

    def _drop(self, node: Node) -> None:
        """Let a reduction that drops axes read what is before the transpose, if the other axes are in order there."""
        source, axes = self.turned[node.arguments["x"]]
        axis = node.arguments["axis"]
        given = range(len(axes)) if axis is None else (axis,) if isinstance(axis, int) else axis
        dropped = {a % len(axes) for a in given}
        kept = [axes[a] for a in range(len(axes)) if a not in dropped]
        if kept == sorted(kept):
            node.arguments = {**node.arguments, "x": source, "axis": tuple(sorted(axes[a] for a in dropped))}

    def _axes(self, node: Node) -> Axes:
        return next(self.turned[value][1] for value in node.inputs if value in self.turned)

    def _elementwise(self, node: Node) -> dict[str, Any] | None:
        axes, rank = self._axes(node), len(node.outputs[0].type.shape)
        if len(axes) != rank:
            return None
        arguments = dict(node.arguments)
        for name, value in arguments.items():
            if not isinstance(value, Value) or node.op.roles[name] != ARRAY:
                if any(True for _ in values_in(value)):
                    return None
                continue
            if value in self.turned and self.turned[value][1] == axes:
                arguments[name] = self.turned[value][0]
            elif value in self.graph.constants and not value.type.shape:
                continue
            elif value in self.graph.constants:
                arguments[name] = self._constant(value, axes)
            else:
                return None
        return arguments

    def _constant(self, value: Value, axes: Axes) -> Value:
        """A constant that broadcasts before the transpose as the given one does after it."""
        array = self.graph.constants[value]
        wide = array.reshape((1,) * (len(axes) - array.ndim) + tuple(array.shape))
        return self.graph.add_constant(wide.transpose([int(a) for a in np.argsort(axes)]), value.name)

    def all_turned(self, values: Sequence[Any]) -> tuple[list[Value], Axes] | None:
        """What the values are transposes of, if all are by the same axes."""
        found = [self.turned.get(value) for value in values]
        known = [entry for entry in found if entry is not None]
        if len(known) < len(found) or len({axes for _, axes in known}) != 1:
            return None
        return [source for source, _ in known], known[0][1]


def _concat(sinking: _Sinking, node: Node) -> dict[str, Any] | None:
    found = sinking.all_turned(node.arguments["arrays"])
    if found is None:
        return None
    sources, axes = found
    return {"arrays": tuple(sources), "axis": axes[node.arguments["axis"] % len(axes)]}


def _along_axis(sinking: _Sinking, node: Node) -> dict[str, Any] | None:
    source, axes = sinking.turned[node.arguments["x"]]
    return {**node.arguments, "x": source, "axis": axes[node.arguments["axis"] % len(axes)]}


def _pad(sinking: _Sinking, node: Node) -> dict[str, Any] | None:
    source, axes = sinking.turned[node.arguments["x"]]
    widths = node.arguments["pad_width"]
    if not isinstance(widths, tuple) or len(widths) != len(axes) or not all(isinstance(w, tuple) for w in widths):
        return None
    moved: list[Any] = [None] * len(axes)
    for place, axis in enumerate(axes):
        moved[axis] = widths[place]
    return {**node.arguments, "x": source, "pad_width": tuple(moved)}


def _reduce(sinking: _Sinking, node: Node) -> dict[str, Any] | None:
    source, axes = sinking.turned[node.arguments["x"]]
    axis = node.arguments["axis"]
    given = range(len(axes)) if axis is None else (axis,) if isinstance(axis, int) else axis
    return {**node.arguments, "x": source, "axis": tuple(sorted(axes[a % len(axes)] for a in given))}


_REDUCTIONS = ("mean", "sum", "max", "min")
_CHANGES: dict[str, Callable[[_Sinking, Node], dict[str, Any] | None]] = {
    "concat": _concat,
    "softmax": _along_axis,
    "log_softmax": _along_axis,
    "pad": _pad,
    **dict.fromkeys(_REDUCTIONS, _reduce),
}
