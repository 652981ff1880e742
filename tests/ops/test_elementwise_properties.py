"""Elementwise operators on random shapes, dtypes and special values, against PyTorch and NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from zoonet import ops

FINITE = st.floats(-100, 100, width=32)
BROADCASTING = ["add", "subtract", "multiply", "maximum", "minimum", "atan2", "hypot", "logaddexp", "less", "equal"]
TORCH_NAMES = {"less": "lt", "equal": "eq"}


def broadcast_pair() -> st.SearchStrategy[tuple[tuple[int, ...], ...]]:
    return hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=4, min_side=0).map(
        lambda shapes: shapes.input_shapes
    )


@settings(max_examples=150, deadline=None)
@given(shapes=broadcast_pair(), name=st.sampled_from(BROADCASTING), data=st.data())
def test_broadcasting_and_its_gradient_equal_torch(shapes, name, data) -> None:
    x, y = (data.draw(hnp.arrays(np.float64, shape, elements=FINITE)) for shape in shapes)
    left, right = (torch.from_numpy(np.array(a)).requires_grad_() for a in (x, y))
    operator, reference = getattr(ops, name), getattr(torch, TORCH_NAMES.get(name, name))
    wanted = reference(left, right)
    np.testing.assert_allclose(operator(x, y), wanted.detach().numpy(), rtol=1e-12, atol=1e-12)
    if not wanted.is_floating_point() or name in ("atan2", "hypot"):  # these have no slope at the origin
        return
    expected = torch.autograd.grad(wanted.sum(), (left, right))
    actual = ops.grad(lambda a, b: ops.sum(operator(a, b)), (0, 1))(x, y)
    for gradient, reference_gradient in zip(actual, expected, strict=True):
        np.testing.assert_allclose(gradient, reference_gradient.numpy(), rtol=1e-9, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(shapes=hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=3, max_side=3), data=st.data())
def test_where_broadcasts_three_operands(shapes, data) -> None:
    condition, x, y = (
        data.draw(hnp.arrays(dtype, shape))
        for dtype, shape in zip((np.bool_, np.int32, np.int32), shapes.input_shapes, strict=True)
    )
    result = ops.where(condition, x, y)
    assert result.shape == shapes.result_shape
    np.testing.assert_array_equal(result, np.where(condition, x, y))


@pytest.mark.parametrize(("first", "second"), [((2, 3), (2,)), ((4, 1, 3), (2, 2)), ((0,), (2,))])
def test_shapes_that_do_not_broadcast_are_refused(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    with pytest.raises(ops.ShapeError, match=r"add: shapes do not broadcast.*expected.*received"):
        ops.add(np.zeros(first), np.zeros(second))


INTEGERS = st.sampled_from([np.int8, np.int16, np.int32, np.int64, np.uint8])


@settings(max_examples=100, deadline=None)
@given(dtype=INTEGERS, data=st.data())
def test_integer_division_rounds_as_the_array_api_says(dtype, data) -> None:
    low = -100 if np.dtype(dtype).kind == "i" else 0
    x = data.draw(st.integers(low, 100))
    y = data.draw(st.integers(low, 100).filter(bool))
    left, right = np.array(x, dtype), np.array(y, dtype)
    assert ops.floor_divide(left, right) == x // y
    assert ops.remainder(left, right) == x % y
    assert ops.fmod(left, right) == int(math.fmod(x, y))
    for operator in (ops.floor_divide, ops.remainder, ops.fmod):
        assert operator(left, right).dtype == np.dtype(dtype)
    assert ops.divide(left, right).dtype == np.float32


SPECIAL = np.array([math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, -1.0, 88.0, -88.0, 104.0, -104.0, 800.0, -800.0])
ACTIVATIONS = {
    "relu": F.relu, "relu6": F.relu6, "leaky_relu": F.leaky_relu, "elu": F.elu, "selu": F.selu, "celu": F.celu,
    "sigmoid": torch.sigmoid, "log_sigmoid": F.logsigmoid, "softplus": F.softplus, "tanh": torch.tanh,
    "hardsigmoid": F.hardsigmoid, "hardtanh": F.hardtanh, "hardshrink": F.hardshrink, "erf": torch.erf,
    "erfc": torch.erfc, "exp": torch.exp, "expm1": torch.expm1,
}  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_special_values_equal_torch(name: str, dtype: type) -> None:
    x = SPECIAL.astype(dtype)
    wanted = ACTIVATIONS[name](torch.from_numpy(x)).numpy()
    actual = getattr(ops, name)(x)
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(actual[~finite], wanted[~finite])
    np.testing.assert_allclose(actual[finite], wanted[finite], rtol=1e-6, atol=1e-30 if dtype is np.float64 else 1e-37)


@pytest.mark.parametrize("name", ["sigmoid", "silu", "gelu", "softplus", "log_sigmoid", "mish", "elu", "softmax"])
@pytest.mark.filterwarnings("error")
def test_activations_do_not_overflow(name: str) -> None:
    for dtype in (np.float32, np.float64):
        x = np.array([-1e4, -800, -100, 0, 100, 800, 1e4], dtype)
        assert np.isfinite(getattr(ops, name)(x)).all()
        gradient = ops.grad(lambda v: ops.sum(getattr(ops, name)(v)))(x)
        assert np.isfinite(gradient).all()


def test_error_function_to_the_last_digits() -> None:
    x = np.concatenate([np.linspace(-6, 9, 20001), [1e-300, 1e-20, 0.46875, 4.0, 26.0]])
    np.testing.assert_allclose(ops.erf(x), scipy.special.erf(x), rtol=1e-15 * 4, atol=0)
    np.testing.assert_allclose(ops.erfc(x), scipy.special.erfc(x), rtol=5e-14, atol=0)
    single = x.astype(np.float32)
    np.testing.assert_allclose(ops.erf(single), scipy.special.erf(single.astype(np.float64)), rtol=6e-7, atol=0)
    assert np.abs(ops.erf(single)).max() == 1


@pytest.mark.parametrize("dtype", [np.int64, np.bool_])
def test_integer_labels_keep_the_precision_of_float64_inputs(dtype: type) -> None:
    x, labels = np.linspace(-3, 3, 8), np.arange(8) % 2
    logits, target = torch.from_numpy(x), torch.from_numpy(labels).double()
    labels = labels.astype(dtype)
    np.testing.assert_allclose(
        ops.binary_cross_entropy_with_logits(x, labels),
        F.binary_cross_entropy_with_logits(logits, target).numpy(),
        rtol=1e-14,
    )
    p = torch.sigmoid(logits)
    hard = torch.where(target == 1, p, 1 - p)
    focal = -(0.3 * target + 0.7 * (1 - target)) * (1 - hard) ** 2 * torch.log(hard)
    np.testing.assert_allclose(ops.sigmoid_focal_loss(x, labels, 0.3), focal.numpy(), rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_class_targets_of_any_integer_dtype(dtype: type) -> None:
    scores, target = np.linspace(0, 1, 6).reshape(2, 3), np.array([2, 0])
    wanted = F.cross_entropy(torch.from_numpy(scores), torch.from_numpy(target)).numpy()
    np.testing.assert_allclose(ops.cross_entropy(scores, target.astype(dtype)), wanted, rtol=1e-14)


TIES = [[1.0, 2.0, 2.0, -1.0], [0.0, 0.0, 0.0, 0.0], [3.0, 1.0, 3.0, 3.0]]


@pytest.mark.parametrize(
    ("function", "reference"),
    [
        (lambda x: ops.maximum(x, 0.0), lambda x: torch.maximum(x, torch.zeros(()))),
        (lambda x: ops.minimum(x, 2.0), lambda x: torch.minimum(x, torch.tensor(2.0))),
        (lambda x: ops.max(x, 1), lambda x: torch.amax(x, 1)),
        (lambda x: ops.min(x, (0, 1)), lambda x: torch.amin(x, (0, 1))),
        (lambda x: ops.clip(x, 0.0, 2.0), lambda x: torch.clamp(x, 0.0, 2.0)),
        (lambda x: ops.relu(x), F.relu),
        (lambda x: ops.relu6(ops.multiply(x, 3.0)), lambda x: F.relu6(x * 3)),
        (lambda x: ops.abs(x), torch.abs),
        (lambda x: ops.leaky_relu(x), F.leaky_relu),
        (lambda x: ops.hardtanh(x), F.hardtanh),
        (lambda x: ops.std(x, 1), lambda x: torch.std(x, 1, correction=0)),
        (lambda x: ops.norm(x, 2.0, 1), lambda x: torch.linalg.vector_norm(x, 2, 1)),
        (lambda x: ops.norm(x, math.inf, 1), lambda x: torch.linalg.vector_norm(x, math.inf, 1)),
        (lambda x: ops.norm(x, 1, 1), lambda x: torch.linalg.vector_norm(x, 1, 1)),
        (lambda x: ops.prod(x, 1), lambda x: torch.prod(x, 1)),
        (lambda x: ops.cumprod(x, 1), lambda x: torch.cumprod(x, 1)),
        (lambda x: ops.pow(x, 0), lambda x: torch.pow(x, 0)),
    ],
)
@pytest.mark.filterwarnings("error")
def test_gradient_at_ties_kinks_and_zeros_equals_torch(function, reference) -> None:
    x = np.array(TIES)
    leaf = torch.from_numpy(np.array(x)).requires_grad_()
    reference(leaf).sum().backward()
    np.testing.assert_allclose(ops.grad(lambda v: ops.sum(function(v)))(x), leaf.grad.numpy(), rtol=1e-12, atol=1e-12)


def test_power_at_zero_has_torch_gradients() -> None:
    base, exponent = np.array([0.0, 0.0, 2.0, 0.0]), np.array([0.0, 2.0, 0.0, 1.0])
    left, right = (torch.from_numpy(np.array(a)).requires_grad_() for a in (base, exponent))
    torch.pow(left, right).sum().backward()
    actual = ops.grad(lambda a, b: ops.sum(ops.pow(a, b)), (0, 1))(base, exponent)
    np.testing.assert_allclose(actual[0], left.grad.numpy())
    np.testing.assert_allclose(actual[1], right.grad.numpy())


@settings(max_examples=60, deadline=None)
@given(data=st.data(), exclusive=st.booleans(), reverse=st.booleans())
def test_running_products_differentiate_through_zeros(data, exclusive: bool, reverse: bool) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=7))
    x = data.draw(hnp.arrays(np.float64, shape, elements=st.sampled_from([0.0, 1.0, -2.0, 0.5, 3.0])))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    leaf = torch.from_numpy(np.array(x)).requires_grad_()
    ordered = torch.flip(leaf, (axis,)) if reverse else leaf
    if exclusive:
        ones = torch.ones_like(ordered.narrow(axis, 0, 1))
        ordered = torch.cat([ones, ordered.narrow(axis, 0, shape[axis] - 1)], axis)
    wanted = torch.cumprod(ordered, axis)
    wanted = torch.flip(wanted, (axis,)) if reverse else wanted
    weight = np.cos(np.arange(x.size)).reshape(shape)
    (wanted * torch.from_numpy(weight)).sum().backward()

    def total(v):
        return ops.sum(ops.multiply(ops.cumprod(v, axis, exclusive, reverse), weight))

    np.testing.assert_allclose(ops.cumprod(x, axis, exclusive, reverse), wanted.detach().numpy())
    np.testing.assert_allclose(ops.grad(total)(x), leaf.grad.numpy(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.negative(np.array([True])), ops.DTypeError, "negative does not take bool"),
        (lambda: ops.subtract(np.array([True]), np.array([True])), ops.DTypeError, "subtract does not take bool"),
        (lambda: ops.floor(np.array([1j])), ops.DTypeError, "floor does not take complex"),
        (lambda: ops.less(np.array([1j]), 0), ops.DTypeError, "less does not take complex"),
        (lambda: ops.bitwise_and(np.array([1.0]), 1), ops.DTypeError, "bitwise_and does not take float"),
        (lambda: ops.pow(np.array([2]), np.array([-1])), ops.ArgumentError, "no negative powers"),
        (lambda: ops.gelu(np.zeros(2), "sigmoid"), ops.ArgumentError, "'none' or 'tanh'"),
        (lambda: ops.max(np.zeros((2, 0)), 1), ops.ShapeError, "no elements"),
        (lambda: ops.sum(np.zeros((2, 3)), 2), ops.ShapeError, "no such axis"),
        (lambda: ops.softmax(np.zeros((2, 3)), 5), ops.ShapeError, "no such axis"),
        (lambda: ops.glu(np.zeros((2, 3))), ops.ShapeError, "even size"),
        (lambda: ops.mse_loss(np.zeros((2, 1)), np.zeros(2)), ops.ShapeError, "differ in shape"),
        (lambda: ops.mse_loss(np.zeros(2), np.zeros(2), "average"), ops.ArgumentError, "'none', 'sum' or 'mean'"),
        (lambda: ops.cross_entropy(np.zeros((2, 3)), np.array([0, 3])), ops.ArgumentError, "0 to 2"),
        (lambda: ops.cross_entropy(np.zeros((2, 3)), np.array([[0, 1]])), ops.ShapeError, "does not fit"),
        (lambda: ops.nll_loss(np.zeros((2, 3)), np.zeros(2)), ops.DTypeError, "integers"),
    ],
)
def test_wrong_operands_are_explained(call, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_classes_ruled_out_by_infinite_logits_count_nothing(reduction: str, smoothing: float) -> None:
    logits = np.array([[-np.inf, 0.5, -1.0], [0.5, -np.inf, -np.inf], [0.1, 0.2, 0.3]])
    classes, weight = np.array([1, 0, -100]), np.array([0.5, 2.0, 1.0])
    leaves = [torch.tensor(a, requires_grad=True) for a in (logits, weight)]
    expected = torch.nn.functional.cross_entropy(
        leaves[0], torch.tensor(classes), leaves[1].detach(), reduction=reduction, label_smoothing=smoothing
    )
    gradient = torch.autograd.grad(expected.sum(), leaves[0])[0]

    def loss(x: np.ndarray) -> np.ndarray:
        return ops.sum(ops.cross_entropy(x, classes, weight, -100, reduction, smoothing))

    value, actual = ops.value_and_grad(loss)(logits)
    np.testing.assert_allclose(value, expected.sum().item(), rtol=1e-12)
    np.testing.assert_allclose(actual, gradient.numpy(), rtol=1e-12, atol=1e-15)
