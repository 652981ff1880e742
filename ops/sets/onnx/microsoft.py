"""Operators of com.microsoft that optimised models have: fused ones, those with channels last, and others.

Source: ONNX Runtime's documentation of contributed operators.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError
from zoonet.ops.sets.onnx.arithmetic import number
from zoonet.ops.sets.onnx.common import scalar
from zoonet.ops.sets.onnx.elementwise import softmax_2d
from zoonet.ops.sets.onnx.indexing import gather_nd, unique
from zoonet.ops.sets.onnx.linear import product
from zoonet.ops.sets.onnx.registry import onnx_operator
from zoonet.ops.sets.onnx.resampling import grid_sample_16
from zoonet.ops.sets.onnx.shape import number_range, pad_11, trilu_of
from zoonet.ops.sets.onnx.windows import conv, max_pool
from zoonet.ops.types import Array

DOMAIN = "com.microsoft"


def declared(*names: str, variadic: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Declare an operator of this domain."""
    return onnx_operator(*names, domain=DOMAIN, variadic=variadic)


@declared("Gelu")
def gelu(X: Array, /) -> Array:
    """x Φ(x), by the error function."""
    return ops.gelu(X)


@declared("BiasGelu")
def bias_gelu(A: Array, B: Array, /) -> Array:
    """Gelu of the sum with a bias."""
    return ops.gelu(ops.add(A, B))


@declared("FastGelu")
def fast_gelu(X: Array, bias: Array | None = None, /) -> Array:
    """Gelu by tanh, of the sum with a bias."""
    return ops.gelu(X if bias is None else ops.add(X, bias), "tanh")


@declared("GemmFastGelu")
def gemm_fast_gelu(X: Array, W: Array, bias: Array | None = None, /) -> Array:
    """Gelu by tanh of a product, plus a bias."""
    y = ops.matmul(X, W)
    return ops.gelu(y if bias is None else ops.add(y, bias), "tanh")


@declared("QuickGelu")
def quick_gelu(X: Array, /, alpha: float = 1.702) -> Array:
    """x σ(alpha x)."""
    return ops.multiply(X, ops.sigmoid(ops.multiply(X, number(alpha, X.dtype))))


def activated(x: Array, activation: str, parameters: Sequence[float]) -> Array:
    """The activation that a fused operator ends with."""
    values = list(parameters)
    functions: dict[str, Callable[[], Array]] = {
        "": lambda: x,
        "Relu": lambda: ops.relu(x),
        "Tanh": lambda: ops.tanh(x),
        "Sigmoid": lambda: ops.sigmoid(x),
        "LeakyRelu": lambda: ops.leaky_relu(x, values[0]),
        "Clip": lambda: ops.clip(x, values[0], values[1]),
        "HardSigmoid": lambda: ops.clip(
            ops.add(ops.multiply(x, number(values[0], x.dtype)), number(values[1], x.dtype)), 0.0, 1.0
        ),
    }
    if activation not in functions:
        raise ArgumentError(
            "unknown fused activation", expected=", ".join(filter(None, functions)), received=activation
        )
    return functions[activation]()


@declared("FusedConv")
def fused_conv(
    X: Array,
    W: Array,
    B: Array | None = None,
    Z: Array | None = None,
    /,
    activation: str = "",
    activation_params: Sequence[float] | None = None,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """A convolution, plus Z, through an activation."""
    y = conv(X, W, B, auto_pad, dilations, group, kernel_shape, pads, strides)
    return activated(y if Z is None else ops.add(y, Z), activation, activation_params or ())


@declared("FusedGemm")
def fused_gemm(
    A: Array,
    B: Array,
    C: Array | None = None,
    /,
    activation: str = "",
    activation_alpha: float = 0.01,
    activation_beta: float = 0.0,
    activation_gamma: float = 0.0,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Array:
    """Gemm through an activation."""
    return activated(product(A, B, C, alpha, beta, transA, transB), activation, (activation_alpha, activation_beta))


@declared("FusedMatMul", "TransposeMatMul")
def fused_matmul(
    A: Array,
    B: Array,
    /,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    transBatchA: int = 0,
    transBatchB: int = 0,
) -> Array:
    """alpha · A' B'; transBatch moves the axis before the last to the front of the batch axes."""
    a, b = _turned(A, transA, transBatchA), _turned(B, transB, transBatchB)
    y = ops.matmul(a, b)
    return y if alpha == 1.0 else ops.multiply(y, number(alpha, y.dtype))


def _turned(x: Array, transposed: int, batch: int) -> Array:
    rank = len(x.shape)
    if batch and rank > 2:
        x = ops.transpose(x, (*range(1, rank - 1), 0, rank - 1))
    return ops.swapaxes(x, -1, -2) if transposed and rank > 1 else x


@declared("SkipLayerNormalization")
def skip_layer_norm(
    input: Array,
    skip: Array,
    gamma: Array,
    beta: Array | None = None,
    bias: Array | None = None,
    /,
    epsilon: float = 1e-12,
    outputs: int = 1,
) -> tuple[Any, ...]:
    """The layer norm of input + skip + bias; the fourth output is that sum."""
    total = ops.add(input, skip) if bias is None else ops.add(ops.add(input, skip), bias)
    return ops.layer_norm(total, tuple(gamma.shape), gamma, beta, epsilon), None, None, total


@declared("SkipSimplifiedLayerNormalization")
def skip_rms_norm(
    input: Array, skip: Array, gamma: Array, bias: Array | None = None, /, epsilon: float = 1e-12, outputs: int = 1
) -> tuple[Any, ...]:
    """The RMS norm of input + skip + bias; the fourth output is that sum."""
    total = ops.add(input, skip) if bias is None else ops.add(ops.add(input, skip), bias)
    return ops.rms_norm(total, tuple(gamma.shape), gamma, epsilon), None, None, total


# -- pictures with channels last ---------------------------------------------------------------------------------


def channels_first(x: Array) -> Array:
    """(N, spatial…, C) -> (N, C, spatial…)."""
    rank = len(x.shape)
    return ops.transpose(x, (0, rank - 1, *range(1, rank - 1)))


def channels_last(x: Array) -> Array:
    """(N, C, spatial…) -> (N, spatial…, C)."""
    return ops.transpose(x, (0, *range(2, len(x.shape)), 1))


@declared("NhwcConv")
def nhwc_conv(
    X: Array,
    W: Array,
    B: Array | None = None,
    /,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """A convolution of X (N, spatial…, C) with W (M, C/group, kernel…): (N, spatial…, M)."""
    return channels_last(conv(channels_first(X), W, B, auto_pad, dilations, group, kernel_shape, pads, strides))


@declared("NhwcFusedConv")
def nhwc_fused_conv(
    X: Array,
    W: Array,
    B: Array | None = None,
    Z: Array | None = None,
    /,
    activation: str = "",
    activation_params: Sequence[float] | None = None,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """NhwcConv, plus Z, through an activation."""
    y = nhwc_conv(X, W, B, auto_pad, dilations, group, kernel_shape, pads, strides)
    return activated(y if Z is None else ops.add(y, Z), activation, activation_params or ())


@declared("NhwcMaxPool")
def nhwc_max_pool(
    x: Array,
    /,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """The maximum of each window of x (N, spatial…, C)."""
    (y,) = max_pool(channels_first(x), auto_pad, ceil_mode, dilations, kernel_shape, pads, 0, strides, 1)
    return channels_last(y)


def _group_norm(x: Array, gamma: Array, beta: Array, groups: int, epsilon: float, last: int, activation: int) -> Array:
    data = channels_first(x) if last else x
    scale, shift = ops.cast(gamma, x.dtype), ops.cast(beta, x.dtype)
    y = ops.group_norm(data, groups, scale, shift, epsilon)
    if activation not in (0, 1):
        raise ArgumentError("GroupNorm: unknown activation", expected="0 (none) or 1 (SiLU)", received=activation)
    y = ops.silu(y) if activation else y
    return channels_last(y) if last else y


@declared("GroupNorm")
def group_norm(
    X: Array,
    gamma: Array,
    beta: Array,
    /,
    activation: int = 0,
    groups: int = 0,
    channels_last: int = 1,
    epsilon: float = 1e-5,
) -> Array:
    """Groups of channels normalised together, through SiLU where activation is 1."""
    return _group_norm(X, gamma, beta, groups, epsilon, channels_last, activation)


@declared("SkipGroupNorm")
def skip_group_norm(
    X: Array,
    gamma: Array,
    beta: Array,
    skip: Array,
    bias: Array | None = None,
    /,
    activation: int = 0,
    groups: int = 0,
    channels_last: int = 1,
    epsilon: float = 1e-5,
    outputs: int = 1,
) -> tuple[Array, ...]:
    """GroupNorm of X + skip + bias, and that sum. skip: as X, or one value for each picture and channel."""
    around = [1] * (len(X.shape) - 2)
    if len(skip.shape) == 2:
        shape = (skip.shape[0], *around, skip.shape[1]) if channels_last else (*skip.shape, *around)
        skip = ops.reshape(skip, shape)
    total = ops.add(X, skip)
    if bias is not None:
        total = ops.add(total, bias if channels_last else ops.reshape(bias, (-1, *around)))
    return _group_norm(total, gamma, beta, groups, epsilon, channels_last, activation), total


# -- others ------------------------------------------------------------------------------------------------------


@declared("BiasSoftmax")
def bias_softmax(data: Array, bias: Array, /, is_inner_broadcast: int, axis: int = 1) -> Array:
    """The softmax over the axes from `axis` on of data plus a bias, which lacks axes inside or in front of them."""
    rank = len(data.shape)
    axis = axis % max(rank, 1)
    if is_inner_broadcast and len(bias.shape) < rank:
        outer = len(bias.shape) - (rank - axis)
        bias = ops.reshape(bias, (*bias.shape[:outer], *[1] * (rank - len(bias.shape)), *bias.shape[outer:]))
    return softmax_2d(ops.softmax, ops.add(data, bias), axis)


@declared("BiasAdd")
def bias_add(X: Array, bias: Array, skip: Array, /) -> Array:
    """X plus a bias of its last axis plus skip."""
    return ops.add(ops.add(X, bias), skip)


@declared("BiasSplitGelu")
def bias_split_gelu(X: Array, bias: Array, /) -> Array:
    """Of X + bias the first half of the last axis times the Gelu of the second."""
    first, second = ops.split(ops.add(X, bias), 2, -1)
    return ops.multiply(first, ops.gelu(second))


@declared("Inverse")
def inverse(X: Array, /) -> Array:
    """The inverse matrices."""
    return ops.inv(X)


@declared("CDist")
def cdist(A: Array, B: Array, /, metric: str = "sqeuclidean") -> Array:
    """The distances of the rows of A (M, N) and B (K, N): (M, K)."""
    if metric not in ("sqeuclidean", "euclidean"):
        raise ArgumentError("CDist: unknown metric", expected="sqeuclidean or euclidean", received=metric)
    squares = ops.sum(ops.square(ops.subtract(ops.expand_dims(A, 1), ops.expand_dims(B, 0))), -1)
    return squares if metric == "sqeuclidean" else ops.sqrt(squares)


@declared("ExpandDims")
def expand_dims(X: Array, axis: Array, /) -> Array:
    """X with a new axis of size 1."""
    return ops.expand_dims(X, int(scalar(axis, "the axis of ExpandDims")))


@declared("Range")
def range_(start: Array, limit: Array, delta: Array | None = None, /) -> Array:
    """Numbers from start to limit by delta, 1 by default."""
    return number_range(start, limit, np.ones((), start.dtype) if delta is None else delta, False)


@declared("IsAllFinite", variadic=True)
def is_all_finite(input: Sequence[Array], /, isinf_only: int = 0, isnan_only: int = 0) -> Array:
    """Whether no operand has an infinity or NaN, or one of the two alone."""
    found = []
    for x in input:
        kinds = [] if isnan_only else [ops.isinf(x)]
        kinds += [] if isinf_only else [ops.isnan(x)]
        found += [ops.any(kind) for kind in kinds]
    return ops.logical_not(functools.reduce(ops.logical_or, found))


@declared("Rfft")
def rfft(X: Array, /, normalized: int = 0, onesided: int = 1, signal_ndim: int = 1) -> Array:
    """Half of the frequencies of real signals on the last axis, as pairs."""
    _one_axis(normalized, onesided, signal_ndim)
    return ops.dft(ops.expand_dims(X, -1), -2, None, False, True)


@declared("Irfft")
def irfft(X: Array, /, signal_ndim: int, normalized: int = 0, onesided: int = 1) -> Array:
    """The real signals of half of their frequencies, given as pairs."""
    _one_axis(normalized, onesided, signal_ndim)
    return ops.squeeze(ops.dft(X, -2, None, True, True), -1)


def _one_axis(normalized: int, onesided: int, signal_ndim: int) -> None:
    if (normalized, onesided, signal_ndim) != (0, 1, 1):
        raise ArgumentError(
            "Rfft and Irfft are one-sided, of one axis and not normalised",
            expected="normalized=0, onesided=1, signal_ndim=1",
            received=(normalized, onesided, signal_ndim),
        )


@declared("Unique")
def unique_in_order(x: Array, /, outputs: int = 3) -> tuple[Array, ...]:
    """The distinct elements in the order in which they come, which each element is, and how often each comes."""
    values, _, places, counts = unique(x, None, 0, 4)
    return values, places, counts


@declared("Pad")
def pad(data: Array, pads: Array, value: Array | None = None, /, mode: str = "constant") -> Array:
    """The data padded on each axis."""
    return pad_11(data, ops.reshape(pads, (-1,)), value, mode)


declared("Trilu")(trilu_of)
declared("GridSample")(grid_sample_16)
declared("GatherND")(gather_nd)
