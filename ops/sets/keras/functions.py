"""Operations of keras.ops in functional models that have no family of their own: elementary functions, activations,
products, sorting, normalisation and windows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zoonet import ops
from zoonet.ops.errors import ArgumentError, UnsupportedFormatError
from zoonet.ops.sets.keras import activations
from zoonet.ops.sets.keras.arithmetic import declare_binary, declare_reduction, declare_unary
from zoonet.ops.sets.keras.common import along, axes_of, floating, from_first, to_first
from zoonet.ops.sets.keras.convolution import convolve
from zoonet.ops.sets.keras.pooling import pool_windows
from zoonet.ops.sets.keras.registry import layer
from zoonet.ops.types import Array

_EPSILON = 1e-7  # keras.config.epsilon()


_UNARY: dict[str, Callable[[Any], Any]] = {
    "Expm1": ops.expm1,
    "Log1p": ops.log1p,
    "Log2": ops.log2,
    "Log10": ops.log10,
    "Tan": ops.tan,
    "Arcsin": ops.asin,
    "Arccos": ops.acos,
    "Arctan": ops.atan,
    "Sinh": ops.sinh,
    "Cosh": ops.cosh,
    "Arcsinh": ops.asinh,
    "Arccosh": ops.acosh,
    "Arctanh": ops.atanh,
    "Reciprocal": ops.reciprocal,
    "Trunc": ops.trunc,
    "Erfc": ops.erfc,
    "Isnan": ops.isnan,
    "Isinf": ops.isinf,
    "Isfinite": ops.isfinite,
    "Selu": ops.selu,
    "Softsign": ops.softsign,
    "LogSigmoid": ops.log_sigmoid,
    "HardTanh": ops.hardtanh,
    "TanhShrink": ops.tanhshrink,
    "SparsePlus": activations.sparse_plus,
    "SparseSigmoid": activations.sparse_sigmoid,
    "Copy": lambda x: x,
}
for _name, _unary in _UNARY.items():
    declare_unary(_name, _unary)


def _divide_no_nan(x: Array, y: Array) -> Array:
    zero = ops.equal(y, 0)
    return ops.where(zero, 0.0, ops.divide(x, ops.where(zero, 1.0, y)))


def _dot(x: Array, y: Array) -> Array:
    """As numpy.dot: the last axis of x with the last but one of y, or its only one."""
    if not len(x.shape) or not len(y.shape):
        return ops.multiply(x, y)
    return ops.tensordot(x, y, ((len(x.shape) - 1,), (max(len(y.shape) - 2, 0),)))


_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "Arctan2": ops.atan2,
    "Logaddexp": ops.logaddexp,
    "Hypot": ops.hypot,
    "Fmod": ops.fmod,
    "LogicalXor": ops.logical_xor,
    "DivideNoNan": _divide_no_nan,
    "Dot": _dot,
    "Outer": lambda x, y: ops.outer(ops.reshape(x, (-1,)), ops.reshape(y, (-1,))),
}
for _name, _binary in _BINARY.items():
    declare_binary(_name, _binary)


# -- activations with options --------------------------------------------------------------------------------------


@layer("ops.Celu")
def celu(x: Array, /, alpha: float = 1.0) -> Array:
    """x where it is positive, else alpha · (exp(x / alpha) - 1)."""
    return ops.celu(x, alpha)


@layer("ops.Glu")
def glu(x: Array, /, axis: int = -1) -> Array:
    """One half of x by the sigmoid of the other."""
    return ops.glu(x, axis)


@layer("ops.SoftShrink")
def soft_shrink(x: Array, /, threshold: float = 0.5) -> Array:
    """x moved towards 0 by the threshold."""
    return ops.softshrink(x, threshold)


@layer("ops.HardShrink")
def hard_shrink(x: Array, /, threshold: float = 0.5) -> Array:
    """x, or 0 where it is within the threshold."""
    return ops.hardshrink(x, threshold)


@layer("ops.Threshold")
def threshold(x: Array, /, threshold: float, default_value: float) -> Array:
    """x above the threshold, else the default value."""
    return ops.threshold(x, threshold, default_value)


@layer("ops.Squareplus")
def squareplus(x: Array, /, b: float = 4) -> Array:
    """(x + √(x² + b)) / 2."""
    return activations.squareplus(x, b)


@layer("ops.Sparsemax")
def sparsemax(x: Array, /, axis: int = -1) -> Array:
    """See the activation."""
    return activations.sparsemax(x, axis)


# -- products and triangles ----------------------------------------------------------------------------------------


@layer("ops.AddN")
def add_n(xs: Sequence[Array], /) -> Array:
    """The sum of several arrays: tf.math.add_n."""
    return functools.reduce(ops.add, xs)


@layer("ops.Einsum")
def einsum(operands: Sequence[Array], /, subscripts: str) -> Array:
    """A product in Einstein's notation."""
    return ops.einsum(subscripts, *operands)


@layer("ops.Tensordot")
def tensordot(x1: Array, x2: Array, /, axes: Any = 2) -> Array:
    """Products summed over several axes."""
    if isinstance(axes, tuple):
        axes = tuple([(item,) if isinstance(item, int) else item for item in axes])
    return ops.tensordot(x1, x2, axes)


@layer("ops.Tril")
def tril(x: Array, /, k: int = 0) -> Array:
    """The part of the last two axes on and below a diagonal."""
    return ops.tril(x, k)


@layer("ops.Triu")
def triu(x: Array, /, k: int = 0) -> Array:
    """The part of the last two axes on and above a diagonal."""
    return ops.triu(x, k)


@layer("ops.Diagonal")
def diagonal(x: Array, /, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Array:
    """A diagonal of two axes."""
    return ops.diagonal(x, offset, axis1, axis2)


@layer("ops.DotProductAttention")
def dot_product_attention(
    query: Array,
    key: Array,
    value: Array,
    bias: Array | None = None,
    mask: Array | None = None,
    /,
    scale: float | None = None,
    is_causal: bool = False,
    flash_attention: bool | None = None,
    attn_logits_soft_cap: float | None = None,
) -> Array:
    """Softmax(q · kᵀ · scale + bias) · v in each head; all are (N, T, heads, size)."""
    if attn_logits_soft_cap is not None:
        raise UnsupportedFormatError("attention with a soft cap is not supported", received=attn_logits_soft_cap)
    q, k, v = (ops.swapaxes(x, 1, 2) for x in (query, key, value))
    scores = ops.matmul(ops.multiply(q, int(q.shape[-1]) ** -0.5 if scale is None else scale), ops.swapaxes(k, -1, -2))
    scores = scores if bias is None else ops.add(scores, bias)
    if is_causal:
        lower = ops.tril(ops.ones_like(scores, dtype="bool"))
        mask = lower if mask is None else ops.logical_and(lower, ops.cast(mask, "bool"))
    if mask is not None:
        scores = ops.where(ops.cast(mask, "bool"), scores, -3e4 if scores.dtype.itemsize == 2 else -1e9)
    return ops.swapaxes(ops.matmul(ops.softmax(scores, -1), v), 1, 2)


# -- order and selection -------------------------------------------------------------------------------------------


@layer("ops.Sort")
def sort(x: Array, /, axis: int = -1) -> Array:
    """Ascending along an axis."""
    return ops.sort(x, axis)


@layer("ops.Argsort")
def argsort(x: Array, /, axis: int = -1) -> Array:
    """Where the sorted elements are, int32."""
    return ops.cast(ops.argsort(x, axis, False, True), "int32")


@layer("ops.TopK", outputs=lambda options: 2)
def top_k(x: Array, /, k: int, sorted: bool = True) -> Any:
    """The k largest along the last axis, and where they are."""
    values, indices = ops.topk(x, k, -1, True, True)
    return values, ops.cast(indices, "int32")


@layer("ops.TakeAlongAxis")
def take_along_axis(x: Array, indices: Array, /, axis: int | None = None) -> Array:
    """Elements by index along an axis."""
    if axis is None:
        return ops.take_along_axis(ops.reshape(x, (-1,)), ops.reshape(indices, (-1,)), 0)
    return ops.take_along_axis(x, indices, axis)


@layer("ops.Cumprod")
def cumprod(x: Array, /, axis: int | None = None, dtype: str | None = None) -> Array:
    """Products of all elements so far along an axis."""
    y = ops.cumprod(ops.reshape(x, (-1,)) if axis is None else x, 0 if axis is None else axis)
    return y if dtype is None else ops.cast(y, dtype)


def _unstacked(options: Mapping[str, Any]) -> int:
    number = options.get("num")
    if not isinstance(number, int):
        raise UnsupportedFormatError(
            "keras.ops.unstack is supported where the file says how many parts there are",
            expected="num, an integer",
            received=number,
            fix="save the model with unstack(x, num=…)",
        )
    return number


@layer("ops.Unstack", outputs=_unstacked)
def unstack(x: Array, /, num: int | None = None, axis: int = 0) -> Any:
    """The slices of an axis."""
    return ops.unstack(x, axis)


@layer("ops.Slice")
def slices(inputs: Array, /, start_indices: tuple[int, ...], shape: tuple[int, ...]) -> Array:
    """A block that begins at these places and has this shape."""
    return inputs[tuple([slice(start, start + n) for start, n in zip(start_indices, shape, strict=True)])]


@layer("ops.FullLike")
def full_like(x: Array, /, fill_value: float, dtype: str | None = None) -> Array:
    """One number in the shape of x."""
    return ops.full_like(x, fill_value, dtype)


@layer("ops.Ravel")
def ravel(x: Array, /) -> Array:
    """All axes as one."""
    return ops.reshape(x, (-1,))


@layer("ops.Hstack")
def hstack(xs: Sequence[Array], /) -> Array:
    """Arrays one after the other along the second axis, vectors along their only one."""
    return ops.concat(tuple(xs), min(len(xs[0].shape) - 1, 1))


@layer("ops.Vstack")
def vstack(xs: Sequence[Array], /) -> Array:
    """Arrays one after the other along the first axis."""
    return ops.concat(tuple(xs), 0)


# -- reductions and normalisation ----------------------------------------------------------------------------------


declare_reduction("Amax", ops.max)
declare_reduction("Amin", ops.min)
declare_reduction("Ptp", lambda x, axis, keep: ops.subtract(ops.max(x, axis, keep), ops.min(x, axis, keep)))
declare_reduction("CountNonzero", lambda x, axis, keep: ops.cast(ops.count_nonzero(x, axis, keep), "int32"))


@layer("ops.Average")
def average(x: Array, weights: Array | None = None, /, axis: Any = None) -> Array:
    """The mean along axes, weighted by an array of the shape of x or of the axis."""
    if weights is None:
        return ops.mean(x, axis)
    if len(weights.shape) != len(x.shape):
        weights = along(weights, axes_of(axis, len(x.shape), "average"), len(x.shape))
    spread = ops.broadcast_to(weights, tuple(x.shape))
    return ops.divide(ops.sum(ops.multiply(x, spread), axis), ops.sum(spread, axis))


@layer("ops.Moments", outputs=lambda options: 2)
def moments(x: Array, /, axes: Any, keepdims: bool = False, synchronized: bool = False) -> Any:
    """Mean and variance along axes."""
    return ops.mean(x, axes, keepdims), ops.var(x, axes, 0.0, keepdims)


@layer("ops.Normalize")
def normalize(x: Array, /, axis: Any = -1, order: float = 2, epsilon: float | None = None) -> Array:
    """x by its length along axes."""
    return ops.normalize(floating(x), float(order), axis, _EPSILON if epsilon is None else epsilon)


@layer("ops.LayerNorm")
def layer_norm(
    x: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    /,
    axis: Any = -1,
    epsilon: float | None = None,
    rms_scaling: bool = False,
) -> Array:
    """(x - mean) / sqrt(variance + epsilon) · gamma + beta over axes."""
    if rms_scaling:
        raise UnsupportedFormatError("layer normalisation with rms_scaling is not supported")
    x, rank = floating(x), len(x.shape)
    axes = axes_of(axis, rank, "layer_normalization")
    centred = ops.subtract(x, ops.mean(x, axes, True))
    scaled = ops.add(ops.mean(ops.square(centred), axes, True), _EPSILON if epsilon is None else epsilon)
    y = ops.multiply(centred, ops.rsqrt(scaled))
    y = y if gamma is None else ops.multiply(y, along(gamma, axes, rank))
    return y if beta is None else ops.add(y, along(beta, axes, rank))


@layer("ops.RMSNorm")
def rms_norm(x: Array, scale: Array | None = None, /, axis: Any = -1, epsilon: float | None = None) -> Array:
    """x / sqrt(mean(x²) + epsilon) · scale over axes."""
    axes = axes_of(axis, len(x.shape), "rms_normalization")
    mean = ops.mean(ops.square(floating(x)), axes, True)
    y = ops.multiply(x, ops.rsqrt(ops.add(mean, _EPSILON if epsilon is None else epsilon)))
    return y if scale is None else ops.multiply(y, along(scale, axes, len(x.shape)))


@layer("ops.BatchNorm")
def batch_norm(
    x: Array,
    mean: Array,
    variance: Array,
    offset: Array | None = None,
    scale: Array | None = None,
    /,
    axis: int = -1,
    epsilon: float = 1e-3,
) -> Array:
    """(x - mean) / sqrt(variance + epsilon) · scale + offset, for each position of an axis."""
    place = axes_of(axis, len(x.shape), "batch_normalization")[0]
    return ops.moveaxis(
        ops.batch_norm(ops.moveaxis(floating(x), place, 1), mean, variance, scale, offset, epsilon), 1, place
    )


# -- windows ------------------------------------------------------------------------------------------


def _declare_pool(name: str, average: bool) -> None:
    @layer(f"ops.{name}")
    def pool(
        inputs: Array, /, pool_size: Any, strides: Any = None, padding: str = "valid", data_format: str | None = None
    ) -> Array:
        """The maximum or average of each window."""
        x, rank = to_first(inputs, data_format, name), len(inputs.shape) - 2
        y = pool_windows(x, rank, average, pool_size, strides, padding, name)
        return from_first(y, data_format, name)


_declare_pool("MaxPool", False)
_declare_pool("AveragePool", True)


@layer("ops.Conv")
def conv(
    inputs: Array,
    kernel: Array,
    /,
    strides: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Any = 1,
) -> Array:
    """A convolution by a kernel (size…, inputs, outputs); groups follow from the sizes."""
    x = to_first(inputs, data_format, "conv")
    channels, taken = int(x.shape[1]), int(kernel.shape[-2])
    if taken < 1 or channels % taken:
        raise ArgumentError("conv: the kernel does not fit the channels", expected=channels, received=taken)
    y = convolve(x, kernel, None, strides, padding, dilation_rate, channels // taken, "conv")
    return from_first(y, data_format, "conv")
