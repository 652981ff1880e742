"""Independent implementations of every operator: PyTorch first, then SciPy, ONNX Runtime or a hand calculation.

`@torch_oracle("relu")` marks a function that takes the operator's arguments in order, with torch tensors for arrays,
and returns a tensor or a tuple of them; its autograd is the oracle of the gradient too. `@array_oracle("erf")` marks
one on NumPy arrays; gradients are then checked by finite differences alone.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Oracle:
    function: Callable[..., Any]
    uses_torch: bool
    autograd: bool
    second_order: bool
    tolerance: float
    differences: bool = True


ORACLES: dict[str, Oracle] = {}


def torch_oracle(
    *names: str, autograd: bool = True, second_order: bool = True, tolerance: float = 1.0, differences: bool = True
) -> Any:
    """autograd=False: torch's gradient is another convention; finite differences decide. second_order=False: the
    second derivative is not defined by finite differences at the samples (say why beside it). tolerance: a factor.
    differences=False: the gradient is by definition not the derivative, so that autograd alone decides (say why)."""

    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            assert name not in ORACLES, name
            ORACLES[name] = Oracle(function, True, autograd, second_order and differences, tolerance, differences)
        return function

    return mark


def array_oracle(*names: str, second_order: bool = True, tolerance: float = 1.0) -> Any:
    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            assert name not in ORACLES, name
            ORACLES[name] = Oracle(function, False, False, second_order, tolerance)
        return function

    return mark


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
