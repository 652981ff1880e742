"""ModelProto to `Graph`: each node becomes a call of an ONNX operator, initializers become constants.

Sub-graphs of If, Loop, Scan are graphs of their own, whose last inputs are the values that they use of the graph
around them. Model-local functions are expanded where they are called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zoonet.formats.onnx.tensors import TensorReader
from zoonet.formats.onnx.values import ValueInfo, describe_type, value_info
from zoonet.ops.errors import FormatError, UnsafeFileError, UnsupportedFormatError
from zoonet.ops.graph import Graph, Node, Value
from zoonet.ops.sets.onnx import Operator, find_operator, schema_of
from zoonet.ops.types import UNKNOWN, TensorType

#: Most nodes that calls of model-local functions may expand to, and how deep they may call each other.
_NODE_LIMIT = 200_000
_DEPTH_LIMIT = 64
#: Attributes of ONNX 1.0 that told a runtime where it may write in place.
_IGNORED = frozenset({"consumed_inputs"})

FunctionKey = tuple[str, str, str]


@dataclass
class Frame:
    """A graph being made, with what it took from the graph around it so far."""

    graph: Graph
    parent: Frame | None = None
    captured: dict[Value, Value] = field(default_factory=dict)

    def bring(self, value: Value, owner: Frame) -> Value:
        """A value of this graph or of one around it as a value of this graph."""
        if owner is self:
            return value
        if self.parent is None:
            raise FormatError("a sub-graph uses a value from outside of the model")
        outside = self.parent.bring(value, owner)
        inside = self.captured.get(outside)
        if inside is None:
            inside = self.captured[outside] = Value(outside.type, outside.name)
        return inside


@dataclass
class Scope:
    """Names while a graph or a function body is read. names: None for an optional output that does not exist."""

    frame: Frame
    opsets: dict[str, int]
    outer: Scope | None = None
    names: dict[str, tuple[Value, Frame]] = field(default_factory=dict)
    attributes: dict[str, tuple[Any, Scope]] = field(default_factory=dict)
    types: dict[str, TensorType] = field(default_factory=dict)
    function: str = ""

    def lookup(self, name: str) -> Value | None:
        """The value of a name as one of this scope's graph; None where nothing has defined it."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return self.frame.bring(*scope.names[name])
            scope = scope.outer
        return None

    def define(self, name: str, value: Value) -> None:
        """Give a value a name. Raises FormatError if the name is taken."""
        if name in self.names:
            raise FormatError(f"the name {name!r} is defined twice", expected="each name once")
        self.names[name] = (value, self.frame)


class GraphReader:
    """Reads the graphs of one model."""

    def __init__(self, model: Any, tensors: TensorReader) -> None:
        self.tensors = tensors
        self.functions = {function_key(f, f.name): f for f in model.functions}

    def read(self, proto: Any, opsets: dict[str, int]) -> tuple[Graph, dict[str, Value]]:
        """The graph of a GraphProto, and the values of its initializers by name."""
        if self.functions:
            self._check_expansion(proto)
        scope = self._graph(proto, opsets, None, {})
        initializers = {tensor.name: tensor.name for tensor in proto.initializer}
        initializers |= {tensor.values.name: "" for tensor in proto.sparse_initializer}
        return scope.frame.graph, {name: scope.names[name][0] for name in initializers}

    def _graph(self, proto: Any, opsets: dict[str, int], outer: Scope | None, attributes: dict[str, Any]) -> Scope:
        graph = Graph(name=proto.name or "graph")
        scope = Scope(
            Frame(graph, outer.frame if outer is not None else None),
            opsets,
            outer,
            attributes=attributes,
            function=outer.function if outer is not None else "",
        )
        infos = [value_info(v) for v in (*proto.value_info, *proto.output)]
        scope.types = {info.name: info.type for info in infos}
        for tensor in proto.initializer:
            scope.define(tensor.name, self._constant(graph, self.tensors.array(tensor), tensor.name))
        for sparse in proto.sparse_initializer:
            name = sparse.values.name
            scope.define(name, self._constant(graph, self.tensors.dense(sparse), name))
        defaults = set(scope.names)
        for info in map(value_info, proto.input):
            if info.name not in defaults:
                scope.define(info.name, graph.add_input(info.type, info.name))
        self._nodes(list(proto.node), scope)
        for output in proto.output:
            value = scope.lookup(output.name)
            if value is None:
                raise FormatError(
                    f"graph {graph.name!r} has an output that nothing computes",
                    expected="the output of a node, an input or an initializer",
                    received=repr(output.name),
                )
            graph.outputs.append(value)
        graph.inputs += scope.frame.captured.values()
        return scope

    @staticmethod
    def _constant(graph: Graph, array: Any, name: str) -> Value:
        return graph.add_constant(array, name)

    def _nodes(self, protos: list[Any], scope: Scope) -> None:
        for proto in in_order(protos, lambda name: scope.lookup(name) is not None):
            self._node(proto, scope)

    def _node(self, proto: Any, scope: Scope) -> None:
        domain = normal(proto.domain)
        label = proto.name or next(iter(proto.output), "")
        inputs = []
        for name in proto.input:
            value = scope.lookup(name) if name else None
            if name and value is None:
                raise FormatError(
                    f"node {label!r} ({proto.op_type}) reads {name!r}, which nothing before it defines",
                    fix="the file is damaged or was written by a broken exporter",
                )
            inputs.append(value)
        attributes = self._attributes(proto, scope, label)
        function = self.functions.get(function_key(proto, proto.op_type))
        if function is not None:
            self._call(function, inputs, attributes, proto, scope)
        elif domain == "" and proto.op_type == "Constant":
            value = self._constant_node(attributes, label, scope)
            value.name = proto.output[0] or label  # as an initializer is called by its output
            scope.define(proto.output[0], value)
        else:
            opset = scope.opsets.get(domain, 1)
            operator = find_operator(domain, proto.op_type, opset, label)
            self._operator(operator, inputs, attributes, proto, label, scope)

    def _operator(
        self,
        operator: Operator,
        inputs: list[Value | None],
        attributes: dict[str, Any],
        proto: Any,
        label: str,
        scope: Scope,
    ) -> None:
        graph = scope.frame.graph
        where = f"node {label!r} ({operator.op.name})"
        arguments = self._inputs(operator, inputs, where)
        if operator.name == "Gradient":
            arguments["function"] = self._function_between(proto, attributes, scope)
        arguments |= self._named(operator, attributes, where, scope)
        outputs = list(proto.output)
        while outputs and not outputs[-1]:
            outputs.pop()
        if operator.many:
            arguments["outputs"] = len(outputs)
        elif len(outputs) > 1:
            raise FormatError(f"{where} has more outputs than the operator", expected=1, received=len(outputs))
        values = tuple(Value(scope.types.get(name, UNKNOWN), name) for name in outputs)
        ordered = {n: arguments.get(n, operator.op.defaults.get(n)) for n in operator.op.parameters}
        graph.nodes.append(Node(operator.op, ordered, values, not operator.many, label))
        for name, value in zip(outputs, values, strict=True):
            if name:
                scope.define(name, value)

    def _named(self, operator: Operator, attributes: dict[str, Any], where: str, scope: Scope) -> dict[str, Any]:
        """The attributes of a node as arguments. Raises FormatError for those of a wrong type, or that are missing."""
        schema = schema_of(operator.domain, operator.name, operator.since)
        declared = {} if schema is None else schema.attributes
        arguments = {}
        for name, (attribute, origin) in attributes.items():
            if name in _IGNORED or (operator.name == "Gradient" and name == "y"):
                continue
            if name not in operator.attributes:
                raise UnsupportedFormatError(
                    f"{where} has an attribute that the operator does not have in this opset",
                    expected=", ".join(sorted(operator.attributes)) or "none",
                    received=name,
                )
            value = self._attribute(attribute, origin, scope)
            annotation = str(operator.op.__signature__.parameters[name].annotation)
            wanted = declared[name].type.name if name in declared else ""
            plain = wanted in ("", "INT", "FLOAT", "STRING", "INTS", "FLOATS", "STRINGS")  # the annotation tells more
            if not _fits(value, annotation) or not (plain or attribute.type == declared[name].type.value):
                raise FormatError(
                    f"{where}: the attribute {name!r} is of the wrong kind",
                    expected=annotation if plain else wanted,
                    received=type(value).__name__,
                )
            arguments[name] = value
        required = operator.required | {name for name, entry in declared.items() if entry.required}
        missing = required & operator.attributes - arguments.keys() - {"function"}
        if missing:
            raise FormatError(f"{where} lacks the attribute {sorted(missing)[0]!r}")
        return arguments

    @staticmethod
    def _inputs(operator: Operator, inputs: list[Value | None], where: str) -> dict[str, Any]:
        while inputs and inputs[-1] is None and not operator.variadic:
            inputs = inputs[:-1]
        fixed = operator.inputs[:-1] if operator.variadic else operator.inputs
        if len(inputs) > len(fixed) and not operator.variadic:
            raise FormatError(
                f"{where} has more inputs than the operator",
                expected=f"at most {len(fixed)}",
                received=len(inputs),
            )
        arguments: dict[str, Any] = dict(zip(fixed, inputs, strict=False))
        for name in fixed:
            if arguments.get(name) is None and name not in operator.optional:
                raise FormatError(f"{where} lacks the input {name!r}")
            arguments.setdefault(name, None)
        if operator.variadic:
            arguments[operator.inputs[-1]] = tuple(inputs[len(fixed) :])
        return arguments

    # -- attributes ----------------------------------------------------------------------------------------------

    @staticmethod
    def _attributes(proto: Any, scope: Scope, label: str) -> dict[str, tuple[Any, Scope]]:
        """Attributes by name with the scope that their sub-graphs lie in; references resolved."""
        found: dict[str, tuple[Any, Scope]] = {}
        for attribute in proto.attribute:
            where = f"node {label!r} ({proto.op_type})"
            if attribute.name in found:
                raise FormatError(f"{where} has the attribute {attribute.name!r} twice")
            reference = attribute.ref_attr_name
            if not reference:
                found[attribute.name] = (attribute, scope)
            elif not scope.function:
                raise FormatError(f"{where} takes {attribute.name!r} from a function's {reference!r}, but is in none")
            else:
                given = next((s.attributes for s in enclosing(scope) if reference in s.attributes), None)
                if given is not None:
                    found[attribute.name] = given[reference]
        return found

    def _attribute(self, attribute: Any, origin: Scope, scope: Scope) -> Any:
        """The Python value of an attribute; arrays as constants, graphs with the values that they capture."""
        kind = attribute.type
        graph = scope.frame.graph
        if kind == 1:
            return float(attribute.f)
        if kind == 2:
            return int(attribute.i)
        if kind == 3:
            return text(attribute.s)
        if kind == 4:
            return graph.add_constant(self.tensors.array(attribute.t), attribute.name)
        if kind == 5:
            inner = self._graph(attribute.g, origin.opsets, origin, {})
            captured = inner.frame.captured
            return inner.frame.graph, tuple(scope.frame.bring(v, origin.frame) for v in captured)
        if kind == 6:
            return tuple(attribute.floats)
        if kind == 7:
            return tuple(attribute.ints)
        if kind == 8:
            return tuple(text(s) for s in attribute.strings)
        if kind == 9:
            return tuple(graph.add_constant(self.tensors.array(t), attribute.name) for t in attribute.tensors)
        if kind == 11:
            return graph.add_constant(self.tensors.dense(attribute.sparse_tensor), attribute.name)
        if kind == 13:
            return ValueInfo(attribute.name, *describe_type(attribute.tp))
        raise UnsupportedFormatError(f"the attribute {attribute.name!r} is of an unknown kind", received=kind)

    def _constant_node(self, attributes: dict[str, Any], label: str, scope: Scope) -> Value:
        if len(attributes) != 1:
            raise FormatError(f"node {label!r} (Constant) must have one attribute", received=sorted(attributes))
        [(name, (attribute, origin))] = attributes.items()
        value = self._attribute(attribute, origin, scope)
        if name in ("value", "sparse_value") and isinstance(value, Value):
            return value
        dtype = {
            "value_float": np.float32,
            "value_floats": np.float32,
            "value_int": np.int64,
            "value_ints": np.int64,
            "value_string": object,
            "value_strings": object,
        }.get(name)
        if dtype is None or isinstance(value, Value):
            raise FormatError(f"node {label!r} (Constant) has an unknown attribute", received=name)
        try:
            array = np.asarray(value, dtype)
        except (TypeError, ValueError):
            raise FormatError(f"node {label!r} (Constant): {name} is of the wrong kind") from None
        return scope.frame.graph.add_constant(array, label)

    # -- functions -----------------------------------------------------------------------------------------------

    def _check_expansion(self, graph: Any) -> None:
        """Raise FormatError for functions that call themselves, UnsafeFileError for too many nodes or too deep calls.

        Nodes are counted before anything is expanded, each function once.
        """
        sizes: dict[FunctionKey, int] = {}

        def size(nodes: Any, path: tuple[FunctionKey, ...]) -> int:
            total = 0
            for node in nodes_within(nodes):
                key = function_key(node, node.op_type)
                if key not in self.functions:
                    continue
                if key in path:
                    raise FormatError(f"the model-local function {key[0]}.{key[1]} calls itself")
                if len(path) == _DEPTH_LIMIT:
                    raise UnsafeFileError("the model's functions call each other too deep", expected=_DEPTH_LIMIT)
                if key not in sizes:
                    body = self.functions[key].node
                    sizes[key] = 1 + sum(1 for _ in nodes_within(body)) + size(body, (*path, key))
                total += sizes[key]
            return total

        expanded = size(graph.node, ())
        if expanded > _NODE_LIMIT:
            raise UnsafeFileError(
                "the model's functions expand to too many nodes", expected=f"at most {_NODE_LIMIT}", received=expanded
            )

    def _call(self, function: Any, inputs: list[Value | None], attributes: Any, proto: Any, scope: Scope) -> None:
        label = f"{function.domain}.{function.name}"
        if len(inputs) > len(function.input) or len(proto.output) > len(function.output):
            raise FormatError(
                f"node {proto.name!r} does not fit the function {label}",
                expected=f"at most {len(function.input)} inputs and {len(function.output)} outputs",
                received=f"{len(inputs)} and {len(proto.output)}",
            )
        given = dict(attributes)
        for default in function.attribute_proto:
            given.setdefault(default.name, (default, scope))
        opsets = opsets_of(function.opset_import) or scope.opsets
        inner = Scope(scope.frame, opsets, attributes=given, function=label)
        for name, value in zip(function.input, inputs, strict=False):
            if value is not None:
                inner.define(name, value)
        absent = {name for name in function.input if name not in inner.names}
        self._nodes([_without(node, absent) for node in function.node], inner)
        for formal, actual in zip(function.output, proto.output, strict=False):
            if not actual:
                continue
            result = inner.lookup(formal)
            if result is None:
                raise FormatError(f"the function {label} does not compute its output {formal!r}")
            scope.define(actual, result)

    def _function_between(self, proto: Any, attributes: dict[str, Any], scope: Scope) -> Any:
        """For the operator Gradient: the part of the graph from xs and zs to y, as a sub-graph."""
        sources = [n for key in ("xs", "zs") if key in attributes for n in map(text, attributes[key][0].strings)]
        values = [scope.lookup(name) for name in sources]
        target = scope.lookup(text(attributes["y"][0].s)) if "y" in attributes else None
        if target is None or None in values:
            raise FormatError(f"node {proto.name!r} (Gradient) names a value that nothing before it defines")
        outer = scope.frame.graph
        needed, wanted = [], {target} - set(values)
        for node in reversed(outer.nodes):
            if wanted & set(node.outputs):
                needed.append(node)
                wanted -= set(node.outputs)
                wanted |= set(node.inputs) - set(values)
        captured = tuple(wanted)
        graph = Graph([*(v for v in values if v is not None), *captured], [target], needed[::-1], name="gradient")
        return graph, captured


def function_key(proto: Any, name: str) -> FunctionKey:
    """What a model-local function is known by: domain, name and overload; of the function or of a node that calls."""
    return normal(proto.domain), name, getattr(proto, "overload", "")


def nodes_within(nodes: Any) -> Iterator[Any]:
    """The nodes and those of their sub-graphs."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in [attribute.g] if attribute.type == 5 else attribute.graphs:
                yield from nodes_within(graph.node)


def enclosing(scope: Scope) -> Iterator[Scope]:
    """The scope and those around it."""
    current: Scope | None = scope
    while current is not None:
        yield current
        current = current.outer


def _without(node: Any, absent: set[str]) -> Any:
    """The node, with inputs that are absent named ""."""
    if not absent.intersection(node.input):
        return node
    copy = type(node)()
    copy.CopyFrom(node)
    copy.input[:] = ["" if name in absent else name for name in node.input]
    return copy


def normal(domain: str) -> str:
    """The domain's name, "" for ai.onnx."""
    return "" if domain == "ai.onnx" else domain


def opsets_of(imports: Any) -> dict[str, int]:
    """The versions of opsets by domain. Raises FormatError where a domain has two."""
    opsets: dict[str, int] = {}
    for entry in imports:
        if opsets.setdefault(normal(entry.domain), int(entry.version)) != entry.version:
            raise FormatError(
                f"two opsets of the domain {normal(entry.domain) or 'ai.onnx'!r} are imported",
                expected="one",
                received=f"{opsets[normal(entry.domain)]} and {entry.version}",
            )
    return opsets


def text(data: bytes) -> str:
    """A string attribute as text; bytes that are not UTF-8 survive as surrogates."""
    return data.decode("utf-8", "surrogateescape")


def _fits(value: Any, annotation: str) -> bool:
    kinds: dict[str, Callable[[Any], bool]] = {
        "int": lambda v: isinstance(v, int),
        "float": lambda v: isinstance(v, float | int),
        "str": lambda v: isinstance(v, str),
        "Sequence[int]": lambda v: isinstance(v, tuple) and all(isinstance(n, int) for n in v),
        "Sequence[float]": lambda v: isinstance(v, tuple) and all(isinstance(n, float | int) for n in v),
        "Sequence[str]": lambda v: isinstance(v, tuple) and all(isinstance(n, str) for n in v),
    }
    check = kinds.get(annotation.removesuffix(" | None"))
    return check is None or check(value)


def read_names(proto: Any) -> Iterator[str]:
    """What a node reads: its inputs, and what its sub-graphs take from outside."""
    yield from (name for name in proto.input if name)
    for attribute in proto.attribute:
        for graph in [attribute.g] if attribute.type == 5 else attribute.graphs:
            inside = {v.name for v in graph.input} | {t.name for t in graph.initializer}
            inside |= {t.values.name for t in graph.sparse_initializer}
            inside |= {name for node in graph.node for name in node.output}
            outputs = (v.name for v in graph.output)
            yield from (n for n in (*outputs, *(r for node in graph.node for r in read_names(node))) if n not in inside)


def in_order(protos: list[Any], known: Callable[[str], bool]) -> Iterable[Any]:
    """Nodes such that each comes after those that it reads from; the given order where that is one.

    Raises FormatError naming a cycle.
    """
    makers = {name: i for i, proto in enumerate(protos) for name in proto.output if name}
    needs = [{makers[n] for n in read_names(proto) if n in makers and not known(n)} for proto in protos]
    if all(j < i for i, need in enumerate(needs) for j in need):
        return protos
    readers: dict[int, list[int]] = {}
    waiting = [len(need) for need in needs]
    for i, need in enumerate(needs):
        for j in need:
            readers.setdefault(j, []).append(i)
    ready = [i for i in reversed(range(len(protos))) if not waiting[i]]
    order = []
    while ready:
        i = ready.pop()
        order.append(protos[i])
        for j in readers.get(i, ()):
            waiting[j] -= 1
            if not waiting[j]:
                ready.append(j)
    if len(order) < len(protos):
        stuck = [protos[i] for i in range(len(protos)) if waiting[i]]
        raise FormatError(
            "the graph has a cycle",
            expected="nodes that do not depend on their own outputs",
            received=", ".join(f"{p.name or p.output[0]!r} ({p.op_type})" for p in stuck[:5]),
        )
    return order


__all__ = ["GraphReader", "ValueInfo", "normal", "opsets_of", "text"]
