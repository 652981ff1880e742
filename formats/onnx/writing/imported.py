"""Imported graphs written back: their nodes are ONNX operators already, and keep names, opsets and sub-graphs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from zoonet.formats.onnx.tensors import dtype_number
from zoonet.formats.onnx.values import ValueInfo, as_text
from zoonet.formats.onnx.writing.draft import Draft, tensor
from zoonet.ops.devices import is_array
from zoonet.ops.errors import UnsupportedFormatError
from zoonet.ops.graph import Graph, Node, Value
from zoonet.ops.sets.onnx.registry import Operator, find_operator, operators
from zoonet.ops.types import UNKNOWN, is_floating

__all__ = ["rewrite"]


def rewrite(
    graph: Graph,
    inputs: Sequence[ValueInfo],
    outputs: Sequence[ValueInfo],
    opsets: Mapping[str, int],
    constants: Mapping[Value, Any] | None = None,
    *,
    initializers: Collection[Value] | None = None,
    metadata: Mapping[str, str] | None = None,
    description: str = "",
    ir_version: int | None = None,
) -> Draft:
    """The ONNX model of a graph that was read from one.

    inputs, outputs: what the model declared, in order. constants: arrays in the place of some of the graph's constants,
    such as trained weights. initializers: constants that readers may take for weights, None for all; floating ones that
    are not among them become Constant nodes, as they were. Raises UnsupportedFormatError for a graph that does not
    consist of ONNX operators of these opsets.
    """
    from onnx import helper

    all_initializers = initializers is None or "" not in opsets  # which has the operator Constant
    settings = () if all_initializers else set(graph.constants).difference(initializers or ())
    writer = _Rewriter(graph, dict(opsets), constants or {}, {v for v in settings if is_floating(v.type.dtype)})
    given = iter(graph.inputs)
    constant = {value.name: value for value in graph.constants}
    taken = []
    for info in inputs:
        value = constant.get(info.name) if info.optional else next(given)
        if value is not None:
            taken.append(replace(info, name=writer.take(value, info.name)))
            writer.name(value)  # an initializer, whether it is read or not: without it the input would be required
    results, copies = [], []
    for value, info in zip(graph.outputs, outputs, strict=True):
        name = writer.names.get(value)
        if name is None:
            name = writer.take(value, info.name)
            writer.name(value)
        elif name != info.name:  # an input, or two outputs that are one value
            source, name = name, writer.take(Value(value.type), info.name)
            copies.append(helper.make_node("Identity", [source], [name], name=f"{name}/Identity"))
        results.append(replace(info, name=name))
    nodes = [writer.node(node) for node in graph.nodes]
    return Draft(
        name=as_text(graph.name),
        inputs=[value_info(info) for info in taken],
        outputs=[value_info(info) for info in results],
        nodes=[*writer.settings.values(), *nodes, *copies],
        initializers=writer.initializers,
        opsets=dict(opsets),
        metadata=dict(metadata or {}),
        description=description,
        ir_version=None if ir_version is None else max(ir_version, 4),  # before 4, initializers had to be inputs
    )


class _Rewriter:
    """Names for the values of a graph and its sub-graphs, and its nodes as NodeProtos."""

    def __init__(
        self, graph: Graph, opsets: dict[str, int], constants: Mapping[Value, Any], as_nodes: Collection[Value]
    ) -> None:
        self.operators: dict[str, Operator] = {entry.op.name: entry for entry in operators()}
        self.graph, self.opsets = graph, opsets
        self.constants = {**graph.constants, **constants}
        self.names: dict[Value, str] = {}
        self.taken: set[str] = set()
        self.initializers: dict[str, Any] = {}
        self.as_nodes = as_nodes
        self.settings: dict[str, Any] = {}  # their Constant nodes

    def take(self, value: Value, wanted: str | None) -> str:
        """Give a value a name: the wanted one, or one like it where that is taken."""
        start = as_text(wanted) or "value"
        name, number = start, 0
        while name in self.taken:
            number += 1
            name = f"{start}_{number}"
        self.taken.add(name)
        self.names[value] = name
        return name

    def name(self, value: Value | None) -> str:
        """The name of a value that something reads; constants become initializers, or Constant nodes."""
        from onnx import helper

        if value is None:
            return ""
        if value not in self.names:
            self.take(value, value.name)
        name = self.names[value]
        if value in self.constants and name not in self.initializers and name not in self.settings:
            array = _on_cpu(self.constants[value])
            if value in self.as_nodes:
                self.settings[name] = helper.make_node("Constant", [], [name], name=name, value=tensor("", array))
            else:
                self.initializers[name] = array
        return name

    def node(self, node: Node) -> Any:
        """The NodeProto of a node."""
        from onnx import helper

        entry = self.operators.get(node.op.name)
        if entry is None:
            raise UnsupportedFormatError(
                f"the operator {node.op.name} is not one of ONNX", fix="export the function that makes the graph"
            )
        opset = self.opsets.get(entry.domain, 1)
        if find_operator(entry.domain, entry.name, opset).op is not entry.op:
            raise UnsupportedFormatError(
                f"the operator {entry.name} is of another opset than the model",
                expected=f"its version in opset {opset}",
                received=f"its version of opset {entry.since}, from a model-local function",
            )
        inputs: list[Any] = []
        for parameter in entry.inputs:
            argument = node.arguments[parameter]
            inputs += argument if isinstance(argument, tuple) else [argument]
        names = [self.name(value) for value in inputs]
        while names and not names[-1]:
            names.pop()
        outputs = [self.names.get(v) or self.take(v, v.name) if v.name else "" for v in node.outputs]
        written = helper.make_node(entry.name, names, outputs, name=as_text(node.name), domain=entry.domain)
        given = {key: node.arguments[key] for key in entry.attributes}
        if entry.name == "Gradient":
            given = self._gradient(node)
        for key in sorted(given):
            attribute = self._attribute(entry, key, given[key])
            if attribute is not None:
                written.attribute.append(attribute)
        return written

    def _gradient(self, node: Node) -> dict[str, Any]:
        """The attributes of Gradient: its sub-graph is a part of the graph around it, which it tells by names."""
        function, _ = node.arguments["function"]
        count = len(node.arguments["xs"])
        total = count + len(node.arguments["zs"] or ())
        if function.outputs[0] not in self.names:
            raise UnsupportedFormatError("Gradient is of a value that the graph does not compute")
        names = [self.name(value) for value in function.inputs[:total]]
        found = {"xs": tuple(names[:count]), "zs": tuple(names[count:]), "y": self.names[function.outputs[0]]}
        return {key: value for key, value in found.items() if value}

    def _attribute(self, entry: Operator, key: str, value: Any) -> Any:
        from onnx import AttributeProto, helper

        default = entry.op.defaults.get(key)
        usual = key in entry.op.defaults and type(value) is type(default) and value == default
        if value is None or (usual and not self._required(entry, key)):
            return None
        if isinstance(value, Value):
            return helper.make_attribute(key, tensor("", _on_cpu(self.constants[value])))
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], Graph):
            return helper.make_attribute(key, self._subgraph(*value))
        if isinstance(value, tuple) and value and isinstance(value[0], Value):
            return helper.make_attribute(key, [tensor("", _on_cpu(self.constants[v])) for v in value])
        parameter = entry.op.__signature__.parameters.get(key)
        annotation = "" if parameter is None else str(parameter.annotation).removesuffix(" | None")
        schema = self._schema(entry)
        declared = None if schema is None or key not in schema.attributes else schema.attributes[key].type.value
        kinds = {
            "int": AttributeProto.INT,
            "float": AttributeProto.FLOAT,
            "str": AttributeProto.STRING,
            "Sequence[int]": AttributeProto.INTS,
            "Sequence[float]": AttributeProto.FLOATS,
            "Sequence[str]": AttributeProto.STRINGS,
        }
        kind = kinds.get(annotation) if declared is None else declared
        if kind in (AttributeProto.FLOAT, AttributeProto.INT):
            value = float(value) if kind == AttributeProto.FLOAT else int(value)
        if isinstance(value, str):
            value = value.encode("utf-8", "surrogateescape")
        elif isinstance(value, tuple) and value and isinstance(value[0], str):
            value = [item.encode("utf-8", "surrogateescape") for item in value]
        if isinstance(value, ValueInfo):
            return helper.make_attribute(key, value_info(value).type)
        if callable(value) or kind is None or kind == AttributeProto.TYPE_PROTO:
            raise UnsupportedFormatError(
                f"the attribute {key!r} of {entry.name} cannot be written", received=type(value).__name__
            )
        return helper.make_attribute(key, value, attr_type=kind)

    def _required(self, entry: Operator, key: str) -> bool:
        """Whether ONNX demands an attribute that has a default here."""
        schema = self._schema(entry)
        return schema is not None and key in schema.attributes and bool(schema.attributes[key].required)

    def _schema(self, entry: Operator) -> Any:
        """What the onnx package says of an operator, or None."""
        from onnx import defs

        opset = self.opsets.get(entry.domain, 1)
        known = defs.has(entry.name, opset, entry.domain)
        return defs.get_schema(entry.name, opset, entry.domain) if known else None

    def _subgraph(self, graph: Graph, captured: Sequence[Value]) -> Any:
        """A GraphProto; what the sub-graph takes from around it goes by the name that it has there."""
        from onnx import helper

        count = len(graph.inputs) - len(captured)
        for inside, outside in zip(graph.inputs[count:], captured, strict=True):
            self.names[inside] = self.name(outside)
        formal = [self.take(value, value.name) for value in graph.inputs[:count]]
        outer, self.initializers = self.initializers, {}
        self.constants |= graph.constants
        nodes = [self.node(node) for node in graph.nodes]
        outputs = []
        for place, value in enumerate(graph.outputs):
            name = self.name(value)
            if not any(value in node.outputs for node in graph.nodes) or value in graph.outputs[:place]:
                copy = self.take(Value(value.type), f"{name}.out")
                nodes.append(helper.make_node("Identity", [name], [copy]))
                name = copy
            outputs.append(name)
        inside_constants = {self.names[v] for v in graph.constants if v in self.names}
        own = {n: a for n, a in self.initializers.items() if n in inside_constants}
        outer |= {n: a for n, a in self.initializers.items() if n not in own}
        self.initializers = outer
        return helper.make_graph(
            nodes,
            as_text(graph.name),
            [_declared(name, v) for name, v in zip(formal, graph.inputs, strict=False)],
            [_declared(name, v) for name, v in zip(outputs, graph.outputs, strict=True)],
            [tensor(name, array) for name, array in own.items()],
        )


def _declared(name: str, value: Value) -> Any:
    from onnx import ValueInfoProto, helper

    if value.type is UNKNOWN:
        return ValueInfoProto(name=name)
    return helper.make_tensor_value_info(name, dtype_number(value.type.dtype), list(value.type.shape))


def value_info(info: ValueInfo) -> Any:
    """What a model declares of an input or output, as a ValueInfoProto."""
    from onnx import ValueInfoProto, helper

    *containers, last = info.kind.split(" ")
    if last in _CONTAINERS:
        containers.append(last)
    if info.dtype is None or (last not in ("tensor", "sparse") and last not in _CONTAINERS):
        return ValueInfoProto(name=info.name)
    shape = None if info.shape is None else list(info.shape)
    make = helper.make_sparse_tensor_type_proto if last == "sparse" else helper.make_tensor_type_proto
    kind = make(dtype_number(info.dtype), shape)
    for container in reversed(containers):
        kind = getattr(helper, _CONTAINERS[container])(kind)
    return helper.make_value_info(info.name, kind)


#: By the word for a container: the function of onnx.helper that makes its type.
_CONTAINERS = {"sequence": "make_sequence_type_proto", "optional": "make_optional_type_proto"}


def _on_cpu(array: Any) -> Any:
    if hasattr(array, "get") and is_array(array):
        return array.get()
    return np.asarray(array)
