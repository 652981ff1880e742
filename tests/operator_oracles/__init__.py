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
    by: str
    autograd: bool
    second_order: bool
    tolerance: float
    differences: bool = True

    @property
    def uses_torch(self) -> bool:
        return self.by == "torch"


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
            ORACLES[name] = Oracle(function, "torch", autograd, second_order and differences, tolerance, differences)
        return function

    return mark


def array_oracle(*names: str, by: str = "definition", second_order: bool = True, tolerance: float = 1.0) -> Any:
    """by: the library that computes the values; "definition" where the function spells the definition out."""

    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            assert name not in ORACLES, name
            ORACLES[name] = Oracle(function, by, False, second_order, tolerance)
        return function

    return mark


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
