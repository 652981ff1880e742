"""What optimizers have in common: numbers, and one rule over arrays.

A rule takes arrays (NumPy, CuPy, or traced values) with `xp`, the module of their functions. What depends on the step's
number alone is computed beforehand as plain floats, `coefficients`, so that the rule has no conditions and can be
traced. `zoo/train/updates.py` applies rules in place to whole sets of parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np

from zoonet.ops.errors import ArgumentError

__all__ = ["Array", "Numbers", "Optimizer", "Slots", "moments"]

Array = Any
Slots = dict[str, Array]
Numbers = dict[str, float]


@dataclass(frozen=True)
class Optimizer:
    """Base of optimizers. lr: learning rate, at least 0. weight_decay: at least 0. maximize: go up, not down.

    A subclass names its `slots` (arrays like the parameter, zero at first) and defines `update`. elementwise: whether
    each number is changed by itself, so that many parameters can be updated as one flat array.
    Raises ArgumentError for numbers out of range.
    """

    slots: ClassVar[tuple[str, ...]] = ()
    elementwise: ClassVar[bool] = True
    #: Fields that must lie in [0, 1).
    fractions: ClassVar[tuple[str, ...]] = ("momentum", "alpha", "rho")

    lr: float = 1e-3
    weight_decay: float = 0.0
    maximize: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        for item in fields(self):
            value = _plain(getattr(self, item.name))
            object.__setattr__(self, item.name, value)
            if isinstance(value, bool) or (value is None and item.default is None):
                continue
            if isinstance(item.default, tuple) and (not isinstance(value, tuple) or len(value) != len(item.default)):
                raise ArgumentError(
                    f"{type(self).__name__} cannot have this {item.name}",
                    expected=f"{len(item.default)} numbers, such as {item.default}",
                    received=repr(value),
                )
            numbers = value if isinstance(value, tuple) else (value,)
            bounded = item.name in (*self.fractions, "betas")
            for number in numbers:
                good = isinstance(number, int | float) and math.isfinite(number)
                if not good or (number < 0 and item.name != "beta2_decay") or (bounded and number >= 1):
                    raise ArgumentError(
                        f"{type(self).__name__} cannot have this {item.name}",
                        expected="a number from 0 to below 1" if bounded else "a finite number from 0",
                        received=repr(value),
                    )

    def start(self, xp: Any, parameter: Array) -> Slots:
        """What is remembered of a parameter before the first step."""
        return {name: xp.zeros_like(parameter) for name in self.slots}

    def coefficients(self, step: int, rate: float) -> Numbers:
        """The numbers of a step, counted from 1, at a learning rate; a rule takes them from its last argument."""
        return {"rate": rate}

    def update(self, xp: Any, parameter: Array, gradient: Array, slots: Slots, c: Numbers) -> tuple[Array, Slots]:
        """The new parameter and slots. Nothing is changed in place. gradient: of what is to become less."""
        raise NotImplementedError

    def apply(
        self,
        parameters: Mapping[str, Array],
        gradients: Mapping[str, Array],
        state: Mapping[str, Slots],
        coefficients: Mapping[str, Any],
        xp: Any = None,
    ) -> tuple[dict[str, Array], dict[str, Slots]]:
        """A step as a function of arrays by name, (new parameters, new state), which can be traced.

        xp: what has the functions; zoonet.ops, for arrays and traced values alike, if None.
        """
        if xp is None:
            from zoonet import ops

            xp = ops
        new = {
            name: self.update(
                xp, array, -gradients[name] if self.maximize else gradients[name], state[name], dict(coefficients)
            )
            for name, array in parameters.items()
        }
        return {name: pair[0] for name, pair in new.items()}, {name: pair[1] for name, pair in new.items()}

    def _decayed(self, parameter: Array, gradient: Array) -> Array:
        return gradient + self.weight_decay * parameter if self.weight_decay else gradient


def _plain(value: Any) -> Any:
    """Python's numbers in the place of NumPy's, and tuples in that of lists."""
    if isinstance(value, list | tuple):
        return tuple([_plain(item) for item in value])
    return value.item() if isinstance(value, np.generic) else value


def moments(slots: Slots, gradient: Array, betas: tuple[float, float]) -> Slots:
    """Running means of the gradient and of its square, by the operations that torch rounds after."""
    first, second = betas
    return {
        "first": slots["first"] + (1 - first) * (gradient - slots["first"]),
        "second": second * slots["second"] + (1 - second) * gradient * gradient,
    }
