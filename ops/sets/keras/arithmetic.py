"""Operations of keras.ops that functional models hold in the place of layers, such as `x * 2`.

Keras 3 saves them under the class of the operation (module keras.src.ops…), tf.keras as TFOpLambda under the name of
a TensorFlow function. Both are layers named "ops.Add" here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from zoonet import ops
from zoonet.ops.sets.keras.registry import layer
from zoonet.ops.types import Array


def declare_binary(name: str, function: Callable[[Any, Any], Any]) -> None:
    """Declare an operation on two arrays. function: over the shared operators."""

    @layer(f"ops.{name}")
    def binary(x1: Array, x2: Array, /) -> Array:
        """Two arrays, or an array and a number, combined."""
        return function(x1, x2)


def declare_unary(name: str, function: Callable[[Any], Any]) -> None:
    """Declare an operation on each element. function: over the shared operators."""

    @layer(f"ops.{name}")
    def unary(x: Array, /) -> Array:
        """An array changed element by element."""
        return function(x)


for _name, _binary in {
    "Add": ops.add,
    "Subtract": ops.subtract,
    "Multiply": ops.multiply,
    "Divide": ops.divide,
    "TrueDivide": ops.divide,
    "Power": ops.pow,
    "Maximum": ops.maximum,
    "Minimum": ops.minimum,
    "Matmul": ops.matmul,
    "FloorDivide": ops.floor_divide,
    "Mod": ops.remainder,
    "Equal": ops.equal,
    "NotEqual": ops.not_equal,
    "Greater": ops.greater,
    "GreaterEqual": ops.greater_equal,
    "Less": ops.less,
    "LessEqual": ops.less_equal,
    "LogicalAnd": ops.logical_and,
    "LogicalOr": ops.logical_or,
}.items():
    declare_binary(_name, _binary)

_UNARY: dict[str, Callable[[Any], Array]] = {
    "Negative": ops.negative,
    "Absolute": ops.abs,
    "Abs": ops.abs,
    "Square": ops.square,
    "Sqrt": ops.sqrt,
    "Rsqrt": ops.rsqrt,
    "Exp": ops.exp,
    "Log": ops.log,
    "Sin": ops.sin,
    "Cos": ops.cos,
    "Tanh": ops.tanh,
    "Sigmoid": ops.sigmoid,
    "Relu": ops.relu,
    "Relu6": ops.relu6,
    "Silu": ops.silu,
    "Softplus": ops.softplus,
    "Erf": ops.erf,
    "Sign": ops.sign,
    "Floor": ops.floor,
    "Ceil": ops.ceil,
    "LogicalNot": ops.logical_not,
    "StopGradient": ops.stop_gradient,
}
for _name, _unary in _UNARY.items():
    declare_unary(_name, _unary)


def declare_reduction(name: str, function: Callable[..., Any]) -> None:
    """Declare an operation along axes. function: of an array, axes and whether they are kept."""

    @layer(f"ops.{name}")
    def reduction(x: Array, /, axis: Any = None, keepdims: bool = False) -> Array:
        """Numbers along axes as one, or all of them."""
        return function(x, axis, keepdims)


_REDUCTIONS: dict[str, Callable[..., Array]] = {
    "Mean": ops.mean,
    "Sum": ops.sum,
    "Max": ops.max,
    "Min": ops.min,
    "Prod": ops.prod,
    "Var": lambda x, axis, keepdims: ops.var(x, axis, 0.0, keepdims),
    "Std": lambda x, axis, keepdims: ops.std(x, axis, 0.0, keepdims),
    "Logsumexp": ops.logsumexp,
    "Any": ops.any,
    "All": ops.all,
}
for _name, _reduction in _REDUCTIONS.items():
    declare_reduction(_name, _reduction)


@layer("ops.ConvertToTensor", masks=True)
def convert_to_tensor(x: Array, /, dtype: str | None = None) -> Array:
    """The array, in another data type if one is given."""
    return x if dtype is None else ops.cast(x, dtype)


@layer("ops.Softmax")
def softmax(x: Array, /, axis: int = -1) -> Array:
    """Softmax along an axis."""
    return ops.softmax(x, axis)


@layer("ops.Gelu")
def gelu(x: Array, /, approximate: bool = True) -> Array:
    """x · Φ(x), or its approximation by tanh, which is the default of keras.ops."""
    return ops.gelu(x, "tanh" if approximate else "none")


@layer("ops.Reshape")
def reshape(x: Array, /, newshape: tuple[Any, ...]) -> Array:
    """Another shape; None or -1 for the size that follows from the others."""
    return ops.reshape(x, tuple([-1 if n is None else n for n in newshape]))


@layer("ops.Transpose")
def transpose(x: Array, /, axes: Any = None) -> Array:
    """The axes in another order."""
    return ops.transpose(x, axes)


@layer("ops.SwapAxes", "ops.Swapaxes")
def swap_axes(x: Array, /, axis1: int, axis2: int) -> Array:
    """Two axes exchanged."""
    return ops.swapaxes(x, axis1, axis2)


@layer("ops.ExpandDims")
def expand_dims(x: Array, /, axis: Any) -> Array:
    """A new axis of size 1."""
    return ops.expand_dims(x, axis)


@layer("ops.Squeeze")
def squeeze(x: Array, /, axis: Any = None) -> Array:
    """Axes of size 1 taken away."""
    return ops.squeeze(x, axis)


@layer("ops.Concatenate")
def concatenate(xs: Sequence[Array], /, axis: int = 0) -> Array:
    """Arrays one after the other along an axis."""
    return ops.concat(tuple(xs), axis)


@layer("ops.Stack")
def stack(xs: Sequence[Array], /, axis: int = 0) -> Array:
    """Arrays along a new axis."""
    return ops.stack(tuple(xs), axis)


@layer("ops.Clip")
def clip(x: Array, /, x_min: float, x_max: float) -> Array:
    """Numbers cut at both ends."""
    return ops.clip(x, x_min, x_max)


@layer("ops.Where")
def where(condition: Array, x1: Array, x2: Array, /) -> Array:
    """Elements of x1 where the condition holds, else of x2."""
    return ops.where(condition, x1, x2)


def _declare_likes(name: str, function: Callable[..., Array]) -> None:
    @layer(f"ops.{name}")
    def like(x: Array, /, dtype: str | None = None) -> Array:
        """An array of the shape of x, of one number."""
        return function(x, dtype)


_declare_likes("ZerosLike", ops.zeros_like)
_declare_likes("OnesLike", ops.ones_like)


@layer("ops.Cast")
def cast(x: Array, /, dtype: str) -> Array:
    """Another data type."""
    return ops.cast(x, dtype)


@layer("ops.Flatten")
def flatten(x: Array, /) -> Array:
    """All axes but the first as one."""
    return ops.reshape(x, (int(x.shape[0]), math.prod(int(n) for n in x.shape[1:])))


@layer("ops.GetItem")
def get_item(x: Array, /, key: Any) -> Array:
    """Part of an array. key: ("slice", start, stop, step), integers, None for a new axis, "..." for the rest."""
    items = key if isinstance(key, tuple) and not (key and key[0] == "slice") else (key,)
    made = [
        slice(*item[1:]) if isinstance(item, tuple) and item and item[0] == "slice" else ... if item == "..." else item
        for item in items
    ]
    return x[tuple(made)]
