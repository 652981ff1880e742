"""Gathering, scattering, sorting and searching against torch and NumPy, on arguments that Hypothesis chooses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from zoonet import ops

MANY = settings(max_examples=80, deadline=None)
SHAPES = arrays.array_shapes(min_dims=1, max_dims=3, max_side=4)
SEEDS = st.integers(0, 2**31)


def draw_indices(data: st.DataObject, shape: tuple[int, ...], size: int, low: int | None = None) -> np.ndarray:
    return data.draw(arrays.arrays(np.int64, shape, elements=st.integers(-size if low is None else low, size - 1)))


@MANY
@given(st.data(), SHAPES, arrays.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4))
def test_take_and_its_gradient(data: st.DataObject, shape: tuple[int, ...], index_shape: tuple[int, ...]) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    indices = draw_indices(data, index_shape, shape[axis])
    x = np.random.default_rng(0).normal(size=shape)
    wanted = np.take(x, indices, axis)
    np.testing.assert_array_equal(ops.take(x, indices, axis), wanted)
    weights = np.random.default_rng(1).normal(size=wanted.shape)
    positions = np.take(np.arange(x.size).reshape(shape), indices, axis)
    expected = np.bincount(positions.reshape(-1), weights.reshape(-1), x.size).reshape(shape)
    gradient = ops.grad(lambda a: ops.sum(ops.multiply(ops.take(a, indices, axis), weights)))(x)
    np.testing.assert_allclose(gradient, expected, atol=1e-12)


@MANY
@given(st.data(), SHAPES, st.integers(1, 6))
def test_gather_and_take_along_axis(data: st.DataObject, shape: tuple[int, ...], count: int) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    smaller = [count if i == axis else data.draw(st.integers(1, n)) for i, n in enumerate(shape)]
    x = np.random.default_rng(0).normal(size=shape)
    indices = draw_indices(data, tuple(smaller), shape[axis], 0)
    wanted = torch.gather(torch.from_numpy(x), axis, torch.from_numpy(indices)).numpy()
    np.testing.assert_array_equal(ops.gather_elements(x, indices, axis), wanted)
    ones = [count if i == axis else data.draw(st.sampled_from([1, n])) for i, n in enumerate(shape)]
    indices = draw_indices(data, tuple(ones), shape[axis])
    np.testing.assert_array_equal(ops.take_along_axis(x, indices, axis), np.take_along_axis(x, indices, axis))


REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin", "mean": "mean"}


@MANY
@given(st.data(), SHAPES, st.integers(1, 6), st.sampled_from(sorted(REDUCTIONS)), st.booleans(), SEEDS)
def test_scatter_reduce_and_its_gradient(
    data: st.DataObject, shape: tuple[int, ...], count: int, reduction: str, include_self: bool, seed: int
) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    smaller = tuple(count if i == axis else data.draw(st.integers(1, n)) for i, n in enumerate(shape))
    indices = draw_indices(data, smaller, shape[axis], 0)
    generator = np.random.default_rng(seed)
    x, updates = generator.integers(-2, 3, shape) * 1.0, generator.integers(-2, 3, smaller) * 1.0  # ties and zeros
    if not include_self:
        x += 0.5  # torch counts an element that is excluded as a tie of max and min where it happens to equal them
    tensors = [torch.from_numpy(a).requires_grad_() for a in (x, updates)]
    places = torch.from_numpy(indices)
    wanted = torch.scatter_reduce(
        tensors[0], axis, places, tensors[1], REDUCTIONS[reduction], include_self=include_self
    )
    actual = ops.scatter_reduce(x, indices, updates, axis, reduction, include_self)
    np.testing.assert_allclose(actual, wanted.detach().numpy(), atol=1e-12)
    weights = generator.normal(size=shape)

    def loss(a: object, b: object) -> object:
        return ops.sum(ops.multiply(ops.scatter_reduce(a, indices, b, axis, reduction, include_self), weights))

    expected = torch.autograd.grad((wanted * torch.from_numpy(weights)).sum(), tensors)
    for gradient, reference in zip(ops.grad(loss, (0, 1))(x, updates), expected, strict=True):
        np.testing.assert_allclose(gradient, reference.numpy(), atol=1e-9)


@MANY
@given(st.data(), SHAPES, st.integers(1, 5), SEEDS)
def test_scatter_nd_and_gather_nd(data: st.DataObject, shape: tuple[int, ...], count: int, seed: int) -> None:
    depth = data.draw(st.integers(1, len(shape)))
    columns = [draw_indices(data, (count,), n) for n in shape[:depth]]
    indices = np.stack(columns, -1)
    generator = np.random.default_rng(seed)
    x = generator.normal(size=shape)
    np.testing.assert_array_equal(ops.gather_nd(x, indices), x[tuple(columns)])
    updates = generator.normal(size=(count, *shape[depth:]))
    for reduction, ufunc in {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}.items():
        wanted = x.copy()
        ufunc.at(wanted, tuple(columns), updates)
        np.testing.assert_allclose(ops.scatter_nd(x, indices, updates, reduction), wanted, rtol=1e-12)
    wanted = x.copy()
    for row, update in zip(indices, updates, strict=True):
        wanted[tuple(row)] = update
    np.testing.assert_array_equal(ops.scatter_nd(x, indices, updates), wanted)


VALUES = st.sampled_from([-np.inf, -1.0, 0.0, 1.0, 2.0, 3.0, np.inf, np.nan])


@MANY
@given(st.data(), arrays.array_shapes(min_dims=1, max_dims=2, max_side=40), st.booleans())
def test_sorting_with_ties_and_nan_as_torch_does(data: st.DataObject, shape: tuple[int, ...], descending: bool) -> None:
    x = data.draw(arrays.arrays(np.float32, shape, elements=VALUES))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    wanted = torch.sort(torch.from_numpy(x), dim=axis, descending=descending, stable=True)
    np.testing.assert_array_equal(ops.sort(x, axis, descending), wanted.values.numpy())
    np.testing.assert_array_equal(ops.argsort(x, axis, descending), wanted.indices.numpy())
    k = data.draw(st.integers(0, shape[axis]))
    values, indices = ops.topk(x, k, axis, descending)
    np.testing.assert_array_equal(values, wanted.values.numpy().take(range(k), axis))
    np.testing.assert_array_equal(indices, wanted.indices.numpy().take(range(k), axis))


@MANY
@given(arrays.arrays(np.float32, arrays.array_shapes(min_dims=1, max_dims=3, max_side=4), elements=VALUES), st.data())
def test_unique_as_numpy_does(x: np.ndarray, data: st.DataObject) -> None:
    equal_nan = data.draw(st.booleans())
    for actual, wanted in zip(
        ops.unique(x, None, True, True, True, True, equal_nan),
        np.unique(x, True, True, True, equal_nan=equal_nan),
        strict=True,
    ):
        np.testing.assert_array_equal(actual, wanted)
    values, first, inverse = ops.unique(x, None, True, True, False, False)
    assert (np.diff(first) > 0).all()
    np.testing.assert_array_equal(values, x.reshape(-1)[first])
    np.testing.assert_array_equal(values[inverse], x)


@pytest.mark.parametrize(
    "call",
    [
        lambda: ops.take(np.zeros(3), [3], 0),
        lambda: ops.take(np.zeros(3), [-4], 0),
        lambda: ops.take_along_axis(np.zeros((2, 3)), np.full((2, 1), 3), 1),
        lambda: ops.gather_nd(np.zeros((2, 3)), [[1, 3]]),
        lambda: ops.scatter_elements(np.zeros(3), [3], np.zeros(1)),
        lambda: ops.scatter_nd(np.zeros(3), [[-4]], np.zeros(1)),
        lambda: ops.index_add(np.zeros(3), [5], np.zeros(1)),
        lambda: ops.embedding(np.array([4]), np.zeros((4, 2))),
        lambda: ops.embedding(np.array([4]), np.zeros((8, 2)), 9),
        lambda: ops.topk(np.zeros(3), 4),
        lambda: ops.nonzero(np.zeros(())),
        lambda: ops.one_hot(np.array([1.0]), 3),
        lambda: ops.take(np.zeros(3), [0.5]),
        lambda: ops.masked_fill(np.zeros(3), np.zeros(3), 1),
        lambda: ops.masked_select(np.zeros(3), np.zeros(2, bool)),
        lambda: ops.compress(np.zeros((2, 3)), np.zeros(3, bool), 0),
        lambda: ops.scatter_reduce(np.zeros(3), [1], np.zeros(1), 0, "prod"),
        lambda: ops.sort(np.zeros(3, complex)),
        lambda: ops.searchsorted(np.zeros((2, 2)), np.zeros(2)),
        lambda: ops.bincount(np.array([-1])),
        lambda: ops.unique(np.zeros(3), 1),
    ],
)
def test_wrong_arguments_are_refused(call: object) -> None:
    with pytest.raises(ops.OperatorError, match=r"expected|out of (range|bounds)|negative"):
        call()  # type: ignore[operator]


def test_embedding_does_not_train_its_padding_row() -> None:
    indices = np.array([[0, 2], [2, 1]])
    weight = np.random.default_rng(0).normal(size=(4, 3))
    tensor = torch.from_numpy(weight).requires_grad_()
    for padding in (2, -2):
        loss = torch.nn.functional.embedding(torch.from_numpy(indices), tensor, padding).pow(2).sum()
        (wanted,) = torch.autograd.grad(loss, tensor)

        def function(w: object, padding: int = padding) -> object:
            y = ops.embedding(indices, w, padding)
            return ops.sum(ops.multiply(y, y))

        np.testing.assert_allclose(ops.grad(function)(weight), wanted.numpy(), rtol=1e-12)


def test_fills_with_infinity_have_no_gradient() -> None:
    mask = np.array([True, False])
    gradient = ops.grad(lambda a: ops.sum(ops.exp(ops.masked_fill(a, mask, float("-inf")))))(np.zeros(2))
    np.testing.assert_array_equal(gradient, [0, 1])


def test_integers_add_exactly() -> None:
    x = np.array([2**62, -(2**62)])
    np.testing.assert_array_equal(ops.index_add(x, [0, 0, 1], np.array([1, 2, 3])), [2**62 + 3, 3 - 2**62])


def test_large_scatters_of_rows_are_complete() -> None:
    indices = np.arange(70_000) % 7
    rows = np.ones((70_000, 64), np.float32)  # more elements than are positioned at a time
    result = ops.index_add(np.zeros((7, 64), np.float32), indices, rows)
    np.testing.assert_array_equal(result, np.full((7, 64), 10_000, np.float32))
