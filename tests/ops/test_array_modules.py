"""One body, many array modules: every operator's samples, forward and backward, on a stand-in as strict as CuPy."""

from __future__ import annotations

import ast
import pathlib
import sys
import types
import zlib
from typing import Any

import cupy_stand_in
import numpy as np
import pytest

import zoonet.ops
from zoonet import ops
from zoonet.ops.registry import REGISTRY
from zoonet.ops.types import is_floating

SAMPLED = [n for n, o in REGISTRY.items() if o.__module__.startswith("zoonet.ops") and "." not in n]


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    made = cupy_stand_in.module()
    monkeypatch.setitem(sys.modules, "cupy", made)
    return made


def lower(result: Any) -> list[np.ndarray]:
    outputs = result if isinstance(result, tuple | list) else [result]
    assert all(isinstance(output, cupy_stand_in.ndarray) for output in outputs), "a result left the device"
    return [output.get() for output in outputs]


@pytest.mark.parametrize("name", SAMPLED)
def test_values_and_gradients_equal_numpy(name: str, cupy: types.ModuleType) -> None:
    op = REGISTRY[name]
    for index, sample in enumerate(op.samples):
        args, kwargs = sample.make(zlib.crc32(f"{name}-{index}".encode()), ops.as_dtype("float64"))
        here = op.bind(args, kwargs)
        if "device" in here:
            here["device"] = "cpu"
        there = op.map_operands(here, lambda a: ops.to_device(a, "cuda"))
        if "device" in here:
            there["device"] = "cuda"
        expected = op.apply(op, here)
        expected = expected if isinstance(expected, tuple | list) else [expected]
        if not any(isinstance(a, np.ndarray) for a in op.operands(here)) and "device" not in here:
            continue
        for actual, wanted in zip(lower(op.apply(op, there)), expected, strict=True):
            np.testing.assert_allclose(actual, wanted, rtol=1e-9, atol=1e-9)
        floating = [k for k, a in there.items() if hasattr(a, "dtype") and is_floating(a.dtype)]
        if op.differentiable and floating:

            def total(values: dict[str, Any], arguments: dict[str, Any] = there) -> Any:
                result = op.apply(op, {**arguments, **values})
                parts = result if isinstance(result, tuple | list) else [result]
                return sum((ops.sum(p * p) for p in parts if is_floating(p.dtype)), start=0.0)

            if not any(is_floating(np.asarray(e).dtype) for e in expected):
                continue
            gradients = ops.grad(total)({k: there[k] for k in floating})
            wanted = ops.grad(lambda v, a=here: total(v, a))({k: here[k] for k in floating})
            for key in floating:
                (actual,) = lower(gradients[key])
                np.testing.assert_allclose(actual, wanted[key], rtol=1e-9, atol=1e-9)


def functions_used() -> set[str]:
    """Every name that a body takes from its array module."""
    folder = pathlib.Path(zoonet.ops.__file__).parent
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "xp":
                found.add(node.attr)
    return found


def test_bodies_use_only_what_cupy_has() -> None:
    known = {
        *cupy_stand_in.FUNCTIONS,
        *cupy_stand_in.CONSTANTS,
        *cupy_stand_in.TYPES,
        "cuda",
        "fft",
        "linalg",
        "ndarray",
    }
    known.add("__name__")
    assert functions_used() - known == set()


def test_a_compiled_program_has_its_numbers_on_the_device(cupy: types.ModuleType) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    program = ops.compile(ops.trace(lambda x: ops.multiply(ops.add(x, 1.0), 2.0), x), device="cuda")
    [result] = lower(program(ops.to_device(x, "cuda")))
    np.testing.assert_array_equal(result, (x + 1) * 2)
