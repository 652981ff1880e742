"""An imported model in another precision: its floats of 16 to 64 bits become those that are asked for."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np

from zoonet.formats.onnx.model import OnnxModel
from zoonet.formats.onnx.tensors import dtype_number
from zoonet.formats.onnx.values import ValueInfo
from zoonet.ops.graph import Graph, Node, Value, map_values, values_in
from zoonet.ops.sets.onnx.common import DTYPES
from zoonet.ops.sets.onnx.registry import Operator, find_operator, operators, schema_of
from zoonet.ops.types import UNKNOWN, DType, TensorType

__all__ = ["cast_model"]

#: The floats that are cast, by what schemas call tensors of them.
_FLOATS = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(bfloat16)": np.dtype(ml_dtypes.bfloat16),
}
#: Attributes that hold the number of a data type.
_NUMBERS = ("to", "dtype", "output_datatype", "output_dtype")


def cast_model(model: OnnxModel, dtype: DType, replaced: Container[Value] = ()) -> tuple[OnnxModel, dict[Value, Value]]:
    """The model with inputs, constants and results of `dtype` in the place of other floats, and its values by the old.

    Where the specification does not allow an operator the dtype (the scales of Resize, all of NonMaxSuppression), it
    keeps its own, between Casts. replaced: constants whose arrays are left as they are, since others take their place.
    before: %y = onnx.Resize-13(%x, None, %scales); %z = onnx.Cast-13(%i, to=1)
    after:  %y = onnx.Resize-13(%x, None, %scales/float32); %z = onnx.Cast-13(%i, to=11)
    """
    caster = _Caster(dtype, model.opsets.get("", 1), replaced)
    graph = caster.graph(model.graph)
    cast = replace(
        model,
        graph=graph,
        inputs=tuple([caster.port(port) for port in model.inputs]),
        outputs=tuple([caster.port(port) for port in model.outputs]),
        initializers={name: caster.values[value] for name, value in model.initializers.items()},
        _placed={},
    )
    return cast, caster.values


class _Caster:
    """values: what each value became; kinds: the data type that it had, where that is known."""

    def __init__(self, dtype: DType, opset: int, replaced: Container[Value]) -> None:
        self.dtype, self.opset, self.replaced = dtype, opset, replaced
        self.entries: dict[str, Operator] = {entry.op.name: entry for entry in operators()}
        self.values: dict[Value, Value] = {}
        self.kinds: dict[Value, DType | None] = {}
        self.arrays: dict[Value, Any] = {}

    def port(self, info: ValueInfo) -> ValueInfo:
        """What a model declares, in the new precision."""
        return replace(info, dtype=self.dtype) if info.dtype in _FLOATS.values() else info

    def graph(self, graph: Graph) -> Graph:
        """The graph, or sub-graph, in the new precision."""
        result = Graph(name=graph.name, input_tree=graph.input_tree, output_tree=graph.output_tree)
        result.inputs = [self.value(value) for value in graph.inputs]
        for value, array in graph.constants.items():
            cast = array.dtype in _FLOATS.values() and value not in self.replaced
            result.constants[self.value(value)] = array.astype(self.dtype, copy=False) if cast else array
            self.arrays[value] = array
        for node in graph.nodes:
            self.node(node, result)
        result.outputs = [self.value(value) for value in graph.outputs]
        return result

    def value(self, value: Value, kind: DType | None = None) -> Value:
        """What a value became; kind: its data type, where it does not say so."""
        if value not in self.values:
            known = value.type is not UNKNOWN
            self.kinds[value] = value.type.dtype if known else kind
            is_cast = known and value.type.dtype in _FLOATS.values()
            made = TensorType(value.type.shape, self.dtype) if is_cast else value.type
            self.values[value] = Value(made, value.name)
        return self.values[value]

    def node(self, node: Node, graph: Graph) -> None:
        """Add a node to the graph."""
        entry = self.entries[node.op.name]
        arguments = {key: self.argument(argument, key) for key, argument in node.arguments.items()}
        if entry.name in ("ConstantOfShape", "SequenceEmpty"):  # float32, where they do not say
            if arguments.get("value", self) is None:
                arguments["value"] = graph.add_constant(np.zeros(1, self.dtype), "value")
            if arguments.get("dtype", self) is None:
                arguments["dtype"] = dtype_number(self.dtype)
        schema = schema_of(entry.domain, entry.name, entry.since)
        kept: dict[str, DType] = {}  # by type parameter of the schema: what its operands stay
        bound: dict[str, DType | None] = {}
        if schema is not None:
            for formal, value in _formal_inputs(entry, schema, node):
                kind = self.kinds.get(value)
                bound.setdefault(formal.type_str, kind)
                if kind is not None and kind in _FLOATS.values() and not self._allowed(formal):
                    kept[formal.type_str] = kind
            for formal, value in _formal_inputs(entry, schema, node):
                if formal.type_str in kept and self.kinds.get(value) in _FLOATS.values():
                    self._keep(graph, arguments, entry, value, kept[formal.type_str])
        outputs = self._outputs(node, schema, bound, kept)
        graph.nodes.append(Node(node.op, arguments, tuple(own for own, _ in outputs), node.single, node.name))
        for own, wanted in outputs:
            if own is not wanted:
                self._cast(graph, own, wanted, self.dtype)

    def argument(self, argument: Any, key: str) -> Any:
        """An operand or attribute in the new precision."""
        if isinstance(argument, tuple) and len(argument) == 2 and isinstance(argument[0], Graph):
            inner, captured = argument
            for inside, outside in zip(inner.inputs[len(inner.inputs) - len(captured) :], captured, strict=True):
                self.value(inside, self.kinds.get(outside))
            return self.graph(inner), tuple([self.value(value) for value in captured])
        if isinstance(argument, ValueInfo):
            return self.port(argument)
        if key in _NUMBERS and isinstance(argument, int):
            return dtype_number(self.dtype) if DTYPES.get(argument) in _FLOATS.values() else argument
        return map_values(argument, self.value)

    def _allowed(self, formal: Any) -> bool:
        """Whether the specification allows the new precision; also where it has no floats, but containers of them."""
        floats = [kind for name, kind in _FLOATS.items() if name in formal.types]
        return not floats or self.dtype in floats

    def _keep(self, graph: Graph, arguments: dict[str, Any], entry: Operator, value: Value, kind: DType) -> None:
        """Let an operand keep its data type: as the constant that it was, or cast back."""
        new, name = self.values[value], f"{value.name or 'value'}/{kind.name}"
        if value in self.arrays and value not in self.replaced:
            own = graph.add_constant(self.arrays[value], name)
        else:
            own = Value(TensorType(new.type.shape, kind) if new.type is not UNKNOWN else UNKNOWN, name)
            self._cast(graph, new, own, kind)
        for key in entry.inputs:
            arguments[key] = map_values(arguments[key], lambda v: own if v is new else v)

    def _cast(self, graph: Graph, source: Value, target: Value, dtype: DType) -> None:
        op = find_operator("", "Cast", self.opset).op
        arguments = dict(op.defaults) | {op.parameters[0]: source, "to": dtype_number(dtype)}
        ordered = {key: arguments.get(key) for key in op.parameters}
        graph.nodes.append(Node(op, ordered, (target,), True, f"{target.name or 'value'}/Cast"))

    def _outputs(
        self, node: Node, schema: Any, bound: dict[str, DType | None], kept: dict[str, DType]
    ) -> list[tuple[Value, Value]]:
        """What the node gives, and what others read: another value where the result has to be cast."""
        inner = [self._results_within(argument) for argument in node.arguments.values() if _is_subgraph(argument)]
        result = []
        for place, output in enumerate(node.outputs):
            kind = self._declared_by_attributes(node)
            if inner and place < len(inner[0]):
                kind = inner[0][place]
            formal = None
            if schema is not None and schema.outputs:
                formal = schema.outputs[min(place, len(schema.outputs) - 1)]
                floats = [_FLOATS[name] for name in formal.types if name in _FLOATS]
                fixed = floats[0] if len(floats) == len(formal.types) == 1 else None
                kind = kind or bound.get(formal.type_str) or fixed
            wanted = self.value(output, kind)
            stays = formal is not None and (formal.type_str in kept or not self._allowed(formal))
            if stays and self.kinds[output] in _FLOATS.values():
                shape = wanted.type.shape if wanted.type is not UNKNOWN else None
                kind = self.kinds[output]
                own = Value(UNKNOWN if shape is None or kind is None else TensorType(shape, kind), f"{output.name}/own")
                result.append((own, wanted))
            else:
                result.append((wanted, wanted))
        return result

    def _results_within(self, argument: Any) -> list[DType | None]:
        return [self.kinds.get(value) for value in argument[0].outputs]

    @staticmethod
    def _declared_by_attributes(node: Node) -> DType | None:
        for key in _NUMBERS:
            number = node.arguments.get(key)
            if isinstance(number, int) and number in DTYPES:
                return DTYPES[number]
        return None


def _is_subgraph(argument: Any) -> bool:
    return isinstance(argument, tuple) and len(argument) == 2 and isinstance(argument[0], Graph)


def _formal_inputs(entry: Operator, schema: Any, node: Node) -> Iterator[tuple[Any, Value]]:
    """What the specification says of each input of a node, with the value."""
    for place, key in enumerate(entry.inputs):
        if schema.inputs:
            formal = schema.inputs[min(place, len(schema.inputs) - 1)]
            for value in values_in(node.arguments[key]):
                yield formal, value
