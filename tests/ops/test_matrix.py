"""Every operator × every sample × every check, against oracles that are not zoonet."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
import torch
from operator_oracles import ORACLES

from zoonet import ops
from zoonet.ops.registry import REGISTRY, type_of
from zoonet.ops.types import TensorType, is_floating

CASES = [
    pytest.param(op, index, id=f"{name}-{index}")
    for name, op in REGISTRY.items()
    if op.__module__.startswith("zoonet.ops") and "." not in name
    for index in range(len(op.samples))
]
DIFFERENTIABLE = [case for case in CASES if case.values[0].differentiable]
TOLERANCE = {"float64": 1e-9, "float32": 2e-5, "float16": 4e-3, "bfloat16": 3e-2}


def arguments_of(op: Any, index: int, dtype: str) -> dict[str, Any]:
    args, kwargs = op.samples[index].make(zlib.crc32(f"{op.name}-{index}".encode()), ops.as_dtype(dtype))
    return op.bind(args, kwargs)


def call(op: Any, arguments: dict[str, Any]) -> Any:
    return op.apply(op, arguments)


def as_tuple(result: Any) -> tuple[Any, ...]:
    return tuple(result) if isinstance(result, tuple | list) else (result,)


def to_torch(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.name in ("bfloat16", "float16"):
            value = value.astype(np.float32)
        return torch.from_numpy(np.array(value))
    if isinstance(value, tuple):
        return tuple(to_torch(v) for v in value)
    return value


def expected_outputs(op: Any, arguments: dict[str, Any]) -> list[np.ndarray]:
    oracle = ORACLES[op.name]
    if oracle.uses_torch:
        operands = op.map_operands(arguments, to_torch)
        return [o.detach().resolve_conj().numpy() for o in as_tuple(op.apply(oracle.function, operands))]
    return [np.asarray(o) for o in as_tuple(op.apply(oracle.function, arguments))]


def assert_close(actual: Any, expected: Any, tolerance: float) -> None:
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    if actual.dtype.kind in "biuOSU" and expected.dtype.kind in "biuOSU":
        np.testing.assert_array_equal(actual, expected)
        return
    wide = np.complex128 if "c" in actual.dtype.kind + expected.dtype.kind else np.float64
    actual, expected = actual.astype(wide), expected.astype(wide)
    finite = np.abs(expected[np.isfinite(expected)])
    scale = max(1.0, float(finite.max())) if finite.size else 1.0
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * scale)


def floating_operands(op: Any, arguments: dict[str, Any]) -> list[np.ndarray]:
    return [a for a in op.operands(arguments) if isinstance(a, np.ndarray) and is_floating(a.dtype)]


def as_function(op: Any, arguments: dict[str, Any], seed: int = 0) -> tuple[Any, list[np.ndarray]]:
    """A scalar function of the floating operands (a random projection of the floating outputs), and the operands."""
    operands = floating_operands(op, arguments)

    def function(*given: Any) -> Any:
        remaining = iter(given)
        replaced = op.map_operands(
            arguments,
            lambda a: next(remaining) if isinstance(a, np.ndarray) and is_floating(a.dtype) else a,
        )
        generator = np.random.default_rng(seed)
        total: Any = 0.0
        for output in as_tuple(call(op, replaced)):
            weight = generator.normal(size=output.shape)
            if is_floating(output.dtype):
                total = ops.add(total, ops.sum(ops.multiply(output, weight)))
            elif output.dtype.kind == "c":
                total = ops.add(total, ops.sum(ops.multiply(ops.real(output), weight)))
                total = ops.add(total, ops.sum(ops.multiply(ops.imag(output), weight)))
        return total

    return function, operands


@pytest.mark.parametrize(
    "name", [n for n, o in REGISTRY.items() if o.__module__.startswith("zoonet.ops") and "." not in n]
)
def test_every_operator_is_documented_sampled_and_has_an_oracle(name: str) -> None:
    op = REGISTRY[name]
    assert op.samples, f"{name} has no samples"
    assert name in ORACLES, f"{name} has no oracle"
    assert len(op.__doc__ or "") > 40, f"{name} has no docstring"
    assert op.is_composite or op.vjp_rule or not op.differentiable, (
        f"{name} has neither gradient nor differentiable=False"
    )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("op", "index"), CASES)
def test_value_and_type(op: Any, index: int, dtype: str) -> None:
    arguments = arguments_of(op, index, dtype)
    before = [np.array(a) for a in op.operands(arguments)]
    result = call(op, arguments)
    expected = expected_outputs(op, arguments)
    outputs = as_tuple(result)
    assert len(outputs) == len(expected)
    for output, wanted in zip(outputs, expected, strict=True):
        tolerance = max(TOLERANCE[dtype], TOLERANCE.get(output.dtype.name, 0.0))  # integers may give float32
        assert_close(output, wanted, tolerance * ORACLES[op.name].tolerance)
    for operand, copy in zip(op.operands(arguments), before, strict=True):
        np.testing.assert_array_equal(operand, copy, err_msg="an operand was changed in place")
    types = op.infer(op.map_operands(arguments, type_of))
    types = (types,) if isinstance(types, TensorType) else types
    for output, inferred in zip(outputs, types, strict=True):
        assert isinstance(output, np.ndarray)
        assert output.dtype == inferred.dtype
        assert len(output.shape) == len(inferred.shape)
        assert all(n is None or n == m for n, m in zip(inferred.shape, output.shape, strict=True))
    if not op.view and not op.is_composite:
        for output in outputs:
            for operand in op.operands(arguments):
                assert not np.shares_memory(output, operand), f"{op.name} returns a view: declare view=True"


@pytest.mark.parametrize(("op", "index"), DIFFERENTIABLE)
def test_gradient_equals_autograd(op: Any, index: int) -> None:
    oracle = ORACLES[op.name]
    if not oracle.autograd:
        pytest.skip("the oracle has no autograd; finite differences decide")
    arguments = arguments_of(op, index, "float64")
    function, operands = as_function(op, arguments)
    if not operands:
        pytest.skip("no floating operand")
    actual = ops.grad(function, range(len(operands)))(*operands)
    leaves: list[Any] = []

    def enter(array: Any) -> Any:
        tensor = to_torch(array)
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
            tensor.requires_grad_()
            leaves.append(tensor)
        return tensor

    generator = np.random.default_rng(0)
    total: Any = torch.zeros(())
    for output in as_tuple(op.apply(oracle.function, op.map_operands(arguments, enter))):
        weight = torch.from_numpy(np.asarray(generator.normal(size=tuple(output.shape))))
        if output.is_complex():
            total = total + (output.real * weight).sum() + (output.imag * weight).sum()
        elif output.is_floating_point():
            total = total + (output * weight).sum()
    if not total.requires_grad:
        for gradient in actual:
            np.testing.assert_array_equal(gradient, np.zeros_like(gradient))
        return
    expected = torch.autograd.grad(total, leaves, allow_unused=True)
    for gradient, wanted, operand in zip(actual, expected, operands, strict=True):
        reference = np.zeros_like(operand) if wanted is None else wanted.numpy()
        assert_close(gradient, reference, 1e-8 * oracle.tolerance)


def directional(function: Any, operands: list[np.ndarray], directions: list[np.ndarray], step: float) -> Any:
    ahead = function(*[a + step * d for a, d in zip(operands, directions, strict=True)])
    behind = function(*[a - step * d for a, d in zip(operands, directions, strict=True)])
    return (ahead - behind) / (2 * step)


def directions_for(operands: list[np.ndarray], seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [np.asarray(generator.normal(size=a.shape)) for a in operands]


@pytest.mark.parametrize(("op", "index"), DIFFERENTIABLE)
def test_gradient_equals_finite_differences(op: Any, index: int) -> None:
    if not ORACLES[op.name].differences:
        pytest.skip("the gradient is by definition not the derivative; autograd decides")
    function, operands = as_function(op, arguments_of(op, index, "float64"))
    if not operands:
        pytest.skip("no floating operand")
    gradients = ops.grad(function, range(len(operands)))(*operands)
    for seed in (1, 2):
        directions = directions_for(operands, seed)
        numeric = float(directional(function, operands, directions, 1e-6))
        analytic = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))
        assert analytic == pytest.approx(numeric, rel=1e-5, abs=1e-5 * (1 + abs(numeric)))


@pytest.mark.parametrize(("op", "index"), DIFFERENTIABLE)
def test_second_order_equals_finite_differences(op: Any, index: int) -> None:
    if not ORACLES[op.name].second_order:
        pytest.skip("the second derivative is not defined by finite differences here")
    function, operands = as_function(op, arguments_of(op, index, "float64"))
    if not operands:
        pytest.skip("no floating operand")
    positions = range(len(operands))
    first, second = directions_for(operands, 3), directions_for(operands, 4)

    def slope(*given: Any) -> Any:
        gradients = ops.grad(function, positions)(*given)
        total: Any = 0.0
        for gradient, direction in zip(gradients, first, strict=True):
            total = ops.add(total, ops.sum(ops.multiply(gradient, direction)))
        return total

    gradients = ops.grad(slope, positions)(*operands)
    numeric = float(directional(slope, operands, second, 1e-6))
    analytic = sum(float((g * d).sum()) for g, d in zip(gradients, second, strict=True))
    assert analytic == pytest.approx(numeric, rel=1e-4, abs=1e-4 * (1 + abs(numeric)))


@pytest.mark.parametrize(("op", "index"), CASES)
def test_traced_and_compiled_equals_eager(op: Any, index: int) -> None:
    arguments = arguments_of(op, index, "float32")
    arrays = [a for a in op.operands(arguments) if isinstance(a, np.ndarray)]
    types = op.infer(op.map_operands(arguments, type_of))

    def function(*given: Any) -> Any:
        remaining = iter(given)
        return call(op, op.map_operands(arguments, lambda a: next(remaining)))

    if any(None in t.shape for t in ((types,) if isinstance(types, TensorType) else types)):
        with pytest.raises(ops.TraceError):
            ops.trace(function, *arrays)
        return

    graph = ops.trace(function, *arrays)
    graph.verify()
    assert op.name in str(graph) or not arrays
    eager = as_tuple(call(op, arguments))
    program = ops.compile(graph)
    for _ in range(2):  # the second run reuses the buffers of the first
        for actual, wanted in zip(as_tuple(program(*arrays)), eager, strict=True):
            assert actual.dtype == wanted.dtype
            assert_close(actual, wanted, 1e-6)


@pytest.mark.parametrize(("op", "index"), DIFFERENTIABLE)
def test_compiled_gradients_equal_eager_ones(op: Any, index: int) -> None:
    function, operands = as_function(op, arguments_of(op, index, "float64"))
    if not operands:
        pytest.skip("no floating operand")
    positions = range(len(operands))
    gradient = ops.grad(function, positions)
    graph = ops.trace(gradient, *operands)
    graph.verify()
    for actual, wanted in zip(ops.compile(graph)(*operands), gradient(*operands), strict=True):
        assert_close(actual, wanted, 1e-9)

    def squared(*given: Any) -> Any:
        total: Any = 0.0
        for g in ops.grad(function, positions)(*given):
            total = ops.add(total, ops.sum(ops.multiply(g, g)))
        return total

    twice = ops.grad(squared, positions)
    graph = ops.trace(twice, *operands)
    for actual, wanted in zip(ops.compile(graph)(*operands), twice(*operands), strict=True):
        assert_close(actual, wanted, 1e-8)


@pytest.mark.parametrize(("op", "index"), [case for case in CASES if case.values[0].kernels])
def test_kernels_equal_the_body(op: Any, index: int) -> None:
    arguments = arguments_of(op, index, "float32")
    typed = op.map_operands(arguments, type_of)
    prepared = op.prepare(np, arguments)
    wanted = as_tuple(op.expand(arguments) if op.is_composite else op.apply(op.body, prepared, np))
    for kernel in op.kernels:
        if kernel.device == "cpu" and (kernel.when is None or op.apply(kernel.when, typed)):
            for actual, expected in zip(as_tuple(op.apply(kernel.function, prepared, np)), wanted, strict=True):
                assert_close(actual, expected, 1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(("op", "index"), CASES)
def test_low_precision_is_float32_rounded_once(op: Any, index: int, dtype: str) -> None:
    arguments = arguments_of(op, index, dtype)
    if not floating_operands(op, arguments):
        pytest.skip("no floating operand")
    actual = as_tuple(call(op, arguments))
    for output, wanted in zip(actual, expected_outputs(op, arguments), strict=True):
        if is_floating(output.dtype) or output.dtype.kind == "c":
            assert_close(np.asarray(output, np.float32), wanted, TOLERANCE[dtype])


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("op", "index"), CASES)
def test_cupy_equals_numpy(op: Any, index: int, dtype: str) -> None:
    arguments = arguments_of(op, index, dtype)
    wanted = as_tuple(call(op, arguments))
    moved = op.map_operands(arguments, lambda a: ops.to_device(a, "cuda"))
    for actual, expected in zip(as_tuple(call(op, moved)), wanted, strict=True):
        assert_close(ops.to_device(actual, "cpu"), expected, TOLERANCE[dtype] * 10)
