"""Types of a Keras model's inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoonet.formats.onnx.values import ValueInfo
from zoonet.ops.devices import is_array
from zoonet.ops.errors import ZoonetError
from zoonet.ops.graph import Graph
from zoonet.ops.tracing import Abstract, evaluate_graph
from zoonet.ops.types import DType, TensorType

__all__ = ["InputInfo", "infer_types"]

#: Sizes tried for axes that may have any, smaller and larger.
_TRIALS = ((2, 64), (3, 96))


@dataclass(frozen=True)
class InputInfo(ValueInfo):
    """An input of a Keras model. As in Keras, numbers of other data types are cast to the declared one."""

    def check(self, value: Any) -> Any:
        """The value in the declared data type. Raises InputError if it does not fit."""
        if not is_array(value) and isinstance(value, list | tuple | int | float):
            value = np.asarray(value)
        if is_array(value) and value.dtype != self.dtype and value.dtype.kind in "biuf" and self.dtype is not None:
            value = value.astype(self.dtype)
        return super().check(value)


def infer_types(
    graph: Graph, shapes: Sequence[tuple[Any, ...]], dtypes: Sequence[DType | None]
) -> list[TensorType | None]:
    """The types of the graph's outputs, None for sizes that vary; None for all where the graph does not take the
    sizes that are tried."""
    found: list[list[TensorType]] = []
    for batch, size in _TRIALS:
        given = [
            TensorType(tuple([batch if i == 0 else size if n is None else n for i, n in enumerate(shape)]), dtype)
            for shape, dtype in zip(shapes, dtypes, strict=True)
            if dtype is not None
        ]
        try:
            found.append(_traced(graph, given))
        except ZoonetError:
            return [None] * len(graph.outputs)
    return [
        TensorType(tuple([n if n == m else None for n, m in zip(first.shape, second.shape, strict=True)]), first.dtype)
        if first.ndim == second.ndim
        else None
        for first, second in zip(*found, strict=True)
    ]


def _traced(graph: Graph, types: Sequence[TensorType]) -> list[TensorType]:
    """The types of the outputs for types of the inputs; no array is read or made."""
    abstract = Abstract(graph.name)
    inputs = [abstract.input(kind) for kind in types]
    constants = {value: abstract.input(value.type) for value in graph.constants}
    try:
        outputs = evaluate_graph(graph, *inputs, constants=constants)
    finally:
        abstract.closed = True
    return [TensorType(tuple(y.shape), y.dtype) for y in outputs]
