"""Passes and compiled programs: what they remove, and that results stay the same."""

from __future__ import annotations

import threading
import tracemalloc
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch

from zoonet import ops
from zoonet.ops import passes, tensor_type


def names(graph: ops.Graph) -> list[str]:
    return [node.op.name for node in graph.nodes]


def test_dead_code_goes() -> None:
    def function(x: np.ndarray) -> np.ndarray:
        ops.exp(x)
        return ops.add(x, 1.0)

    graph = ops.trace(function, tensor_type((2,)))
    assert names(graph) == ["exp", "add"]
    assert names(passes.eliminate_dead_code(graph)) == ["add"]


def test_common_subexpressions_are_computed_once() -> None:
    graph = ops.trace(lambda x: ops.exp(x) + ops.exp(x) * ops.exp(x + 0.0), tensor_type((2,)))
    shorter = passes.eliminate_common_subexpressions(graph)
    shorter.verify()
    assert names(graph).count("exp") == 3
    assert names(shorter).count("exp") == 2


def test_numbers_of_different_types_are_different_expressions() -> None:
    graph = ops.trace(lambda x: (x * 1, x * 1.0, x * True), tensor_type((2,), "int32"))
    assert len(passes.eliminate_common_subexpressions(graph).nodes) == 3


def test_constants_are_folded_unless_they_grow() -> None:
    small = np.ones((1, 1), np.float32)
    graph = ops.trace(lambda x: x + ops.exp(small), tensor_type((2,)))
    assert names(passes.fold_constants(graph)) == ["add"]
    graph = ops.trace(lambda x: x + ops.broadcast_to(small, (1000, 1000)), tensor_type((1000,)))
    graph.constants  # noqa: B018
    traced = ops.trace(lambda x, c: x + ops.broadcast_to(c, (1000, 1000)), tensor_type((1000,)), small)
    value = traced.inputs.pop()
    traced.constants[value] = small
    assert names(passes.fold_constants(traced)) == ["broadcast_to", "add"]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_batch_norm_folds_into_the_convolution(bias: bool, affine: bool) -> None:
    generator = np.random.default_rng(0)

    def array(*shape: int) -> np.ndarray:
        return generator.normal(size=shape).astype(np.float32)

    x, weight, shift = array(2, 3, 8, 8), array(5, 3, 3, 3), array(5) if bias else None
    mean, variance = array(5), np.abs(array(5)) + 0.5
    gamma, beta = (array(5), array(5)) if affine else (None, None)

    def function(x: np.ndarray) -> np.ndarray:
        y = ops.conv(x, weight, shift, padding=1)
        return ops.relu(ops.batch_norm(y, mean, variance, gamma, beta, eps=1e-5))

    program = ops.compile(ops.trace(function, x))
    assert names(program.graph) == ["conv", "relu"]
    tensors = [None if a is None else torch.from_numpy(a) for a in (x, weight, shift, mean, variance, gamma, beta)]
    y = torch.nn.functional.conv2d(tensors[0], tensors[1], tensors[2], padding=1)
    expected = torch.relu(torch.nn.functional.batch_norm(y, tensors[3], tensors[4], tensors[5], tensors[6], eps=1e-5))
    np.testing.assert_allclose(program(x), expected.numpy(), rtol=1e-4, atol=1e-4)


def test_batch_norm_is_not_folded_where_the_convolution_is_read_elsewhere() -> None:
    weight, ones = np.ones((2, 2, 1, 1), np.float32), np.ones(2, np.float32)

    def function(x: np.ndarray) -> tuple:
        y = ops.conv(x, weight)
        return y, ops.batch_norm(y, ones, ones, ones, ones)

    program = ops.compile(ops.trace(function, tensor_type((1, 2, 3, 3))))
    assert names(program.graph) == ["conv", "batch_norm"]


def test_buffers_are_used_again_and_outputs_are_the_callers() -> None:
    def function(x: np.ndarray) -> np.ndarray:
        for _ in range(10):
            x = ops.relu(ops.add(x, 1.0))
        return x

    x = np.zeros((1000,), np.float32)
    program = ops.compile(ops.trace(function, x))
    assert 0 < program.buffer_bytes <= 2 * x.nbytes
    first = program(x)
    second = program(x + 1)
    assert first.tolist() == [10.0] * 1000
    assert second.tolist() == [11.0] * 1000
    assert x.tolist() == [0.0] * 1000


def test_a_view_keeps_its_buffer() -> None:
    def function(x: np.ndarray) -> np.ndarray:
        first = ops.add(x, 1.0)
        view = ops.reshape(first, (4,))
        second = ops.relu(ops.add(x, 5.0))
        return ops.add(ops.reshape(second, (4,)), view)

    x = np.zeros((2, 2), np.float32)
    assert ops.compile(ops.trace(function, x))(x).tolist() == [6.0] * 4


def test_threads_do_not_share_buffers() -> None:
    def function(x: np.ndarray) -> np.ndarray:
        for _ in range(20):
            x = ops.add(ops.relu(x), 1.0)
        return x

    program = ops.compile(ops.trace(function, tensor_type((20000,))))
    wrong = []

    def work(start: float) -> None:
        results = [program(np.full(20000, start, np.float32)).copy() for _ in range(20)]
        wrong.extend(start for result in results if not np.all(result == start + 20))

    threads = [threading.Thread(target=work, args=(float(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_whole_training_step_compiles_and_equals_torch() -> None:
    """State is explicit, so forward, gradient and update are one graph; three steps of momentum SGD by torch."""
    generator = np.random.default_rng(1)
    weights = {
        "conv": generator.normal(size=(4, 1, 3, 3)).astype(np.float32) * 0.3,
        "linear": generator.normal(size=(3, 4)).astype(np.float32),
    }
    images = generator.normal(size=(6, 1, 8, 8)).astype(np.float32)
    labels = generator.integers(0, 3, 6)

    def forward(weights: dict, images: np.ndarray) -> np.ndarray:
        hidden = ops.max_pool(ops.relu(ops.conv(images, weights["conv"], padding=1)), 2)
        return ops.linear(ops.mean(hidden, (2, 3)), weights["linear"])

    def step(weights: dict, velocity: dict, images: np.ndarray, labels: np.ndarray) -> tuple:
        loss, gradients = ops.value_and_grad(lambda w: ops.cross_entropy(forward(w, images), labels))(weights)
        velocity = {k: velocity[k] * 0.9 + gradients[k] for k in weights}
        return loss, {k: weights[k] - velocity[k] * 0.1 for k in weights}, velocity

    velocity = {k: np.zeros_like(v) for k, v in weights.items()}
    program = ops.compile(ops.trace(step, weights, velocity, images, labels))
    tensors = {k: torch.tensor(v, requires_grad=True) for k, v in weights.items()}
    optimizer = torch.optim.SGD(tensors.values(), lr=0.1, momentum=0.9)
    for _ in range(3):
        loss, weights, velocity = program(weights, velocity, images, labels)
        optimizer.zero_grad()
        hidden = torch.nn.functional.conv2d(torch.from_numpy(images), tensors["conv"], padding=1).relu()
        hidden = torch.nn.functional.max_pool2d(hidden, 2).mean((2, 3))
        expected = torch.nn.functional.cross_entropy(hidden @ tensors["linear"].T, torch.from_numpy(labels))
        expected.backward()
        optimizer.step()
        assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    for key, tensor in tensors.items():
        np.testing.assert_allclose(weights[key], tensor.detach().numpy(), rtol=1e-4, atol=1e-6)


def test_inputs_of_another_type_are_refused() -> None:
    program = ops.compile(ops.trace(lambda x: x + 1.0, tensor_type((2,))))
    with pytest.raises(ops.ShapeError, match=r"expected \[2\]; received \[3\]"):
        program(np.ones(3, np.float32))
    with pytest.raises(ops.DTypeError, match="expected float32; received float64"):
        program(np.ones(2))
    with pytest.raises(ops.ShapeError, match="wrong number of inputs"):
        program(np.ones(2, np.float32), np.ones(2, np.float32))


def test_an_unknown_device_is_refused() -> None:
    graph = ops.trace(lambda x: x + 1.0, tensor_type((2,)))
    with pytest.raises(ops.DeviceError, match="'cpu', 'cuda' or 'cuda:N'"):
        ops.compile(graph, device="tpu")


def test_a_program_inside_a_gradient_is_differentiated() -> None:
    program = ops.compile(ops.trace(lambda x: ops.exp(x) * 2.0, tensor_type((2,), "float64")))
    x = np.array([0.0, 1.0])
    np.testing.assert_allclose(ops.grad(lambda v: ops.sum(program(v)))(x), 2 * np.exp(x))


def peak_bytes(run: Callable[[], object]) -> int:
    """The most that a call holds at one time, beyond what it finds."""
    run()
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_values_are_freed_after_their_last_use() -> None:
    """A chain of 20 products of one megabyte each holds two or three of them, not 20; so does the eager call."""
    weight = np.eye(512, dtype=np.float32)

    def function(x: np.ndarray) -> np.ndarray:
        for _ in range(20):
            x = ops.matmul(ops.relu(x), weight)
        return x

    x = np.ones((512, 512), np.float32)
    program = ops.compile(ops.trace(function, x))
    assert peak_bytes(lambda: program(x)) < 4.5 * x.nbytes
    assert peak_bytes(lambda: function(x)) < 4.5 * x.nbytes


def test_programs_do_not_warn_of_infinities() -> None:
    program = ops.compile(ops.trace(lambda x: ops.log(x) - ops.log(x), tensor_type((2,))))
    x = np.array([0.0, 1.0], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(program(x), [np.nan, 0.0])
        np.testing.assert_array_equal(ops.divide(x, 0.0), [np.nan, np.inf])


@pytest.mark.parametrize("number", [300, -1, 2**70])
def test_numbers_that_an_integer_type_cannot_hold_are_refused(number: int) -> None:
    x = np.ones(2, np.uint8)
    with pytest.raises(ops.ArgumentError, match=rf"expected 0 to 255 for uint8; received {number}\. Fix: cast"):
        ops.add(x, number)
    with pytest.raises(ops.ArgumentError, match="expected 0 to 255 for uint8"):
        ops.compile(ops.trace(lambda v: v + number, x))


def test_contents_that_do_not_fit_raise_an_error_that_names_the_operator() -> None:
    x = np.zeros((3, 5), np.float32)
    program = ops.compile(ops.trace(lambda x, i: ops.take(x, i, 1), x, np.array([0, 1])))
    with pytest.raises(ops.ShapeError, match=r"take failed on float32\[3, 5\], int64\[2\].*out of bounds"):
        program(x, np.array([0, 1 << 40]))
