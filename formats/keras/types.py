"""Types of a Keras model's inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoonet.formats.onnx.values import ValueInfo
from zoonet.ops.devices import is_array
from zoonet.ops.errors import FormatError, UnsupportedFormatError, ZoonetError
from zoonet.ops.graph import Graph, Node, Value
from zoonet.ops.tracing import Abstract, run_node
from zoonet.ops.types import DType, TensorType

__all__ = ["InputInfo", "infer_types"]

#: What a layer may raise for options and shapes that make no sense.
_FAILURES = (
    *(ZoonetError, ArithmeticError, AttributeError, LookupError),
    *(MemoryError, RecursionError, TypeError, ValueError),
)
#: Sizes tried for axes that may have any, smaller and larger.
_TRIALS = ((2, 64), (3, 96))


@dataclass(frozen=True)
class InputInfo(ValueInfo):
    """An input of a Keras model. As in Keras, numbers of other data types are cast to the declared one.

    batch: the number of items that the file fixes; the shape leaves it free, as Keras does where the layers do.
    """

    batch: int | None = None

    def check(self, value: Any) -> Any:
        """The value in the declared data type. Raises InputError if it does not fit."""
        if not is_array(value) and isinstance(value, list | tuple | int | float):
            value = np.asarray(value)
        if is_array(value) and value.dtype != self.dtype and value.dtype.kind in "biuf" and self.dtype is not None:
            value = value.astype(self.dtype)
        return super().check(value)


def infer_types(
    graph: Graph, shapes: Sequence[tuple[Any, ...]], dtypes: Sequence[DType | None], fixed: int | None = None
) -> list[TensorType | None]:
    """The types of the graph's outputs, None for sizes that vary; None for all where the graph does not take the
    sizes that are tried for inputs of unknown sizes. fixed: the only batch to try.

    Raises FormatError that names the layer, where the sizes are known and a layer cannot take them.
    """
    found: list[list[TensorType]] = []
    known = all(n is not None for shape in shapes for n in shape[1:])
    for usual, size in _TRIALS:
        batch = usual if fixed is None else fixed
        given = [
            TensorType(tuple([batch if i == 0 else size if n is None else n for i, n in enumerate(shape)]), dtype)
            for shape, dtype in zip(shapes, dtypes, strict=True)
            if dtype is not None
        ]
        try:
            found.append(_traced(graph, given))
        except UnsupportedFormatError:
            raise
        except FormatError:
            if known:
                raise
            return [None] * len(graph.outputs)
    return [
        TensorType(
            tuple(
                [
                    n if n == m and (i or n != fixed) else None
                    for i, (n, m) in enumerate(zip(first.shape, second.shape, strict=True))
                ]
            ),
            first.dtype,
        )
        if first.ndim == second.ndim
        else None
        for first, second in zip(*found, strict=True)
    ]


def _traced(graph: Graph, types: Sequence[TensorType]) -> list[TensorType]:
    """The types of the outputs for types of the inputs; no array is read or made."""
    abstract = Abstract(graph.name)
    environment: dict[Value, Any] = {value: abstract.input(value.type) for value in graph.constants}
    environment.update(zip(graph.inputs, map(abstract.input, types), strict=True))
    try:
        for node in graph.nodes:
            environment.update(zip(node.outputs, _outputs(node, environment), strict=True))
    finally:
        abstract.closed = True
    return [TensorType(tuple(environment[value].shape), environment[value].dtype) for value in graph.outputs]


def _outputs(node: Node, environment: dict[Value, Any]) -> tuple[Any, ...]:
    """The outputs of a layer. Raises FormatError that names it: options and shapes come from the file."""
    try:
        outputs = run_node(node.op, node.arguments, environment.__getitem__)
    except UnsupportedFormatError:
        raise
    except _FAILURES as error:
        raise FormatError(
            f"the layer {node.name!r} ({node.op.name.removeprefix('keras.')}) cannot be computed with the options and "
            f"weights of the file: {error}"
        ) from error
    if len(outputs) != len(node.outputs):
        raise FormatError(f"the layer {node.name!r} has another number of outputs than the file says")
    return outputs
