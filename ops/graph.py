"""The graph: a printable, checkable list of nodes in static single assignment form.

It knows no file format. The tape of a gradient, a traced function and an imported file are all a `Graph`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from zoonet.ops.errors import GraphError
from zoonet.ops.types import TensorType

__all__ = ["Graph", "Node", "Value"]

if TYPE_CHECKING:
    from zoonet.ops.registry import Op


class Value:
    """One array in a graph: an input, a constant or an output of one node. Compared by identity."""

    __slots__ = ("name", "type")

    def __init__(self, type: TensorType, name: str | None = None) -> None:
        self.type = type
        self.name = name

    def __repr__(self) -> str:
        return f"<Value {self.name or hex(id(self))}: {self.type}>"


def values_in(argument: Any) -> Iterator[Value]:
    """The values that an argument holds, itself or nested in tuples."""
    if isinstance(argument, Value):
        yield argument
    elif isinstance(argument, tuple | list):
        for item in argument:
            yield from values_in(item)


def map_values(argument: Any, function: Callable[[Value], Any]) -> Any:
    """The argument with each value in it replaced by function(value)."""
    if isinstance(argument, Value):
        return function(argument)
    if isinstance(argument, tuple):
        return tuple([map_values(item, function) for item in argument])
    return argument


class Node:
    """One operator applied: arguments by parameter name (values, tuples of values, or plain data) and outputs."""

    __slots__ = ("arguments", "name", "op", "outputs", "single")

    def __init__(
        self,
        op: Op[..., Any],
        arguments: dict[str, Any],
        outputs: tuple[Value, ...],
        single: bool,
        name: str | None = None,
    ) -> None:
        self.op = op
        self.arguments = arguments
        self.outputs = outputs
        self.single = single
        self.name = name

    @property
    def inputs(self) -> list[Value]:
        """The values that the node reads, in order, repeated where it reads one twice."""
        return [value for argument in self.arguments.values() for value in values_in(argument)]


@dataclass(eq=False)
class Graph:
    """Inputs, constants, nodes in the order in which they run, and outputs."""

    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    constants: dict[Value, Any] = field(default_factory=dict)
    name: str = "graph"
    #: The containers of the traced function's arguments and result, with types as leaves; None where unknown.
    input_tree: Any = None
    output_tree: Any = None

    def add_input(self, type: TensorType, name: str | None = None) -> Value:
        """Append an input."""
        value = Value(type, name)
        self.inputs.append(value)
        return value

    def add_constant(self, array: Any, name: str | None = None) -> Value:
        """Add an array as a constant."""
        value = Value(TensorType(tuple(array.shape), array.dtype), name)
        self.constants[value] = array
        return value

    def add_node(
        self,
        op: Op[..., Any],
        arguments: dict[str, Any],
        types: TensorType | tuple[TensorType, ...],
        name: str | None = None,
    ) -> Node:
        """Append a node with new outputs of these types."""
        single = isinstance(types, TensorType)
        outputs = (Value(types),) if isinstance(types, TensorType) else tuple(Value(t) for t in types)
        node = Node(op, arguments, outputs, single, name)
        self.nodes.append(node)
        return node

    def copy(self) -> Graph:
        """A graph with lists of its own over the same values; nodes are copied, constant arrays are shared."""
        nodes = [Node(n.op, dict(n.arguments), n.outputs, n.single, n.name) for n in self.nodes]
        return Graph(
            list(self.inputs),
            list(self.outputs),
            nodes,
            dict(self.constants),
            self.name,
            self.input_tree,
            self.output_tree,
        )

    def consumers(self) -> dict[Value, list[Node]]:
        """For each value that is read, the nodes that read it."""
        result: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for value in node.inputs:
                readers = result.setdefault(value, [])
                if not readers or readers[-1] is not node:
                    readers.append(node)
        return result

    def replace_uses(self, replacements: dict[Value, Value]) -> None:
        """Let nodes and outputs read replacements[value] where they read value; chains are followed."""
        if not replacements:
            return

        def final(value: Value) -> Value:
            while value in replacements:
                value = replacements[value]
            return value

        for node in self.nodes:
            node.arguments = {k: map_values(a, final) for k, a in node.arguments.items()}
        self.outputs = [final(value) for value in self.outputs]

    def verify(self) -> None:
        """Check single assignment, order, and that each output has the type its operator's rule gives, if it has one.

        Raises GraphError that names the node.
        """
        known = set(self.inputs) | set(self.constants)
        for value, array in self.constants.items():
            if tuple(array.shape) != value.type.shape or array.dtype != value.type.dtype:
                raise GraphError(
                    "a constant is not of its value's type",
                    expected=value.type,
                    received=f"{array.dtype}{list(array.shape)}",
                )
        for position, node in enumerate(self.nodes):
            where = f"node {position} ({node.op.name})"
            for value in node.inputs:
                if value not in known:
                    raise GraphError(f"{where} reads a value that nothing before it defines")
            for value in node.outputs:
                if value in known:
                    raise GraphError(f"{where} defines a value that is defined already")
                known.add(value)
            if node.op.inline:
                continue  # its types depend on contents
            inferred = node.op.infer({k: map_values(a, lambda v: v.type) for k, a in node.arguments.items()})
            types = (inferred,) if isinstance(inferred, TensorType) else tuple(inferred)
            if types != tuple(value.type for value in node.outputs):
                raise GraphError(
                    f"{where} has outputs of the wrong type",
                    expected=", ".join(map(str, types)),
                    received=", ".join(str(value.type) for value in node.outputs),
                )
        for value in self.outputs:
            if value not in known:
                raise GraphError("an output of the graph is defined nowhere")

    def __str__(self) -> str:
        names: dict[Value, str] = {}
        taken: set[str] = set()

        def name(value: Value) -> str:
            if value not in names:
                wanted = value.name or str(len(names))
                while wanted in taken:
                    wanted += "'"
                taken.add(wanted)
                names[value] = "%" + wanted
            return names[value]

        def show(argument: Any) -> str:
            if isinstance(argument, Value):
                return name(argument)
            if isinstance(argument, tuple):
                return "(" + ", ".join(map(show, argument)) + ("," if len(argument) == 1 else "") + ")"
            return argument.name if hasattr(argument, "itemsize") else repr(argument)

        lines = [f"{self.name}({', '.join(f'{name(v)}: {v.type}' for v in self.inputs)})"]
        lines += [f"  {name(v)}: {v.type} = constant" for v in self.constants]
        for node in self.nodes:
            defaults = node.op.defaults
            shown = [
                show(a) if isinstance(a, Value) else f"{k}={show(a)}"
                for k, a in node.arguments.items()
                if not (k in defaults and a is defaults[k]) and not (k in defaults and a == defaults[k])
            ]
            results = ", ".join(f"{name(v)}: {v.type}" for v in node.outputs)
            lines.append(f"  {results} = {node.op.name}({', '.join(shown)})")
        lines.append(f"  return {', '.join(map(name, self.outputs))}")
        return "\n".join(lines)
