"""Compiled programs on random graphs: buffers used again, views of them, values read twice, outputs that are inputs.

The expected values come from NumPy's own functions, one for each step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from zoonet import ops

Step = tuple[Callable[..., Any], Callable[..., Any]]

#: Steps on arrays of shape (4, 6), ours and NumPy's: elementwise, views and their way back, copies, reductions.
UNARY: list[Step] = [
    (ops.relu, lambda x: np.maximum(x, 0)),
    (ops.tanh, np.tanh),
    (ops.negative, np.negative),
    (ops.sigmoid, lambda x: 1 / (1 + np.exp(-x))),
    (lambda x: ops.multiply(x, 0.5), lambda x: x * 0.5),
    (lambda x: ops.reshape(ops.transpose(x), (4, 6)), lambda x: x.T.reshape(4, 6)),
    (lambda x: ops.transpose(ops.reshape(x, (6, 4))), lambda x: x.reshape(6, 4).T),
    (lambda x: ops.flip(x, 0), lambda x: x[::-1]),
    (lambda x: ops.flip(ops.flip(x, 1), 1), lambda x: x),
    (lambda x: ops.concat([x[:, 3:], x[:, :3]], 1), lambda x: np.concatenate([x[:, 3:], x[:, :3]], 1)),
    (lambda x: ops.broadcast_to(x[1:2], (4, 6)), lambda x: np.broadcast_to(x[1:2], (4, 6))),
    (lambda x: ops.subtract(x, ops.max(x, 1, True)), lambda x: x - x.max(1, keepdims=True)),
    (lambda x: ops.softmax(x, 1), lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True)),
    (lambda x: ops.matmul(x, np.ones((6, 6), np.float32)), lambda x: x @ np.ones((6, 6), np.float32)),
    (lambda x: ops.cast(ops.cast(x, "float64"), "float32"), lambda x: x),
    (lambda x: x, lambda x: x),
]
BINARY: list[Step] = [
    (ops.add, np.add),
    (ops.multiply, np.multiply),
    (ops.subtract, np.subtract),
    (ops.maximum, np.maximum),
    (lambda x, y: ops.where(ops.greater(x, y), x, y), np.maximum),
    (lambda x, y: ops.reshape(ops.concat([x, y], 0), (8, 6))[2:6], lambda x, y: np.concatenate([x, y], 0)[2:6]),
]


@settings(max_examples=150, deadline=None)
@given(st.data(), st.booleans())
def test_programs_compute_what_numpy_does(data: st.DataObject, optimized: bool) -> None:
    steps: list[tuple[Step, tuple[int, ...]]] = []
    for position in range(data.draw(st.integers(1, 12))):
        reads = st.integers(0, position + 1)  # two inputs, then the results of the steps before
        if data.draw(st.booleans()):
            steps.append((data.draw(st.sampled_from(UNARY)), (data.draw(reads),)))
        else:
            steps.append((data.draw(st.sampled_from(BINARY)), (data.draw(reads), data.draw(reads))))
    returned = data.draw(st.lists(st.integers(0, len(steps) + 1), min_size=1, max_size=4))

    def run(which: int, *inputs: Any) -> list[Any]:
        values = list(inputs)
        for step, places in steps:
            values.append(step[which](*[values[place] for place in places]))
        return [values[place] for place in returned]

    generator = np.random.default_rng(0)
    program = None
    for _ in range(3):  # later runs find the buffers of earlier ones
        inputs = [generator.uniform(-1, 1, (4, 6)).astype(np.float32) for _ in range(2)]
        before = [x.copy() for x in inputs]
        if program is None:
            graph = ops.trace(lambda *a: run(0, *a), *inputs)
            graph.verify()
            program = ops.compile(graph, optimized=optimized)
            kept = program(*inputs)
            first = [np.array(k) for k in kept]
        with np.errstate(all="ignore"):
            expected = run(1, *[x.astype(np.float64) for x in inputs])
        for actual, wanted in zip(program(*inputs), expected, strict=True):
            scale = max(1.0, float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0)))
            np.testing.assert_allclose(actual, wanted, rtol=1e-4, atol=1e-4 * scale)
        for x, copy in zip(inputs, before, strict=True):
            np.testing.assert_array_equal(x, copy, err_msg="an input was changed")
        for result, copy in zip(kept, first, strict=True):
            np.testing.assert_array_equal(result, copy, err_msg="a result of an earlier run was changed")
