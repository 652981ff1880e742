"""Summaries: layers, output shapes, parameters and operations of a network, found by tracing it."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from zoonet import ops
from zoonet.ops import trees
from zoonet.ops.errors import InputError, OperatorError
from zoonet.ops.graph import Graph, Node
from zoonet.ops.passes import expand_composites
from zoonet.ops.tracing import Variable
from zoonet.ops.types import TensorType
from zoonet.zoo.modules import Module, observed_by


@dataclass(frozen=True)
class Row:
    """One layer: name, kind, output shape, its own parameters, and its multiply-adds (those below it included)."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Summary:
    """All layers that hold parameters, and totals. flops: two per multiply-add, and one per element otherwise.

    multiply_adds: of convolutions and matrix products, which is what papers call FLOPs.
    """

    name: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    rows: tuple[Row, ...]
    parameters: int
    buffers: int
    multiply_adds: int
    flops: int

    def __str__(self) -> str:
        head = ("layer", "kind", "output", "parameters", "multiply-adds")
        cells = [
            head,
            *((r.name, r.kind, _shape(r.shape), f"{r.parameters:,}", _short(r.multiply_adds)) for r in self.rows),
        ]
        widths = [max(len(row[i]) for row in cells) for i in range(5)]
        lines = [
            "  ".join(
                text.ljust(w) if i < 3 else text.rjust(w) for i, (text, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in cells
        ]
        lines.insert(1, "-" * len(lines[0]))
        return "\n".join(
            [
                f"{self.name}: input {_shape(self.input_shape)}, output {_shape(self.output_shape)}",
                *map(str.rstrip, lines),
                f"total: {self.parameters:,} parameters, {self.buffers:,} numbers of state, "
                f"{_short(self.multiply_adds)} multiply-adds, {_short(self.flops)} FLOPs",
            ]
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**vars(self), "rows": [vars(row) for row in self.rows]}


def summarize(network: Module, types: Sequence[TensorType], name: str = "network") -> Summary:
    """The summary of a network for the types of its inputs. Raises InputError for types that it cannot take."""
    names = {id(module): path for path, module in network.named_modules()}
    calls: list[tuple[Module, Any, int, int]] = []
    graph: Graph | None = None

    def observe(module: Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        nonlocal graph
        if graph is None:  # that of the network's own inputs; a table of positions is given none of them
            graph = next(x for x in trees.leaves((inputs, keywords)) if isinstance(x, Variable)).trace.graph
        first = len(graph.nodes)
        output = module.forward(*inputs, **keywords)
        calls.append((module, output, first, len(graph.nodes)))
        return output

    try:
        with observed_by(observe):
            whole = ops.trace(network, *types)
    except OperatorError as error:
        shapes = " and ".join(str(list(kind.shape)) for kind in types)
        raise InputError(f"{name} cannot take an input of shape {shapes}", fix=str(error)) from None
    costs = [multiply_adds(node) for node in whole.nodes]
    rows = []
    for module, output, first, last in calls:
        own = sum(
            int(slot.get().size) for slot in module.slots().values() if slot.module is module and not slot.is_buffer
        )
        if own:
            kind = type(module).__name__
            main = output if hasattr(output, "shape") else trees.leaves(output)[0]
            rows.append(Row(names[id(module)], kind, tuple(main.shape), own, sum(costs[first:last])))
    expanded = expand_composites(whole, "cpu")
    return Summary(
        name,
        types[0].shape,
        tuple(whole.outputs[0].type.shape),
        tuple(rows),
        sum(int(array.size) for _, array in network.named_parameters()),
        sum(int(array.size) for _, array in network.named_buffers()),
        sum(costs),
        sum(flops(node) for node in expanded.nodes),
    )


def multiply_adds(node: Node) -> int:
    """Multiply-adds of a convolution, linear layer, matrix product or attention; 0 for other operators."""
    size = int(node.outputs[0].type.size)
    kind = node.op.name
    if kind == "conv":
        return size * prod(int(n or 0) for n in node.arguments["weight"].type.shape[1:])
    if kind == "linear":
        return size * int(node.arguments["weight"].type.shape[-1] or 0)
    if kind == "scaled_dot_product_attention":
        query, value = node.arguments["query"].type, node.arguments["value"].type
        return (int(query.size) + size) * int(value.shape[-2] or 0)
    if kind == "matmul":
        return size * int(node.inputs[0].type.shape[-1] or 0)
    return 0


#: Operators that move data without computing.
_MOVES = frozenset(("reshape", "transpose", "cast", "index", "pad", "concat", "broadcast_to", "squeeze", "expand_dims"))


def flops(node: Node) -> int:
    """Two per multiply-add; one per element of the result for other operators that compute."""
    cost = multiply_adds(node)
    if cost:
        return 2 * cost
    return 0 if node.op.name in _MOVES else sum(value.type.size for value in node.outputs)


def _shape(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _short(number: int) -> str:
    for limit, suffix in ((10**9, " G"), (10**6, " M"), (10**3, " k")):
        if number >= limit:
            return f"{number / limit:.2f}{suffix}"
    return str(number)
