"""Declaring operators, from outside the package too, and what a wrong declaration or call says."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import numpy as np
import pytest

from zoonet import ops
from zoonet.ops import Array, TensorType


@ops.op(promotes="floating", name="test_declaration.cube")
def cube(xp: Any, x: Array) -> Array:
    """x³. Any shape, real -> same."""
    return x * x * x


@cube.vjp
def _(gy: Array, _y: Any, x: Array) -> Any:
    return gy * (3 * (x * x))


@ops.composite(name="test_declaration.cubed_sum")
def cubed_sum(x: Array, scale: float = 1.0) -> Array:
    """The scaled sum of cubes."""
    return ops.sum(cube(x)) * scale


@ops.op(name="test_declaration.halves")
def halves(xp: Any, x: Array) -> Any:
    """The first and second half of a vector."""
    n = x.shape[0] // 2
    return x[:n].copy(), x[n:].copy()


@halves.type
def _(x: TensorType) -> Any:
    half = TensorType((x.shape[0] // 2,), x.dtype)
    return half, half


@halves.vjp
def _(gy: Any, _y: Any, _x: TensorType) -> Any:
    return ops.concat(list(gy), 0)


def test_an_operator_declared_outside_runs_traces_and_differentiates() -> None:
    x = np.array([1.0, -2.0, 3.0])
    np.testing.assert_allclose(cube(x), [1, -8, 27])
    np.testing.assert_allclose(ops.grad(lambda v: ops.sum(cube(v)))(x), [3, 12, 27])
    np.testing.assert_allclose(ops.grad(lambda v: ops.sum(ops.grad(lambda w: ops.sum(cube(w)))(v)))(x), [6, -12, 18])
    graph = ops.trace(cube, x)
    graph.verify()
    np.testing.assert_allclose(ops.compile(graph)(x), [1, -8, 27])


def test_promotion_to_floating_makes_integers_float32() -> None:
    result = cube(np.array([2]))
    assert result.dtype == np.float32
    assert result.tolist() == [8.0]


def test_a_composite_differentiates_through_its_body_and_stays_one_node() -> None:
    x = np.array([1.0, 2.0])
    assert float(cubed_sum(x, 2.0)) == 18.0
    np.testing.assert_allclose(ops.grad(lambda v: cubed_sum(v, 2.0))(x), [6, 24])
    graph = ops.trace(lambda v: cubed_sum(v, 2.0), x)
    assert [node.op.name for node in graph.nodes] == ["test_declaration.cubed_sum"]
    assert "cubed_sum" not in [node.op.name for node in ops.compile(graph).graph.nodes]


def test_several_outputs_with_a_gradient_for_one_of_them() -> None:
    x = np.arange(4.0)
    gradient = ops.grad(lambda v: ops.sum(halves(v)[1] * 2.0))(x)
    np.testing.assert_allclose(gradient, [0, 0, 2, 2])


def test_a_wrong_declaration_is_refused() -> None:
    with pytest.raises(ops.OperatorError, match="named xp"):

        @ops.op()
        def wrong(x: Array) -> Array:
            return x

    with pytest.raises(ops.OperatorError, match="exists already"):

        @ops.op(name="add")
        def another(xp: Any, x: Array) -> Array:
            return x


def test_calls_that_do_not_fit_the_signature_say_so() -> None:
    with pytest.raises(ops.ArgumentError, match="does not have the argument 'slope'"):
        cube(np.ones(2), slope=1)
    with pytest.raises(ops.ArgumentError, match="needs the argument 'x'"):
        cube()
    with pytest.raises(ops.ArgumentError, match="too many arguments"):
        cube(np.ones(2), 1, 2)
    with pytest.raises(ops.ArgumentError, match="got twice"):
        cubed_sum(np.ones(2), 1.0, scale=2.0)
    with pytest.raises(ops.ArgumentError, match="is not an array"):
        cube("text")


def test_shapes_that_do_not_broadcast_name_both() -> None:
    with pytest.raises(ops.ShapeError, match=r"add: .*\(3,\) and \(2, 2\)"):
        ops.add(np.ones(3), np.ones((2, 2)))


def test_an_operator_without_gradient_says_how_to_declare_one() -> None:
    @ops.op(promotes="number", name="test_declaration.opaque")
    def opaque(xp: Any, x: Array) -> Array:
        """x."""
        return x + 0

    with pytest.raises(ops.GradientError, match=r"test_declaration\.opaque has no gradient"):
        ops.grad(lambda v: ops.sum(opaque(v)))(np.ones(2))


def test_kernels_are_tried_latest_first_and_only_where_they_apply() -> None:
    @ops.op(promotes="number", name="test_declaration.twice")
    def twice(xp: Any, x: Array) -> Array:
        """2x."""
        return x * 2

    calls = []

    @twice.kernel("cpu", when=lambda x: x.ndim == 1, takes_out=True)
    def _(xp: Any, x: Any, out: Any = None) -> Any:
        calls.append(x.shape)
        return np.multiply(x, 2, out=out)

    assert twice(np.ones((1, 1))).tolist() == [[2.0]]
    assert calls == []
    assert twice(np.ones(2)).tolist() == [2.0, 2.0]
    assert calls == [(2,)]


def test_the_example_in_contributing_runs() -> None:
    """The value against NumPy, the first and second derivative by hand: 1 + sin(2αx) and 2α·cos(2αx)."""
    text = (pathlib.Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    (block,) = re.findall(r"^```python own operator\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {"__name__": "own"}
    exec(block, names)
    snake, x = names["snake"], np.array([0.3, -1.2, 2.0])
    np.testing.assert_allclose(snake(x, 2.0), x + np.sin(2 * x) ** 2 / 2, rtol=1e-12)

    def slope(v: Any) -> Any:
        return ops.grad(lambda w: ops.sum(snake(w, 2.0)))(v)

    np.testing.assert_allclose(slope(x), 1 + np.sin(4 * x), rtol=1e-12)
    np.testing.assert_allclose(ops.grad(lambda v: ops.sum(slope(v)))(x), 4 * np.cos(4 * x), rtol=1e-12)
    np.testing.assert_allclose(ops.compile(ops.trace(slope, x))(x), 1 + np.sin(4 * x), rtol=1e-12)


def test_scalar_types_as_plain_data_are_told_apart() -> None:
    x = np.array([1.5, 2.0], np.float32)
    for dtype in (np.uint8, np.float64, np.int32, np.float16):
        assert ops.cast(x, dtype).dtype == dtype
        assert ops.zeros((2,), dtype).dtype == dtype
