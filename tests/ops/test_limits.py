"""Activations and erf at the limits of their domains and of the precision: values and gradients against torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from zoonet import ops

NAMES = ["erf", "erfc", "sigmoid", "tanh", "expm1", "log1p", "relu", "relu6", "elu", "selu", "celu", "silu", "mish"]
NAMES += ["hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "softplus", "softsign", "log_sigmoid", "gelu"]
TINY, LARGE = 1e-30, 1e30
POINTS = [0.0, TINY, 1e-8, 0.3, 1.0, 2.0, 3.0, 4.0, 5.5, 6.0, 10.0, 17.5, 50.0, 89.0, 104.0, 710.0, 1000.0, LARGE]
POINTS += [-x for x in POINTS] + [np.nan, -np.inf]
TOLERANCES: dict[str, dict[str, float]] = {
    "float32": {"rtol": 2e-6, "atol": 1e-37},
    "float64": {"rtol": 1e-13, "atol": 1e-300},
    "float16": {"rtol": 1e-3, "atol": 1e-7},
}


def of_torch(name: str) -> Callable[..., Any]:
    name = {"log_sigmoid": "logsigmoid"}.get(name, name)
    return getattr(torch, name, None) or getattr(F, name)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", NAMES)
def test_extreme_values_equal_torch(name: str, dtype: str) -> None:
    with np.errstate(over="ignore"):
        x = np.array(POINTS, dtype)
    tolerance = dict(TOLERANCES[dtype])
    if name == "gelu" and dtype != "float64":
        tolerance["atol"] = 1e-6  # 1 + erf(x) has the error of erf, in torch as well
    wanted = of_torch(name)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(getattr(ops, name)(x), wanted, **tolerance)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("relu", "log1p")])
def test_extreme_gradients_equal_torch(name: str) -> None:
    x = np.array([p for p in POINTS if np.isfinite(p)])
    variable = torch.from_numpy(x).requires_grad_()
    of_torch(name)(variable).sum().backward()
    gradient = ops.grad(lambda x: ops.sum(getattr(ops, name)(x)))(x)
    rtol = 5e-8 if name == "hardsigmoid" else 1e-12  # torch has the slope 1/6 in single precision
    np.testing.assert_allclose(gradient, variable.grad.numpy(), rtol, atol=1e-15)


def test_erf_of_single_precision_reaches_one() -> None:
    x = np.linspace(4.1, 60, 1001, dtype=np.float32)
    assert (ops.erf(x) == 1).all()
    assert (ops.erf(-x) == -1).all()
    assert (ops.gelu(-x * 2) == 0).all()
    assert (ops.gelu(x * 2) == x * 2).all()
