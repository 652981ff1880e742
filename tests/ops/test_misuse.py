"""Arguments of the wrong kind are explained; what NumPy and PyTorch allow at the edges is allowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from zoonet import ops
from zoonet.ops.errors import ArgumentError, GradientError, TraceError, ZoonetError

X = np.ones((2, 3, 5, 5), np.float32)

MISUSES: dict[str, Callable[[], Any]] = {
    "weight of one axis": lambda: ops.conv(X, np.ones(3, np.float32)),
    "weight of two axes": lambda: ops.conv(X, np.ones((0, 3), np.float32)),
    "grid without picture": lambda: ops.grid_sample(np.ones(3, np.float32), np.ones((1, 2, 2, 2), np.float32)),
    "size that is no list": lambda: ops.resize(X, 7),
    "axes that are no list": lambda: ops.transpose(X, -1),
    "axis as text": lambda: ops.sum(X, "a"),
    "axis as float": lambda: ops.sum(X, 1.5),
    "no shape": lambda: ops.reshape(X, None),
    "None": lambda: ops.relu(None),
    "None as operand": lambda: ops.matmul(None, X),
    "None to sum": lambda: ops.sum(None),
    "traced None": lambda: ops.trace(lambda x: ops.add(x, None), ops.tensor_type((2,))),
    "dtype as type": lambda: ops.trace(lambda x: x, "float32"),
    "shape as type": lambda: ops.trace(lambda x: x, (2, 3)),
    "function to compile": lambda: ops.compile(lambda x: x),
    "size as shape": lambda: ops.tensor_type(3),
    "negative size": lambda: ops.tensor_type((-1,)),
    "fractional size": lambda: ops.tensor_type((2.5,)),
    "limits in the wrong order": lambda: ops.random_uniform(ops.random_key(0), (2,), 1.0, 0.0),
    "negative deviation": lambda: ops.random_normal(ops.random_key(0), (2,), 0.0, -1.0),
    "argnums beyond the arguments": lambda: ops.grad(lambda x: ops.sum(x), 5)(np.ones(2)),
}


@pytest.mark.parametrize("name", MISUSES)
def test_wrong_kinds_are_explained(name: str) -> None:
    with pytest.raises(ZoonetError, match=r"expected|received"):
        MISUSES[name]()


def test_numpy_functions_on_traced_values_name_the_way_out() -> None:
    with pytest.raises(TraceError, match=r"zoonet\.ops\.sum"):
        ops.grad(lambda x: np.sum(x))(np.ones(3))


def test_methods_of_arrays_work_on_traced_values() -> None:
    x = np.random.default_rng(0).standard_normal((3, 4))
    functions: list[Callable[[Any], Any]] = [
        lambda a: a.max(1),
        lambda a: a.min(0, keepdims=True),
        lambda a: a.prod(1),
        lambda a: a.var(0, ddof=1),
        lambda a: a.std(),
        lambda a: (a > 0).any(1),
        lambda a: (a > 0).all(0),
        lambda a: a.argmax(1),
        lambda a: a.argmin(),
        lambda a: a.ravel(),
        lambda a: a.flatten(),
        lambda a: a.reshape(3, 1, 4).squeeze(1),
        lambda a: a.swapaxes(0, 1),
        lambda a: a.clip(-0.5, 0.5),
        lambda a: a.dot(a.T),
        lambda a: a.copy(),
    ]
    for function in functions:
        graph = ops.trace(function, x)
        np.testing.assert_allclose(ops.compile(graph)(x), np.asarray(function(x)), rtol=1e-12)
    assert ops.vjp(lambda a: a * a.sum().item(), x)[0].shape == x.shape


def test_pullbacks_take_numbers_and_check_shapes() -> None:
    x = np.array([1.0, 2.0, 3.0])
    _, pullback = ops.vjp(lambda x: ops.sum(x * x), x)
    np.testing.assert_array_equal(pullback(1.0)[0], 2 * x)
    np.testing.assert_array_equal(pullback(2)[0], 4 * x)
    _, pullback = ops.vjp(lambda x: x * x, x)
    for wrong in (np.ones((5, 3)), np.ones(()), np.ones(2), 1.0, None):
        with pytest.raises(GradientError):
            pullback(wrong)


def test_positions_from_the_end_and_keywords() -> None:
    a, b = np.array([1.0, 2.0]), np.array([3.0, 5.0])
    np.testing.assert_array_equal(ops.grad(lambda x, y: ops.sum(x * y), -1)(a, b), a)
    first, second = ops.grad(lambda x, y, scale: ops.sum(x * y) * scale, (0, -1))(a, b, scale=2.0)
    np.testing.assert_array_equal(first, 2 * b)
    np.testing.assert_array_equal(second, 2 * a)
    with pytest.raises(ArgumentError, match="argnums below 2"):
        ops.grad(lambda x, y: ops.sum(x), 2)(a, b)


@pytest.mark.parametrize("shape", [(1_000_000, 3), (2, 5000, 40), (3000, 1, 2, 2), (1500, 0), (4, 1025)])
@pytest.mark.parametrize("axis", [0, 1, (0, 1)])
def test_long_sums_keep_their_digits(shape: tuple[int, ...], axis: Any) -> None:
    x = np.random.default_rng(0).uniform(0.0, 1.0, shape).astype(np.float32)
    wide = x.astype(np.float64)
    for keepdims in (False, True):
        np.testing.assert_allclose(ops.sum(x, axis, keepdims), wide.sum(axis, keepdims=keepdims), rtol=2e-6)
        if 0 not in shape:
            np.testing.assert_allclose(ops.mean(x, axis, keepdims), wide.mean(axis, keepdims=keepdims), rtol=2e-6)
            variance = wide.var(axis, keepdims=keepdims)
            np.testing.assert_allclose(ops.var(x, axis, 0, keepdims), variance, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["mean", "logsumexp"])
def test_reductions_of_nothing_equal_torch(name: str) -> None:
    x = np.zeros((2, 0, 3), np.float32)
    wanted = getattr(torch, name)(torch.from_numpy(x), 1).numpy()
    np.testing.assert_array_equal(getattr(ops, name)(x, 1), wanted)


@pytest.mark.filterwarnings("ignore:.*degrees of freedom")
@pytest.mark.parametrize("name", ["var", "std"])
def test_spread_of_too_few_equals_torch(name: str) -> None:
    for x in (np.ones((2, 1), np.float32), np.ones((2, 0), np.float32)):
        wanted = getattr(torch, name)(torch.from_numpy(x), 1, correction=1).numpy()
        np.testing.assert_array_equal(getattr(ops, name)(x, 1, 1), wanted)
    assert np.isnan(ops.grad(lambda x: ops.sum(ops.var(x, 1, 1)))(np.ones((2, 1)))).all()


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("transposed", [False, True])
def test_gradients_of_an_empty_batch(groups: int, transposed: bool) -> None:
    weight = np.ones((4, 4 // groups, 3, 3), np.float32)
    function = ops.conv_transpose if transposed else ops.conv
    gradient = ops.grad(lambda w: ops.sum(function(np.ones((0, 4, 5, 5), np.float32), w, groups=groups)))(weight)
    np.testing.assert_array_equal(gradient, np.zeros_like(weight))


def test_batch_norm_is_not_folded_into_a_linear_layer_with_other_channels() -> None:
    rng = np.random.default_rng(0)
    weight, mean, variance = rng.standard_normal((4, 3)), rng.standard_normal(4), rng.uniform(1, 2, 4)
    for shape in ((5, 3), (2, 4, 3)):
        x = rng.standard_normal(shape)
        y = torch.from_numpy(x) @ torch.from_numpy(weight).T
        wanted = torch.nn.functional.batch_norm(y, torch.from_numpy(mean), torch.from_numpy(variance))
        graph = ops.trace(lambda x: ops.batch_norm(ops.linear(x, weight), mean, variance), x)
        np.testing.assert_allclose(ops.compile(graph)(x), wanted.numpy(), rtol=1e-10)
