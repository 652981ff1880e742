"""Graphs: tracing, printing, verification, and what cannot be traced."""

from __future__ import annotations

import numpy as np
import pytest

from zoonet import ops
from zoonet.ops import Graph, tensor_type


def polynomial(x: np.ndarray) -> np.ndarray:
    return ops.add(ops.multiply(ops.multiply(x, x), 3.0), 1.0)


def test_a_graph_prints_inputs_types_nodes_and_outputs() -> None:
    graph = ops.trace(polynomial, tensor_type((2, 3)))
    assert str(graph).splitlines() == [
        "polynomial(%x0: float32[2,3])",
        "  %1: float32[2,3] = multiply(%x0, %x0)",
        "  %2: float32[2,3] = multiply(%1, y=3.0)",
        "  %3: float32[2,3] = add(%2, y=1.0)",
        "  return %3",
    ]


def test_trees_of_inputs_and_outputs_keep_their_containers() -> None:
    def function(parts: dict) -> dict:
        return {"sum": ops.add(parts["a"], parts["b"][0]), "same": [parts["a"]]}

    types = {"a": tensor_type((2,)), "b": [tensor_type((2,))]}
    program = ops.compile(ops.trace(function, types))
    one, two = np.ones(2, np.float32), np.full(2, 2, np.float32)
    result = program({"a": one, "b": [two]})
    assert result["sum"].tolist() == [3, 3]
    assert result["same"][0].tolist() == [1, 1]


def test_arrays_closed_over_become_constants() -> None:
    weight = np.array([1.0, 2.0], np.float32)
    graph = ops.trace(lambda x: ops.multiply(x, weight), tensor_type((2,)))
    assert [array.tolist() for array in graph.constants.values()] == [[1.0, 2.0]]


def test_a_condition_on_contents_cannot_be_traced_and_says_so() -> None:
    with pytest.raises(ops.TraceError, match="a condition depends on the contents"):
        ops.trace(lambda x: x if x > 0 else -x, tensor_type(()))


def test_control_flow_is_followed_when_eager() -> None:
    def function(x: np.ndarray) -> np.ndarray:
        return x * x if x > 0 else -x

    assert float(ops.grad(function)(np.float32(3.0))) == 6.0
    assert float(ops.grad(function)(np.float32(-3.0))) == -1.0


def test_numpy_functions_on_traced_values_are_refused() -> None:
    with pytest.raises(ops.TraceError, match=r"zoonet\.ops"):
        ops.trace(lambda x: np.asarray(x), tensor_type((2,)))


def test_a_value_used_after_its_trace_is_refused() -> None:
    kept = []

    def function(x: np.ndarray) -> np.ndarray:
        kept.append(x)
        return x * 2.0

    ops.trace(function, tensor_type((2,)))
    with pytest.raises(ops.TraceError, match="after its trace ended"):
        ops.add(kept[0], 1.0)


def test_verify_finds_a_value_that_nothing_defines() -> None:
    graph = ops.trace(polynomial, tensor_type((2,)))
    del graph.nodes[0]
    with pytest.raises(ops.GraphError, match=r"node 0 \(multiply\) reads a value that nothing before it defines"):
        graph.verify()


def test_verify_finds_a_wrong_type() -> None:
    graph = ops.trace(polynomial, tensor_type((2,)))
    graph.nodes[0].outputs[0].type = tensor_type((3,))
    with pytest.raises(ops.GraphError, match=r"expected float32\[2\]; received float32\[3\]"):
        graph.verify()


def test_verify_finds_an_output_that_nothing_defines() -> None:
    graph = Graph()
    graph.outputs = [ops.Value(tensor_type((2,)))]
    with pytest.raises(ops.GraphError, match="defined nowhere"):
        graph.verify()


def test_a_graph_evaluates_on_traced_values() -> None:
    graph = ops.trace(polynomial, tensor_type((2,)))
    x = np.array([1.0, 2.0], np.float32)
    gradient = ops.grad(lambda v: ops.sum(ops.evaluate_graph(graph, v)[0]))(x)
    np.testing.assert_allclose(gradient, 6 * x)


def test_reflected_operators_and_comparisons() -> None:
    x = np.array([1.0, 4.0])

    def function(v: np.ndarray) -> np.ndarray:
        return ops.sum(2.0 - v) + ops.sum(8.0 / v) + ops.sum(ops.where(v > 2.0, v**2.0, v)) + ops.sum(x * v) + v[-1]

    np.testing.assert_allclose(ops.grad(function)(x), [-1 - 8 + 1 + 1, -1 - 0.5 + 8 + 4 + 1])
