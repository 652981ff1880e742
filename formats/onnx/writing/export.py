"""Functions as ONNX models: traced at several sizes, composites expanded, and each operator written by the table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoonet.formats.onnx.tensors import dtype_number
from zoonet.formats.onnx.writing.builder import Builder
from zoonet.formats.onnx.writing.constants import varying_constant
from zoonet.formats.onnx.writing.draft import Draft
from zoonet.formats.onnx.writing.sizes import (
    Dimension,
    Points,
    Tensor,
    aligned,
    dimension_of,
    formula_for,
    merged,
    names_in,
)
from zoonet.formats.onnx.writing.table import EMITTERS
from zoonet.ops import trees
from zoonet.ops.errors import ArgumentError, TraceError, UnsupportedFormatError, ZoonetError
from zoonet.ops.graph import Graph, Node, Value
from zoonet.ops.operands import type_of
from zoonet.ops.passes import eliminate_dead_code, expand_composites
from zoonet.ops.sets.onnx.registry import DOMAINS
from zoonet.ops.tracing import trace
from zoonet.ops.types import TensorType

__all__ = ["DEFAULT_OPSET", "export"]

#: The opset that is written where none is asked for: new enough for layer norms, old enough for most runtimes.
DEFAULT_OPSET = 17
OLDEST_OPSET = 13

#: Sizes to trace at, by the name of a free size.
Choice = dict[str, tuple[int, ...]]
#: Free axes of one input: axis -> the name of its size, or a sum such as "past + sequence".
Axes = Mapping[int, str]


@dataclass
class Port:
    """An input of the exported function."""

    name: str
    type: TensorType
    axes: dict[int, str]

    @property
    def shape(self) -> tuple[int | str, ...]:
        """Sizes, with names where they are free."""
        return tuple(self.axes.get(axis, n) for axis, n in enumerate(self.type.shape))


def export(
    function: Callable[..., Any],
    *examples: Any,
    dynamic: Mapping[str, Axes] | None = None,
    opset: int | None = None,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    weights: Mapping[str, Any] | None = None,
    name: str | None = None,
    metadata: Mapping[str, str] | None = None,
    description: str = "",
) -> Draft:
    """The ONNX model of a function of arrays, ready to be saved.

    function: what `trace` takes: a network, a loss with its gradients, a whole training step. examples: arrays or types
    (`ops.tensor_type`), one per argument, or containers of them; contents do not matter. dynamic: by input name, which
    axes may have any size, each by a name that equal sizes share, or a sum of names: {"x": {0: "batch"}}. None: the
    first axis of every argument that is itself an array is the batch; {}: all sizes are fixed. opset: 13 or newer.
    inputs, outputs: names in the order of the arrays; from the function's parameters and the containers' keys where
    None ("parameters.fc.weight", and "new.parameters.fc.weight" for an output that an input is called like).
    weights: arrays by name, which the function takes as its first argument, a dict, before the examples; they
    become initializers of these names. Raises TraceError (the function does not trace, or sizes
    cannot be free), UnsupportedFormatError (an operator that ONNX does not have, or not in this opset), ArgumentError.
    """
    version = _checked_opset(opset)
    arrays = dict(weights or {})
    first = [{key: type_of(array) for key, array in arrays.items()}] if weights is not None else []
    ports, typed = _ports(function, len(first), examples, dynamic, inputs)
    graphs, points = _traced(function, [*first, *typed], ports)
    builder = Builder(version)
    title = name or str(getattr(function, "__name__", type(function).__name__))
    labels = list(outputs) if outputs is not None else _output_names(graphs[0].output_tree, ports)
    if len(labels) != len(graphs[0].outputs):
        raise ArgumentError("the outputs are not as many", expected=len(graphs[0].outputs), received=len(labels))
    builder.check_names([*(port.name for port in ports), *labels])
    results = _Writer(builder, graphs).write(arrays, ports, labels)
    sizes = {points.values(dim): dim for port in ports for dim in port.axes.values()}
    return Draft(
        name=title,
        inputs=[_value_info(port.name, port.type.dtype, port.shape) for port in ports],
        outputs=[
            _value_info(label, t.dtype, [_written(n, sizes) for n in t.shape])
            for label, t in zip(labels, results, strict=True)
        ],
        nodes=builder.nodes,
        initializers=builder.initializers,
        opsets={"": version},
        metadata=dict(metadata or {}),
        description=description,
    )


def _checked_opset(opset: int | None) -> int:
    from onnx import defs

    newest = min(DOMAINS[""], defs.onnx_opset_version())
    if opset is None:
        return DEFAULT_OPSET
    if not isinstance(opset, int) or isinstance(opset, bool) or not OLDEST_OPSET <= opset <= newest:
        raise ArgumentError(
            "ONNX cannot be written in this opset", expected=f"{OLDEST_OPSET} to {newest}", received=repr(opset)
        )
    return opset


# -- inputs and outputs ------------------------------------------------------------------------------------------


def _ports(
    function: Callable[..., Any],
    skipped: int,
    examples: Sequence[Any],
    dynamic: Mapping[str, Axes] | None,
    names: Sequence[str] | None,
) -> tuple[list[Port], list[Any]]:
    """The inputs, and the examples with a Port in the place of each array. skipped: leading parameters that are no
    examples."""
    found = list(_labelled(function, skipped, examples))
    if names is not None and len(names) != len(found):
        raise ArgumentError("the inputs are not as many", expected=len(found), received=len(names))
    ports = []
    for position, (label, leaf, path) in enumerate(found):
        kind = leaf if isinstance(leaf, TensorType) else type_of(leaf if hasattr(leaf, "dtype") else np.asarray(leaf))
        chosen = names[position] if names is not None else label
        axes: dict[int, str] = {0: "batch"} if dynamic is None and not path and kind.shape else {}
        ports.append(Port(chosen, kind, axes))
    for key, axes_of in (dynamic or {}).items():
        port = next((p for p in ports if p.name == key), None)
        if port is None:
            raise ArgumentError("dynamic names no input", expected=", ".join(p.name for p in ports), received=repr(key))
        for axis, dim in axes_of.items():
            if not -port.type.ndim <= axis < port.type.ndim:
                raise ArgumentError(f"dynamic: the input {key!r} has no such axis", received=axis)
            port.axes[axis % port.type.ndim] = str(dim)
    remaining = iter(ports)
    return ports, [trees.map_leaves(lambda _: next(remaining), example) for example in examples]


def _labelled(function: Callable[..., Any], skipped: int, examples: Sequence[Any]) -> Iterator[tuple[str, Any, bool]]:
    """(name, leaf, whether it lies in a container) of each array."""
    try:
        parameters = [p.name for p in inspect.signature(function).parameters.values() if p.kind != p.VAR_POSITIONAL]
    except (TypeError, ValueError):
        parameters = []
    for position, example in enumerate(examples, start=skipped):
        start = parameters[position] if position < len(parameters) else f"input_{position - skipped}"
        for path, leaf in _paths(example):
            yield ".".join([start, *path]), leaf, bool(path)


def _paths(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(tree, dict):
        for key, item in tree.items():
            yield from _paths(item, (*path, str(key)))
    elif isinstance(tree, list | tuple) and not isinstance(tree, TensorType):
        for index, item in enumerate(tree):
            yield from _paths(item, (*path, str(index)))
    elif tree is not None:
        yield path, tree


def _output_names(tree: Any, ports: Sequence[Port]) -> list[str]:
    """Names by the containers' keys; what an input is called too (parameters of a training step) is "new.…"."""
    paths = [".".join(path) for path, _ in _paths(tree)]
    names = ["output"] if paths == [""] else [f"output_{path}" if path[:1].isdigit() else path for path in paths]
    taken = {port.name for port in ports}
    return [f"new.{name}" if name in taken else name for name in names]


def _value_info(name: str, dtype: Any, shape: Sequence[Any]) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(name, dtype_number(dtype), list(shape))


def _written(n: Dimension, sizes: Mapping[tuple[int, ...], str]) -> int | str | None:
    """A size as the model declares it: a number, the name of a free size, or a formula of one."""
    if isinstance(n, int):
        return n
    if n.values in sizes:
        return sizes[n.values]
    formula = formula_for(n.values, list(sizes))
    if formula is None:
        return None
    sign = " + " if formula.is_sum else "*"
    text = sign.join(f"({s})" if " " in s else s for s in (sizes[source] for source in formula.sources))
    text = f"{formula.factor}*{text}" if formula.factor != 1 else text
    text = f"({text} + {formula.shift})" if formula.shift else text
    text = f"{text}//{formula.divisor}" if formula.divisor != 1 else text
    return f"{text} {'+' if formula.offset > 0 else '-'} {abs(formula.offset)}" if formula.offset else text


# -- tracing -----------------------------------------------------------------------------------------------------


def _traced(function: Callable[..., Any], typed: Sequence[Any], ports: Sequence[Port]) -> tuple[list[Graph], Points]:
    """The function traced at every point, with what the table has left as composites."""
    examples: dict[str, int] = {}
    for port in ports:
        for axis, dim in port.axes.items():
            for name in names_in(dim):
                examples.setdefault(name, port.type.shape[axis] if names_in(dim) == [dim] else 1)
    failure: ZoonetError | None = None
    for choices in _choices(examples):
        points = Points(choices)
        try:
            graphs = [_at(function, typed, points, point) for point in points.points]
            list(aligned(graphs))
            return graphs, points
        except ZoonetError as error:
            failure = failure or error
    if not examples:
        assert failure is not None
        raise failure
    raise TraceError(
        f"the function cannot be traced where {' and '.join(examples)} may have any size: {failure}",
        fix="say which axes may vary, export(…, dynamic={'x': {0: 'batch'}}), or none with dynamic={}",
    ) from failure


def _choices(examples: Mapping[str, int]) -> Iterator[Choice]:
    """Sizes to trace at: small ones for small examples; for large ones neighbours of different parity, so that halves
    rounded up and down are told apart, or multiples where the function takes no others."""
    if not examples:
        yield {}
        return
    small: Choice = {name: (2 + i, 3 + i, 5 + i, 8 + i, 13 + i) for i, name in enumerate(examples)}
    multiples: Choice = {name: (n, 2 * n, 3 * n, 5 * n) if n > 1 else small[name] for name, n in examples.items()}
    mixed: Choice = {
        name: (n, n + 1, 2 * n + 3, 2 * n + 6, 3 * n) if n >= 16 else small[name] for name, n in examples.items()
    }
    lower: Choice = {name: (n, n - 1, n - 2, n - 3) if n > 5 else small[name] for name, n in examples.items()}
    tried: list[Choice] = []
    least: Choice = dict.fromkeys(examples, (2, 3, 4, 5))
    for choice in (mixed, multiples, small, lower, least):
        if choice not in tried:
            tried.append(choice)
            yield choice


def _at(function: Callable[..., Any], typed: Sequence[Any], points: Points, point: dict[str, int]) -> Graph:
    def kind(port: Port) -> TensorType:
        return TensorType(tuple(points.at(n, point) for n in port.shape), port.type.dtype)

    types = [trees.map_leaves(lambda leaf: kind(leaf) if isinstance(leaf, Port) else leaf, tree) for tree in typed]
    graph = trace(function, *types)
    graph = expand_composites(eliminate_dead_code(graph), keep=EMITTERS.keys())
    return eliminate_dead_code(graph)


# -- writing -----------------------------------------------------------------------------------------------------


class _Writer:
    """Writes the operators of aligned graphs."""

    def __init__(self, builder: Builder, graphs: list[Graph]) -> None:
        self.builder = builder
        self.graphs = graphs
        self.tensors: dict[tuple[Value, ...], Tensor] = {}
        self.unwritten: dict[tuple[Value, ...], UnsupportedFormatError] = {}

    def write(self, weights: Mapping[str, Any], ports: Sequence[Port], labels: Sequence[str]) -> list[Tensor]:
        """Write all nodes; the tensors of the outputs, which are named as `labels`."""
        builder = self.builder
        for taken in (*(port.name for port in ports), *labels):
            builder.unique(taken)
        inputs = list(zip(*(g.inputs for g in self.graphs), strict=True))
        for (name, array), values in zip(weights.items(), inputs, strict=False):
            self.tensors[values] = _tensor(builder.initializer(_on_cpu(array), name), values)
        for port, values in zip(ports, inputs[len(weights) :], strict=True):
            self.tensors[values] = builder.know(_tensor(port.name, values), is_input=True)
        for nodes in aligned(self.graphs):
            self._node(nodes)
        results, renamed = [], {}
        for label, values in zip(labels, zip(*(g.outputs for g in self.graphs), strict=True), strict=True):
            tensor = self._lookup(values)
            made = any(tensor.name in node.output for node in builder.nodes)
            builder.operator = "output"
            name = tensor.name if made and tensor.name not in renamed else builder.node("Identity", tensor)
            renamed[name] = label
            results.append(tensor)
        builder.rename(renamed)
        builder.drop_unused(labels)
        return results

    def _node(self, nodes: tuple[Node, ...]) -> None:
        node, builder = nodes[0], self.builder
        builder.operator = node.op.name
        emit = EMITTERS.get(node.op.name)
        if emit is None:
            raise UnsupportedFormatError(
                f"the operator {node.op.name} cannot be written as ONNX",
                expected="operators that ONNX has",
                received=f"{node.op.name}: {', '.join(str(v.type) for v in node.inputs)}",
                fix="leave it out of the function, and apply it to the results",
            )
        where = f"the operator {node.op.name}"
        arguments = {key: merged([n.arguments[key] for n in nodes], self._lookup, where) for key in node.arguments}
        if any(v.type.dtype.kind == "c" for v in (*node.inputs, *node.outputs)):
            raise builder.refuse("it computes with complex numbers here, which ONNX's operators do not take")
        outputs = [_tensor("", values) for values in zip(*(n.outputs for n in nodes), strict=True)]
        builder.outputs = tuple(outputs)
        names = node.op.apply(emit, arguments, builder)
        names = (names,) if isinstance(names, str) else names
        for name, values in zip(names, zip(*(n.outputs for n in nodes), strict=True), strict=True):
            if name is None:
                self.unwritten[values] = builder.refuse("one of its results, which is used here")
            else:
                self.tensors[values] = builder.know(_tensor(name, values))

    def _lookup(self, values: tuple[Value, ...]) -> Tensor:
        if values in self.unwritten:
            raise self.unwritten[values]
        found = self.tensors.get(values)
        if found is None:
            found = self.tensors[values] = self._constant(values)
        return found

    def _constant(self, values: tuple[Value, ...]) -> Tensor:
        if any(v not in g.constants for v, g in zip(values, self.graphs, strict=True)):
            raise TraceError("the traced function wires its operators in another way at another size")
        arrays = [_on_cpu(g.constants[v]) for v, g in zip(values, self.graphs, strict=True)]
        first = arrays[0]
        same = all(_same(first, other) for other in arrays[1:])
        written = self.builder.constant(first) if same else varying_constant(self.builder, arrays)
        return _tensor(written, values)


def _same(first: Any, second: Any) -> bool:
    if first is second:
        return True
    return bool(first.shape == second.shape and first.dtype == second.dtype and first.tobytes() == second.tobytes())


def _on_cpu(array: Any) -> Any:
    return array.get() if hasattr(array, "get") else np.asarray(array)


def _tensor(name: str, values: tuple[Value, ...]) -> Tensor:
    shape = zip(*(v.type.shape for v in values), strict=True)
    return Tensor(name, tuple(map(dimension_of, shape)), values[0].type.dtype)
