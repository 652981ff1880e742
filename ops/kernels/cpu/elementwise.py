"""Kernels of elementwise operators on NumPy: ufuncs that write into a plan's buffer or over an unused operand."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoonet.ops.activations import relu
from zoonet.ops.elementary import exp, log, sin, tanh
from zoonet.ops.elementwise import add, divide, maximum, minimum, multiply, negative, sqrt, square, subtract
from zoonet.ops.registry import Op
from zoonet.ops.types import Array

#: Operators whose body is one ufunc with a result of the dtype that its operands were promoted to.
UFUNCS: dict[Op[..., Any], np.ufunc] = {
    add: np.add,
    divide: np.divide,
    exp: np.exp,
    log: np.log,
    maximum: np.maximum,
    minimum: np.minimum,
    multiply: np.multiply,
    negative: np.negative,
    sin: np.sin,
    sqrt: np.sqrt,
    square: np.square,
    subtract: np.subtract,
    tanh: np.tanh,
}


def _register(operator: Op[..., Any], ufunc: np.ufunc) -> None:
    @operator.kernel("cpu", takes_out=True, in_place=True)
    def apply(xp: Any, *operands: Array, out: Array | None = None) -> Array:
        return ufunc(*operands, out=out)


for _operator, _ufunc in UFUNCS.items():
    _register(_operator, _ufunc)


@relu.kernel("cpu", takes_out=True, in_place=True)
def relu_into(xp: Any, x: Array, out: Array | None = None) -> Array:
    """max(x, 0), written to `out`."""
    return np.maximum(x, 0, out=out)
