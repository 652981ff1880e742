"""Slices, padding and rearranging against NumPy and torch, on arguments that Hypothesis chooses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from zoonet import ops
from zoonet.ops.slicing import getitem

MANY = settings(max_examples=100, deadline=None)
SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)


def numbers(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(1.0, 1.0 + np.prod(shape, dtype=int)).reshape(shape)


@MANY
@given(st.data(), SHAPES)
def test_basic_keys_index_as_numpy_does(data: st.DataObject, shape: tuple[int, ...]) -> None:
    key = data.draw(arrays.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))
    x = numbers(shape)
    wanted = x[key]
    np.testing.assert_array_equal(ops.index(x, key), wanted)
    weights = np.random.default_rng(0).normal(size=wanted.shape)
    expected = np.zeros(shape)
    expected[key] = weights
    np.testing.assert_array_equal(ops.grad(lambda a: ops.sum(ops.multiply(a[key], weights)))(x), expected)
    written = x.copy()
    written[key] = weights
    np.testing.assert_array_equal(ops.index_update(x, key, weights), written)


@MANY
@given(st.data(), SHAPES.filter(lambda shape: 0 not in shape))
def test_integer_arrays_in_keys_index_as_numpy_does(data: st.DataObject, shape: tuple[int, ...]) -> None:
    result_shape = data.draw(arrays.array_shapes(min_dims=0, max_dims=2, min_side=1, max_side=3))
    key = []
    for size in shape[: data.draw(st.integers(1, len(shape)))]:
        choice = data.draw(st.sampled_from(["array", "list", "slice", "number"]))
        if choice == "array":
            key.append(data.draw(arrays.arrays(np.int64, result_shape, elements=st.integers(-size, size - 1))))
        elif choice == "list" and result_shape:
            values = st.lists(st.integers(-size, size - 1), min_size=result_shape[-1], max_size=result_shape[-1])
            key.append(data.draw(values))
        elif choice == "number":
            key.append(data.draw(st.integers(-size, size - 1)))
        else:
            key.append(data.draw(st.slices(size)))
    if data.draw(st.booleans()):
        key.insert(data.draw(st.integers(0, len(key))), None)
    x = numbers(shape)
    wanted = x[tuple(key)]
    np.testing.assert_array_equal(getitem(x, tuple(key)), wanted)
    weights = np.random.default_rng(0).normal(size=wanted.shape)
    expected = np.zeros(shape)
    np.add.at(expected, tuple(key), weights)
    gradient = ops.grad(lambda a: ops.sum(ops.multiply(a[tuple(key)], weights)))(x)
    np.testing.assert_allclose(gradient, expected, atol=1e-12)


@MANY
@given(st.data(), arrays.array_shapes(min_dims=1, max_dims=3, max_side=4))
def test_masks_in_keys_index_as_numpy_does(data: st.DataObject, shape: tuple[int, ...]) -> None:
    first = data.draw(st.integers(0, len(shape) - 1))
    last = data.draw(st.integers(first + 1, len(shape)))
    mask = data.draw(arrays.arrays(bool, shape[first:last]))
    key = (slice(None),) * first + (mask,)
    x = numbers(shape)
    np.testing.assert_array_equal(getitem(x, key), x[key])
    gradient = ops.grad(lambda a: ops.sum(a[key]))(x)
    expected = np.zeros(shape)
    expected[key] = 1
    np.testing.assert_array_equal(gradient, expected)


@pytest.mark.parametrize("key", [(0, 0, 0), 2, (slice(None, None, 0),), (Ellipsis, Ellipsis), "a", 1.5, (slice(0.5),)])
def test_wrong_keys_are_refused(key: object) -> None:
    with pytest.raises(ops.OperatorError, match="index"):
        ops.index(np.zeros((2, 2)), key)


PADS = {"constant": "constant", "reflect": "reflect", "symmetric": "symmetric", "edge": "edge", "wrap": "wrap"}


@MANY
@given(st.data(), arrays.array_shapes(min_dims=1, max_dims=3, max_side=5), st.sampled_from(sorted(PADS)))
def test_pad_as_numpy_does(data: st.DataObject, shape: tuple[int, ...], mode: str) -> None:
    widths = tuple((data.draw(st.integers(0, 9)), data.draw(st.integers(0, 9))) for _ in shape)
    x = numbers(shape)
    wanted = np.pad(x, widths, mode)
    np.testing.assert_array_equal(ops.pad(x, widths, mode), wanted)
    places = np.pad(np.arange(1, x.size + 1).reshape(shape), widths, mode)
    weights = np.random.default_rng(0).normal(size=wanted.shape)
    expected = np.bincount(places.reshape(-1), weights.reshape(-1), x.size + 1)[1:].reshape(shape)
    gradient = ops.grad(lambda a: ops.sum(ops.multiply(ops.pad(a, widths, mode), weights)))(x)
    np.testing.assert_allclose(gradient, expected, atol=1e-12)


TORCH_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


@MANY
@given(st.data(), st.sampled_from(sorted(TORCH_MODES)))
def test_pad_and_crop_as_torch_does(data: st.DataObject, mode: str) -> None:
    shape = (2, 1, data.draw(st.integers(3, 6)), data.draw(st.integers(3, 6)))
    low = -1 if mode == "constant" else 0
    widths = tuple((data.draw(st.integers(low, 2)), data.draw(st.integers(low, 2))) for _ in shape[2:])
    x = numbers(shape)
    flat = [n for pair in reversed(widths) for n in pair]
    wanted = torch.nn.functional.pad(torch.from_numpy(x), flat, TORCH_MODES[mode]).numpy()
    np.testing.assert_array_equal(ops.pad(x, ((0, 0), (0, 0), *widths), mode), wanted)


@pytest.mark.parametrize(
    ("shape", "widths", "mode"),
    [
        ((2,), ((-2, -1),), "constant"),
        ((0,), ((1, 0),), "edge"),
        ((2,), ((-2, 1),), "wrap"),
        ((2,), ((1, 1),), "mirror"),
    ],
)
def test_wrong_padding_is_refused(shape: tuple[int, ...], widths: object, mode: str) -> None:
    with pytest.raises(ops.OperatorError, match="pad"):
        ops.pad(np.zeros(shape), widths, mode)


@MANY
@given(st.data(), SHAPES)
def test_rearranging_as_numpy_does(data: st.DataObject, shape: tuple[int, ...]) -> None:
    x = numbers(shape)
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    other = data.draw(st.integers(-len(shape), len(shape) - 1))
    order = data.draw(st.permutations(range(len(shape))))
    shift = data.draw(st.integers(-7, 7))
    times = tuple(data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=4)))
    counts = tuple(data.draw(st.lists(st.integers(0, 3), min_size=shape[axis], max_size=shape[axis])))
    cuts = sorted(data.draw(st.lists(st.integers(0, 7), max_size=3)))
    np.testing.assert_array_equal(ops.transpose(x, order), np.transpose(x, order))
    np.testing.assert_array_equal(ops.moveaxis(x, axis, other), np.moveaxis(x, axis, other))
    np.testing.assert_array_equal(ops.swapaxes(x, axis, other), np.swapaxes(x, axis, other))
    np.testing.assert_array_equal(ops.roll(x, shift, axis), np.roll(x, shift, axis))
    np.testing.assert_array_equal(ops.flip(x, axis), np.flip(x, axis))
    np.testing.assert_array_equal(ops.tile(x, times), np.tile(x, times))
    np.testing.assert_array_equal(ops.repeat(x, counts, axis), np.repeat(x, counts, axis))
    np.testing.assert_array_equal(ops.repeat(x, 2, axis), np.repeat(x, 2, axis))
    parts = ops.split(x, cuts, axis)
    for part, wanted in zip(parts, np.split(x, cuts, axis), strict=True):
        np.testing.assert_array_equal(part, wanted)
    np.testing.assert_array_equal(ops.concat(parts, axis), x)
    if shape[axis]:
        np.testing.assert_array_equal(ops.stack(ops.unstack(x, axis), axis), x)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: ops.reshape(x, (4, 2)),
        lambda x: ops.transpose(x, (0, 0)),
        lambda x: ops.broadcast_to(x, (3,)),
        lambda x: ops.squeeze(x, 0),
        lambda x: ops.expand_dims(x, 4),
        lambda x: ops.concat([x, x[:, :2]]),
        lambda x: ops.concat([]),
        lambda x: ops.stack([x, x[0]]),
        lambda x: ops.split(x, 2, 1),
        lambda x: ops.split(x, (2, 1)),
        lambda x: ops.moveaxis(x, (0, 1), 0),
        lambda x: ops.roll(x, (1, 2), 0),
        lambda x: ops.tile(x, -1),
        lambda x: ops.repeat(x, (1, 2, 3), 0),
        lambda x: ops.flip(x, 2),
        lambda x: ops.tril(x[0]),
        lambda x: ops.diagonal(x, 0, 1, 1),
        lambda x: ops.full((-1,), 0),
        lambda x: ops.arange(1, 2, 0),
        lambda x: ops.eye(-1),
        lambda x: ops.zeros(2, "float33"),
        lambda x: ops.zeros(2, device="tpu"),
    ],
)
def test_wrong_arguments_are_refused(call: object) -> None:
    with pytest.raises(ops.OperatorError, match=r"expected|received|unknown"):
        call(np.zeros((2, 3)))  # type: ignore[operator]


def test_creation_inside_a_trace_gives_constants() -> None:
    graph = ops.trace(lambda x: ops.add(x, ops.arange(3, dtype="float32")), np.zeros(3, np.float32))
    assert [node.op.name for node in graph.nodes] == ["add"]
    np.testing.assert_array_equal(ops.evaluate_graph(graph, np.ones(3, np.float32))[0], [1, 2, 3])


def test_keys_are_hashable_plain_data() -> None:
    graph = ops.trace(lambda x: x[..., ::-1, None], np.zeros((2, 3), np.float32))
    hash(graph.nodes[0].arguments["key"])
    assert graph.outputs[0].type.shape == (2, 3, 1)
