"""Operations of keras.ops that NumPy has as well and few models use."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import UnsupportedFormatError
from zoonet.ops.sets.keras.arithmetic import declare_binary, declare_reduction, declare_unary
from zoonet.ops.sets.keras.common import LARGEST_MASK, affordable, floating, from_first, to_first
from zoonet.ops.sets.keras.convolution import convolve, depthwise
from zoonet.ops.sets.keras.registry import layer
from zoonet.ops.types import Array


def _cube_root(x: Array) -> Array:
    x = floating(x)
    return ops.multiply(ops.sign(x), ops.pow(ops.abs(x), 1.0 / 3.0))


def _sinc(x: Array) -> Array:
    at_zero = ops.equal(x, 0)
    turns = ops.where(at_zero, 1.0, ops.multiply(x, math.pi))
    return ops.where(at_zero, 1.0, ops.divide(ops.sin(turns), turns))


def _is_infinite(sign: float) -> Callable[[Any], Array]:
    return lambda x: ops.equal(x, sign * math.inf)


_UNARY: dict[str, Callable[[Any], Any]] = {
    "Cbrt": _cube_root,
    "Conjugate": lambda x: x,
    "Conj": lambda x: x,
    "Real": lambda x: x,
    "Imag": lambda x: ops.zeros_like(x),
    "Deg2rad": lambda x: ops.multiply(floating(x), math.pi / 180.0),
    "Rad2deg": lambda x: ops.multiply(floating(x), 180.0 / math.pi),
    "Exp2": lambda x: ops.exp(ops.multiply(floating(x), math.log(2.0))),
    "Fabs": ops.abs,
    "Fliplr": lambda x: ops.flip(x, 1),
    "Flipud": lambda x: ops.flip(x, 0),
    "Isneginf": _is_infinite(-1.0),
    "Isposinf": _is_infinite(1.0),
    "Signbit": ops.signbit,
    "Sinc": _sinc,
    "BitwiseNot": ops.bitwise_invert,
    "BitwiseInvert": ops.bitwise_invert,
}
for _name, _unary in _UNARY.items():
    declare_unary(_name, _unary)


def _or_other(function: Callable[..., Array]) -> Callable[[Any, Any], Array]:
    """Of two numbers of which one is nan, the other."""

    def chosen(x: Any, y: Any) -> Array:
        return ops.where(ops.isnan(x), y, ops.where(ops.isnan(y), x, function(x, y)))

    return chosen


def _inner(x: Array, y: Array) -> Array:
    if not len(x.shape) or not len(y.shape):
        return ops.multiply(x, y)
    return ops.tensordot(x, y, ((len(x.shape) - 1,), (len(y.shape) - 1,)))


def _log_sum_of_powers_of_2(x: Array, y: Array) -> Array:
    scale = math.log(2.0)
    return ops.divide(ops.logaddexp(ops.multiply(x, scale), ops.multiply(y, scale)), scale)


_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "Fmax": _or_other(ops.maximum),
    "Fmin": _or_other(ops.minimum),
    "Logaddexp2": _log_sum_of_powers_of_2,
    "Inner": _inner,
    "Vdot": lambda x, y: ops.sum(ops.multiply(ops.reshape(x, (-1,)), ops.reshape(y, (-1,)))),
    "BitwiseAnd": ops.bitwise_and,
    "BitwiseOr": ops.bitwise_or,
    "BitwiseXor": ops.bitwise_xor,
    "BitwiseLeftShift": ops.bitwise_left_shift,
    "LeftShift": ops.bitwise_left_shift,
    "BitwiseRightShift": ops.bitwise_right_shift,
    "RightShift": ops.bitwise_right_shift,
}
for _name, _binary in _BINARY.items():
    declare_binary(_name, _binary)


def _without_nan(function: Callable[..., Array], instead: float) -> Callable[..., Array]:
    return lambda x, axis, keep: function(ops.where(ops.isnan(x), instead, x), axis, keep)


def _mean_without_nan(x: Array, axis: Any, keep: bool) -> Array:
    missing = ops.isnan(x)
    count = ops.sum(ops.where(missing, 0.0, 1.0), axis, keep)
    return ops.divide(ops.sum(ops.where(missing, 0.0, x), axis, keep), count)


declare_reduction("Nansum", _without_nan(ops.sum, 0.0))
declare_reduction("Nanprod", _without_nan(ops.prod, 1.0))
declare_reduction("Nanmax", _without_nan(ops.max, -math.inf))
declare_reduction("Nanmin", _without_nan(ops.min, math.inf))
declare_reduction("Nanmean", _mean_without_nan)


@layer("ops.Round")
def round_to(x: Array, /, decimals: int = 0) -> Array:
    """Numbers rounded to this many places after the point."""
    if not decimals:
        return ops.round(x)
    scale = 10.0**decimals
    return ops.divide(ops.round(ops.multiply(x, scale)), scale)


@layer("ops.Isclose")
def isclose(x1: Array, x2: Array, /, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Array:
    """Where numbers are equal up to tolerances."""
    near = ops.less_equal(ops.abs(ops.subtract(x1, x2)), ops.add(ops.multiply(ops.abs(x2), rtol), atol))
    near = ops.logical_or(near, ops.equal(x1, x2))
    return ops.logical_or(near, ops.logical_and(ops.isnan(x1), ops.isnan(x2))) if equal_nan else near


@layer("ops.NanToNum")
def nan_to_num(x: Array, /, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Array:
    """Numbers in the place of nan and of infinite ones."""
    largest = float(np.finfo(x.dtype if x.dtype.itemsize > 2 else np.float32).max)
    y = ops.where(ops.isnan(x), nan, x)
    y = ops.where(ops.equal(y, math.inf), largest if posinf is None else posinf, y)
    return ops.where(ops.equal(y, -math.inf), -largest if neginf is None else neginf, y)


@layer("ops.SaturateCast")
def saturate_cast(x: Array, /, dtype: str) -> Array:
    """Another data type; numbers that it does not have become its nearest."""
    limits = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else np.finfo(dtype)
    return ops.cast(ops.clip(x, float(limits.min), float(limits.max)), dtype)


@layer("ops.Array", "ops.View")
def array(x: Array, /, dtype: str | None = None) -> Array:
    """The array, in another data type if one is given."""
    return x if dtype is None else ops.cast(x, dtype)


@layer("ops.Median")
def median(x: Array, /, axis: Any = None, keepdims: bool = False) -> Array:
    """The number in the middle, or the mean of the two there."""
    x, rank = floating(x), len(x.shape)
    axes = tuple(range(rank)) if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)
    axes = tuple(sorted(a % rank for a in axes))
    others = [i for i in range(rank) if i not in axes]
    rows = ops.reshape(ops.transpose(x, (*others, *axes)), (*(x.shape[i] for i in others), -1))
    ordered, count = ops.sort(rows, -1), int(rows.shape[-1])
    middle = ops.mean(ordered[..., (count - 1) // 2 : count // 2 + 1], -1)
    return ops.reshape(middle, [1 if i in axes else n for i, n in enumerate(x.shape)]) if keepdims else middle


@layer("ops.Diff")
def diff(a: Array, /, n: int = 1, axis: int = -1) -> Array:
    """Differences of neighbours along an axis, n times."""
    y = ops.moveaxis(a, axis, -1)
    for _ in range(n):
        y = ops.subtract(y[..., 1:], y[..., :-1])
    return ops.moveaxis(y, -1, axis)


@layer("ops.Trace")
def trace(x: Array, /, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Array:
    """The sum of a diagonal."""
    return ops.sum(ops.diagonal(x, offset, axis1, axis2), -1)


@layer("ops.Append")
def append(x1: Array, x2: Array, /, axis: int | None = None) -> Array:
    """One array after the other, both as vectors without an axis."""
    if axis is None:
        return ops.concat((ops.reshape(x1, (-1,)), ops.reshape(x2, (-1,))), 0)
    return ops.concat((x1, x2), axis)


@layer("ops.Dstack")
def dstack(xs: Sequence[Array], /) -> Array:
    """Arrays one after the other along the third axis."""
    deep = [ops.reshape(x, (1, -1, 1)) if len(x.shape) < 2 else x for x in xs]
    return ops.concat(tuple([ops.expand_dims(x, 2) if len(x.shape) == 2 else x for x in deep]), 2)


@layer("ops.Rot90")
def rot90(x: Array, /, k: int = 1, axes: tuple[int, int] = (0, 1)) -> Array:
    """A quarter turn, k times, from the first axis towards the second."""
    first, second = axes
    if k % 4 == 2:
        return ops.flip(x, (first, second))
    if k % 4 == 1:
        return ops.swapaxes(ops.flip(x, second), first, second)
    return ops.flip(ops.swapaxes(x, first, second), second) if k % 4 else x


@layer("ops.Kron")
def kron(x1: Array, x2: Array, /) -> Array:
    """Each element of x1 times all of x2, as blocks."""
    rank = max(len(x1.shape), len(x2.shape))
    small, large = ((*(1,) * (rank - len(x.shape)), *(int(n) for n in x.shape)) for x in (x1, x2))
    spread = ops.reshape(x1, [m for n in small for m in (n, 1)])
    tiles = ops.reshape(x2, [m for n in large for m in (1, n)])
    return ops.reshape(ops.multiply(spread, tiles), [n * m for n, m in zip(small, large, strict=True)])


@layer("ops.Diag")
def diag(x: Array, /, k: int = 0) -> Array:
    """A diagonal of a matrix, or a matrix with this diagonal."""
    if len(x.shape) == 2:
        return ops.diagonal(x, k, 0, 1)
    size = int(x.shape[0]) + abs(k)
    affordable(size * size, LARGEST_MASK, "diag", "the matrix")
    rows = np.arange(int(x.shape[0])) + max(-k, 0)
    chosen = np.zeros((int(x.shape[0]), size, size), np.float32)
    chosen[np.arange(int(x.shape[0])), rows, rows + k] = 1.0
    return ops.tensordot(x, ops.cast(chosen, x.dtype), ((0,), (0,)))


@layer("ops.MultiHot")
def multi_hot(x: Array, /, num_classes: int, axis: int = -1, dtype: str | None = None, sparse: bool = False) -> Array:
    """1 at each index that an item has, and 0 elsewhere."""
    if axis != -1:
        raise UnsupportedFormatError("keras.ops.multi_hot is supported along the last axis", received=axis)
    affordable(num_classes, LARGEST_MASK, "multi_hot", "the number of classes")
    vectors = ops.one_hot(x, num_classes, dtype or "float32", -1)
    return ops.max(vectors, 1 if len(x.shape) > 1 else 0)


@layer("ops.Digitize")
def digitize(x: Array, /, bins: tuple[float, ...]) -> Array:
    """How many of the bounds a number reaches, int32."""
    reached = ops.greater_equal(ops.expand_dims(x, -1), np.asarray(bins, np.float32))
    return ops.cast(ops.sum(ops.cast(reached, "int32"), -1), "int32")


@layer("ops.Trapezoid")
def trapezoid(y: Array, x: Array | None = None, /, dx: float = 1.0, axis: int = -1) -> Array:
    """The integral along an axis by trapezoids."""
    if x is not None:
        raise UnsupportedFormatError("keras.ops.trapezoid is supported for even steps", expected="dx")
    y = ops.moveaxis(floating(y), axis, -1)
    return ops.multiply(ops.sum(ops.add(y[..., 1:], y[..., :-1]), -1), dx / 2)


def _sections(options: Mapping[str, Any]) -> int:
    given = options.get("indices_or_sections")
    if not isinstance(given, int):
        raise UnsupportedFormatError("keras.ops.array_split needs a number of parts", received=given)
    return given


@layer("ops.ArraySplit", outputs=_sections)
def array_split(x: Array, /, indices_or_sections: int, axis: int = 0) -> Any:
    """Parts along an axis whose sizes differ by one at most, the larger ones first."""
    least, more = divmod(int(x.shape[axis]), indices_or_sections)
    ends = np.cumsum([least + (part < more) for part in range(indices_or_sections)])[:-1]
    return ops.split(x, tuple(int(end) for end in ends), axis)


@layer("ops.DepthwiseConv")
def depthwise_conv(
    inputs: Array,
    kernel: Array,
    /,
    strides: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> Array:
    """A convolution within each channel by a kernel (size…, channels, multiplier)."""
    x = to_first(inputs, data_format, "depthwise_conv")
    y = depthwise(x, kernel, None, strides, padding, dilation_rate, "depthwise_conv")
    return from_first(y, data_format, "depthwise_conv")


@layer("ops.SeparableConv")
def separable_conv(
    inputs: Array,
    depthwise_kernel: Array,
    pointwise_kernel: Array,
    /,
    strides: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> Array:
    """A convolution within each channel, then one of size 1 across."""
    x = to_first(inputs, data_format, "separable_conv")
    y = depthwise(x, depthwise_kernel, None, strides, padding, dilation_rate, "separable_conv")
    return from_first(
        convolve(y, pointwise_kernel, None, 1, "valid", 1, 1, "separable_conv"), data_format, "separable_conv"
    )


@layer("ops.IsReal", "ops.Isreal")
def isreal(x: Array, /) -> Array:
    """True everywhere: arrays of graphs are real."""
    return ops.ones_like(x, dtype="bool")


@layer("ops.Select")
def select(condlist: Sequence[Array], choicelist: Sequence[Array], /, default: float = 0) -> Array:
    """For each element the first choice whose condition holds, else a number."""
    result: Any = ops.full_like(choicelist[0], default)
    for condition, choice in reversed(list(zip(condlist, choicelist, strict=True))):
        result = ops.where(condition, choice, result)
    return result
