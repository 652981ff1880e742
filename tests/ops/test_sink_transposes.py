"""The pass that moves transposes: what vanishes, what stays, and numbers that NumPy computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from zoonet import ops
from zoonet.ops import passes
from zoonet.ops.tracing import evaluate_graph

LAST, FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
Array = np.ndarray[Any, Any]


def floats(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


X = floats(2, 3, 4, 5)
C = floats(3, seed=1)

#: A function in operators, the same in NumPy, and the operators that are left.
CASES: dict[str, tuple[Callable[[Any], Any], Callable[[Array], Array], list[str]]] = {
    "opposite ones vanish": (
        lambda x: ops.transpose(ops.relu(ops.transpose(x, LAST)), FIRST),
        lambda x: np.maximum(x, 0),
        ["relu"],
    ),
    "two become one": (
        lambda x: ops.transpose(ops.transpose(x, LAST), (1, 0, 2, 3)),
        lambda x: x.transpose(2, 0, 3, 1),
        ["transpose"],
    ),
    "one goes to the end": (
        lambda x: ops.exp(ops.transpose(x, LAST)),
        lambda x: np.exp(x.transpose(LAST)),
        ["exp", "transpose"],
    ),
    "constants are turned": (
        lambda x: ops.transpose(ops.add(ops.multiply(ops.transpose(x, LAST), C), np.float32(2)), FIRST),
        lambda x: x * C[:, None, None] + np.float32(2),
        ["multiply", "add"],
    ),
    "both operands": (
        lambda x: ops.transpose(ops.add(ops.transpose(x, LAST), ops.transpose(ops.tanh(x), LAST)), FIRST),
        lambda x: x + np.tanh(x),
        ["tanh", "add"],
    ),
    "operands that are turned otherwise stay": (
        lambda x: ops.add(ops.transpose(x, (1, 0, 2, 3)), ops.transpose(ops.transpose(x, LAST), (3, 0, 1, 2))),
        lambda x: 2 * x.transpose(1, 0, 2, 3),
        ["add", "transpose"],
    ),
    "a result that is read both ways": (
        lambda x: ops.add(ops.transpose(ops.sum(ops.transpose(x, LAST), (1, 2), True), FIRST), x),
        lambda x: x + x.sum((2, 3), keepdims=True),
        ["sum", "add"],
    ),
    "a mean of axes that go away": (
        lambda x: ops.mean(ops.transpose(x, LAST), (1, 2)),
        lambda x: x.mean((2, 3)),
        ["mean"],
    ),
    "a mean whose axes would be out of order": (
        lambda x: ops.mean(ops.transpose(x, LAST), 0),
        lambda x: x.transpose(LAST).mean(0),
        ["transpose", "mean"],
    ),
    "padding, concatenation, softmax": (
        lambda x: ops.transpose(
            ops.softmax(
                ops.concat(
                    (ops.pad(ops.transpose(x, LAST), ((0, 0), (1, 2), (0, 0), (0, 0))),) * 2,
                    -1,
                ),
                -1,
            ),
            FIRST,
        ),
        lambda x: _softmax(np.concatenate((np.pad(x, ((0, 0), (0, 0), (1, 2), (0, 0))),) * 2, 1), 1),
        ["pad", "concat", "softmax"],
    ),
    "what acts on places stays": (
        lambda x: ops.reshape(ops.transpose(x, LAST), (2, 60)),
        lambda x: x.transpose(LAST).reshape(2, 60),
        ["transpose", "reshape"],
    ),
}


def _softmax(x: Array, axis: int) -> Array:
    powers = np.exp(x - x.max(axis, keepdims=True))
    result: Array = powers / powers.sum(axis, keepdims=True)
    return result


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    function, expected, left = CASES[name]
    graph = ops.trace(function, X)
    before = str(graph)
    sunk = passes.eliminate_dead_code(passes.sink_transposes(graph))
    sunk.verify()
    assert str(graph) == before, "the graph that was given is as it was"
    assert [node.op.name for node in sunk.nodes] == left
    np.testing.assert_allclose(evaluate_graph(sunk, X)[0], expected(X), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ops.compile(graph)(X), expected(X), rtol=1e-5, atol=1e-6)


def test_convolutions_with_channels_last_fold_their_batch_norm() -> None:
    weight, mean, variance = floats(6, 3, 3, 3), floats(6), np.abs(floats(6)) + 0.5

    def layer(x: Any) -> Any:
        y = ops.transpose(ops.conv(ops.transpose(x, FIRST), weight), LAST)
        return ops.relu(ops.transpose(ops.batch_norm(ops.transpose(y, FIRST), mean, variance), LAST))

    graph = ops.trace(layer, X.transpose(LAST))
    optimized = passes.optimize(graph)
    assert [node.op.name for node in optimized.nodes] == ["transpose", "conv", "relu", "transpose"]
    expected = evaluate_graph(graph, X.transpose(LAST))[0]
    np.testing.assert_allclose(ops.compile(graph)(X.transpose(LAST)), expected, rtol=1e-4, atol=1e-5)
