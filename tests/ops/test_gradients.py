"""Gradients of functions: values by hand, higher orders, trees, and errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zoonet import ops


def test_gradients_have_the_containers_of_the_argument() -> None:
    def loss(parameters: dict, x: np.ndarray) -> np.ndarray:
        return ops.sum(ops.multiply(parameters["w"][0], x) + parameters["b"])

    parameters = {"w": [np.array([2.0, 3.0])], "b": np.array([1.0, 1.0]), "steps": np.array(3)}
    value, gradients = ops.value_and_grad(loss)(parameters, np.array([5.0, 7.0]))
    assert float(value) == 33.0
    assert gradients["w"][0].tolist() == [5.0, 7.0]
    assert gradients["b"].tolist() == [1.0, 1.0]
    assert gradients["steps"] is None


def test_several_arguments_and_auxiliary_results() -> None:
    def function(x: np.ndarray, y: np.ndarray) -> tuple:
        product = ops.multiply(x, y)
        return ops.sum(product), {"product": product}

    (value, extra), (gx, gy) = ops.value_and_grad(function, (0, 1), has_aux=True)(np.array([2.0]), np.array([3.0]))
    assert (float(value), gx.tolist(), gy.tolist()) == (6.0, [3.0], [2.0])
    assert extra["product"].tolist() == [6.0]
    assert isinstance(extra["product"], np.ndarray)


def test_an_argument_that_the_result_does_not_depend_on_has_zero_gradient() -> None:
    gradients = ops.grad(lambda x, y: ops.sum(x), (0, 1))(np.ones(2), np.ones((3, 1)))
    assert gradients[0].tolist() == [1.0, 1.0]
    np.testing.assert_array_equal(gradients[1], np.zeros((3, 1)))


def test_gradients_to_the_fourth_order() -> None:
    function = lambda x: ops.pow(x, 5.0)  # noqa: E731
    expected = [2.0**5, 5 * 2.0**4, 20 * 2.0**3, 60 * 2.0**2, 120 * 2.0]
    for value in expected:
        assert float(function(np.float64(2.0))) == pytest.approx(value)
        function = ops.grad(function)


def test_mixed_second_derivatives_equal_torch() -> None:
    x, y = np.array([0.3, -1.2]), np.array([0.7, 0.4])

    def ours(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return ops.sum(ops.grad(lambda a: ops.sum(ops.tanh(a * y) * ops.exp(a)))(x))

    tx, ty = torch.tensor(x, requires_grad=True), torch.tensor(y, requires_grad=True)
    inner = (torch.tanh(tx * ty) * torch.exp(tx)).sum()
    (first,) = torch.autograd.grad(inner, tx, create_graph=True)
    expected = torch.autograd.grad(first.sum(), (tx, ty))
    for actual, wanted in zip(ops.grad(ours, (0, 1))(x, y), expected, strict=True):
        np.testing.assert_allclose(actual, wanted.numpy(), rtol=1e-12)


def test_a_pullback_can_be_called_again() -> None:
    outputs, pullback = ops.vjp(lambda x: (x * 2.0, x * x), np.array([3.0]))
    assert [o.tolist() for o in outputs] == [[6.0], [9.0]]
    assert pullback((np.array([1.0]), np.array([0.0])))[0].tolist() == [2.0]
    assert pullback((np.array([0.0]), np.array([1.0])))[0].tolist() == [6.0]


def test_gradient_of_low_precision_has_its_dtype() -> None:
    x = np.array([1.0, 2.0]).astype(ops.bfloat16)
    assert ops.grad(lambda v: ops.sum(v * v))(x).dtype == ops.bfloat16


def test_a_result_that_is_not_a_scalar_is_refused() -> None:
    with pytest.raises(ops.GradientError, match=r"one floating number; received float64\[2\]"):
        ops.grad(lambda x: x * 2.0)(np.ones(2))


def test_check_gradients_accepts_a_right_rule_and_refuses_a_wrong_one() -> None:
    x = np.array([0.5, -1.0])
    assert ops.check_gradients(lambda v: ops.sum(ops.exp(v)), [x]) < 1e-6

    @ops.op(promotes="number", name="test_gradients.wrong")
    def wrong(xp: object, x: ops.Array) -> ops.Array:
        """x² with a wrong gradient."""
        return x * x

    wrong.vjp(lambda gy, y, x: gy * x)
    with pytest.raises(ops.GradientError, match="finite differences"):
        ops.check_gradients(lambda v: ops.sum(wrong(v)), [x])


def test_a_rule_that_gives_the_wrong_shape_is_refused() -> None:
    @ops.op(name="test_gradients.misshapen")
    def misshapen(xp: object, x: ops.Array) -> ops.Array:
        """x."""
        return x + 0

    misshapen.type(lambda x: x)
    misshapen.vjp(lambda gy, y, x: ops.reshape(gy, (2, 1)))
    with pytest.raises(ops.GradientError, match=r"expected \[2\]; received \[2, 1\]"):
        ops.grad(lambda v: ops.sum(misshapen(v)))(np.ones(2))


def test_a_tape_keeps_no_more_than_the_rules_read() -> None:
    """relu's rule reads its result only, so the operand of relu may be freed while the tape lives."""
    import weakref

    watched = []

    def function(x: np.ndarray) -> np.ndarray:
        scaled = ops.add(x, 1.0)
        watched.append(weakref.ref(scaled.primal))
        return ops.relu(scaled)

    _, pullback = ops.vjp(lambda x: ops.sum(function(x)), np.ones(1000))
    assert watched[0]() is None
    assert pullback(np.float64(1.0))[0].sum() == 1000


def test_gradients_follow_loops_and_recursion_that_depend_on_values() -> None:
    """Newton's iteration for √a runs until it is close; its derivatives are 1 / (2√a) and -1 / (4 a^1.5)."""

    def root(a: np.ndarray) -> np.ndarray:
        x = a
        while abs(float(x * x - a)) > 1e-12 * float(a):
            x = (x + a / x) * 0.5
        return (x + a / x) * 0.5

    def power(x: np.ndarray, n: int) -> np.ndarray:
        half = power(x, n // 2) if n > 1 else 1.0
        return half * half * (x if n % 2 else 1.0)

    a = np.array(7.0)
    assert float(ops.grad(root)(a)) == pytest.approx(0.5 / np.sqrt(7), rel=1e-9)
    assert float(ops.grad(ops.grad(root))(a)) == pytest.approx(-0.25 / 7**1.5, rel=1e-6)
    assert float(ops.grad(ops.grad(lambda x: power(x, 11)))(np.array(1.1))) == pytest.approx(110 * 1.1**9)


def test_pullbacks_equal_torch_on_nested_results() -> None:
    x, y = np.array([[0.5, -1.0], [2.0, 0.1]]), np.array([1.0, 3.0])
    outputs, pullback = ops.vjp(lambda a, b: {"product": ops.matmul(a, b), "more": [ops.exp(a) * b]}, x, y)
    leaves = [torch.tensor(v, requires_grad=True) for v in (x, y)]
    expected = [leaves[0] @ leaves[1], leaves[0].exp() * leaves[1]]
    weights = [np.array([0.3, -2.0]), np.array([[1.0, 0.5], [0.0, -1.0]])]
    wanted = torch.autograd.grad(expected, leaves, [torch.tensor(w) for w in weights])
    np.testing.assert_allclose(outputs["more"][0], expected[1].detach().numpy())
    for actual, reference in zip(pullback({"product": weights[0], "more": [weights[1]]}), wanted, strict=True):
        np.testing.assert_allclose(actual, reference.numpy(), rtol=1e-12)


def test_stop_gradient_makes_a_constant() -> None:
    """d/dx (x · stop(x²)) = x², and stays so in a compiled gradient."""
    x = np.array([2.0, -3.0])
    gradient = ops.grad(lambda v: ops.sum(v * ops.stop_gradient(v * v)))
    assert gradient(x).tolist() == [4.0, 9.0]
    assert ops.compile(ops.trace(gradient, x))(x).tolist() == [4.0, 9.0]
