"""com.microsoft: operators of quantised numbers, and products with weights of few bits.

Source: ONNX Runtime's documentation of contributed operators.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.sets.onnx.arithmetic import number
from zoonet.ops.sets.onnx.common import affordable, concrete, normalized_axis
from zoonet.ops.sets.onnx.elementwise import softmax_2d
from zoonet.ops.sets.onnx.microsoft import channels_first, declared
from zoonet.ops.sets.onnx.microsoft import channels_last as last_channels
from zoonet.ops.sets.onnx.quantization import dequantized, dynamic_quantize, qlinear_conv, quantized, rounded
from zoonet.ops.sets.onnx.windows import average_pool, shifted
from zoonet.ops.types import Array


@declared("QuantizeLinear")
def quantize(x: Array, y_scale: Array, y_zero_point: Array | None = None, /, axis: int = 1) -> Array:
    """As that of ai.onnx, for 16 bits and fewer."""
    return quantized(x, y_scale, y_zero_point, axis)


@declared("DequantizeLinear")
def dequantize(x: Array, x_scale: Array, x_zero_point: Array | None = None, /, axis: int = 1) -> Array:
    """As that of ai.onnx, for 16 bits and fewer."""
    return dequantized(x, x_scale, x_zero_point, axis)


@declared("QGemm")
def qgemm(
    A: Array,
    a_scale: Array,
    a_zero_point: Array,
    B: Array,
    b_scale: Array,
    b_zero_point: Array,
    C: Array | None = None,
    y_scale: Array | None = None,
    y_zero_point: Array | None = None,
    /,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Array:
    """alpha · A' B' + C of quantised matrices, quantised where there is a scale for it, else float32. C is int32."""
    a, b = shifted(A, a_zero_point, -2), shifted(B, b_zero_point, -2 if transB else -1)
    sums = ops.matmul(ops.swapaxes(a, 0, 1) if transA else a, ops.swapaxes(b, 0, 1) if transB else b)
    if C is not None:
        sums = ops.add(sums, C)
    factor = ops.multiply(ops.multiply(a_scale, b_scale), number(alpha, a_scale.dtype))
    real = ops.multiply(ops.cast(sums, np.float32), factor)
    if y_scale is None or y_zero_point is None:
        return real
    return rounded(ops.divide(real, y_scale), y_zero_point, y_zero_point.dtype)


def _elementwise(function: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    def operator(
        A: Array,
        A_scale: Array,
        A_zero_point: Array | None,
        B: Array,
        B_scale: Array,
        B_zero_point: Array | None,
        C_scale: Array,
        C_zero_point: Array | None = None,
        /,
    ) -> Array:
        y = function(dequantized(A, A_scale, A_zero_point, 1), dequantized(B, B_scale, B_zero_point, 1))
        return rounded(ops.divide(y, C_scale), C_zero_point, A.dtype)

    return operator


declared("QLinearAdd")(_elementwise(ops.add))
declared("QLinearMul")(_elementwise(ops.multiply))


def _unary(function: Callable[[Array], Array], x: Array, scales: tuple[Array, ...], zeros: tuple[Any, Any]) -> Array:
    y = function(dequantized(x, scales[0], zeros[0], 1))
    return rounded(ops.divide(y, scales[1]), zeros[1], x.dtype)


@declared("QLinearSigmoid")
def qlinear_sigmoid(
    X: Array, X_scale: Array, X_zero_point: Array | None, Y_scale: Array, Y_zero_point: Array | None = None, /
) -> Array:
    """The sigmoid of quantised numbers, quantised."""
    return _unary(ops.sigmoid, X, (X_scale, Y_scale), (X_zero_point, Y_zero_point))


@declared("QLinearLeakyRelu")
def qlinear_leaky_relu(
    X: Array,
    X_scale: Array,
    X_zero_point: Array | None,
    Y_scale: Array,
    Y_zero_point: Array | None = None,
    /,
    alpha: float = 0.01,
) -> Array:
    """The leaky ReLU of quantised numbers, quantised."""
    return _unary(lambda x: ops.leaky_relu(x, alpha), X, (X_scale, Y_scale), (X_zero_point, Y_zero_point))


@declared("QLinearGlobalAveragePool")
def qlinear_global_average_pool(
    X: Array, x_scale: Array, x_zero_point: Array, y_scale: Array, y_zero_point: Array, /, channels_last: int = 0
) -> Array:
    """The mean over the spatial axes of quantised pictures, quantised."""
    rank = len(X.shape)
    axes = tuple(range(1, rank - 1)) if channels_last else tuple(range(2, rank))
    return _unary(lambda x: ops.mean(x, axes, True), X, (x_scale, y_scale), (x_zero_point, y_zero_point))


@declared("QLinearConcat", variadic=True)
def qlinear_concat(inputs: Sequence[Array], /, axis: int) -> Array:
    """Quantised tensors joined along an axis and quantised anew: scale and zero point of the result, then triples."""
    scale, zero, rest = inputs[0], inputs[1], inputs[2:]
    triples = [rest[i : i + 3] for i in range(0, len(rest), 3)]
    whole = ops.concat([dequantized(x, s, z, 1) for x, s, z in triples], axis)
    return rounded(ops.divide(whole, scale), zero, zero.dtype)


@declared("MatMulIntegerToFloat")
def matmul_integer_to_float(
    A: Array,
    B: Array,
    a_scale: Array,
    b_scale: Array,
    a_zero_point: Array | None = None,
    b_zero_point: Array | None = None,
    bias: Array | None = None,
    /,
) -> Array:
    """The product of quantised matrices in float32, plus a bias."""
    sums = ops.matmul(shifted(A, a_zero_point, -2), shifted(B, b_zero_point, -1))
    y = functools.reduce(ops.multiply, [ops.cast(sums, np.float32), a_scale, b_scale])
    return y if bias is None else ops.add(y, bias)


@declared("DynamicQuantizeMatMul")
def dynamic_quantize_matmul(
    A: Array, B: Array, b_scale: Array, b_zero_point: Array | None = None, bias: Array | None = None, /
) -> Array:
    """The product of a matrix, quantised as it comes, and a quantised one."""
    quantised, scale, zero = dynamic_quantize(A)
    sums = ops.matmul(shifted(quantised, zero, -2), shifted(B, b_zero_point, -1))
    y = functools.reduce(ops.multiply, [ops.cast(sums, np.float32), scale, b_scale])
    return y if bias is None else ops.add(y, bias)


@declared("QLinearConv")
def qlinear_convolution(
    x: Array,
    x_scale: Array,
    x_zero_point: Array,
    w: Array,
    w_scale: Array,
    w_zero_point: Array,
    y_scale: Array,
    y_zero_point: Array,
    B: Array | None = None,
    /,
    auto_pad: str = "NOTSET",
    channels_last: int = 0,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """As that of ai.onnx; with channels_last x and the result are (N, spatial…, C)."""
    data = channels_first(x) if channels_last else x
    y = qlinear_conv(
        data, x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point, B, auto_pad, dilations, group,
        kernel_shape, pads, strides,
    )  # fmt: skip
    return last_channels(y) if channels_last else y


@declared("QLinearAveragePool")
def qlinear_average_pool(
    X: Array,
    x_scale: Array,
    x_zero_point: Array | None,
    y_scale: Array,
    y_zero_point: Array | None = None,
    /,
    kernel_shape: Sequence[int] | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    channels_last: int = 0,
    count_include_pad: int = 0,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """The average of each window of quantised numbers, quantised."""

    def pooled(x: Array) -> Array:
        data = channels_first(x) if channels_last else x
        y: Array = average_pool(data, auto_pad, ceil_mode, count_include_pad, None, kernel_shape, pads, strides)
        return last_channels(y) if channels_last else y

    return _unary(pooled, X, (x_scale, y_scale), (x_zero_point, y_zero_point))


@declared("QLinearReduceMean")
def qlinear_reduce_mean(
    data: Array,
    data_scale: Array,
    data_zero_point: Array | None,
    reduced_scale: Array,
    reduced_zero_point: Array | None = None,
    /,
    axes: Sequence[int] = (),
    keepdims: int = 1,
) -> Array:
    """The mean of quantised numbers over axes, quantised."""
    return _unary(
        lambda x: ops.mean(x, tuple(axes) or None, bool(keepdims)),
        data,
        (data_scale, reduced_scale),
        (data_zero_point, reduced_zero_point),
    )


@declared("QLinearSoftmax")
def qlinear_softmax(
    X: Array,
    X_scale: Array,
    x_zero_point: Array | None,
    y_scale: Array,
    y_zero_point: Array,
    /,
    opset: int,
    axis: int = -1,
) -> Array:
    """The softmax of quantised numbers, quantised; over one axis, or below opset 13 over all from it on."""

    def function(x: Array) -> Array:
        return ops.softmax(x, axis) if opset >= 13 else softmax_2d(ops.softmax, x, axis)

    return _unary(function, X, (X_scale, y_scale), (x_zero_point, y_zero_point))


@declared("QLinearWhere")
def qlinear_where(
    condition: Array,
    X: Array,
    x_scale: Array,
    x_zero_point: Array,
    Y: Array,
    y_scale: Array,
    y_zero_point: Array,
    z_scale: Array,
    z_zero_point: Array,
    /,
) -> Array:
    """X where the condition holds, else Y, quantised anew."""
    chosen = ops.where(condition, dequantized(X, x_scale, x_zero_point, 1), dequantized(Y, y_scale, y_zero_point, 1))
    return rounded(ops.divide(chosen, z_scale), z_zero_point, z_zero_point.dtype)


@declared("MulInteger")
def mul_integer(A: Array, A_zero_point: Array | None, B: Array, B_zero_point: Array | None = None, /) -> Array:
    """The product of 8-bit integers in int32, after their zero points were subtracted."""
    return ops.multiply(shifted(A, A_zero_point, 0), shifted(B, B_zero_point, 0))


@declared("MatMulInteger16")
def matmul_integer_16(A: Array, B: Array, /) -> Array:
    """The product of matrices of int16, in int32."""
    return ops.matmul(ops.cast(A, np.int32), ops.cast(B, np.int32))


# -- weights of few bits -----------------------------------------------------------------------------------------


def unpacked(data: Array, bits: int) -> Array:
    """Numbers of so many bits, several in each byte, the first in its lowest bits: more on the last axis."""
    if bits == 8:
        return data
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    parts = ops.bitwise_right_shift(ops.expand_dims(data, -1), shifts)
    parts = ops.bitwise_and(parts, np.asarray(2**bits - 1, np.uint8))
    return ops.reshape(parts, (*data.shape[:-1], data.shape[-1] * len(shifts)))


def _bits(bits: int, operator: str) -> int:
    if bits not in (2, 4, 8):
        raise ArgumentError(f"{operator}: bits is not supported", expected="2, 4 or 8", received=bits)
    return bits


@declared("MatMulNBits")
def matmul_n_bits(
    A: Array,
    B: Array,
    scales: Array,
    zero_points: Array | None = None,
    g_idx: Array | None = None,
    bias: Array | None = None,
    /,
    K: int = 0,
    N: int = 0,
    block_size: int = 0,
    accuracy_level: int = 0,
    bits: int = 4,
    weight_prepacked: int = 0,
) -> Array:
    """A (…, K) times the transpose of a weight (N, K) stored in few bits, in blocks along K with a scale each."""
    if block_size < 1 or K < 1 or N < 1 or weight_prepacked:
        raise ArgumentError("MatMulNBits: impossible sizes, or a weight packed for another device", received=(K, N))
    blocks = -(-K // block_size)
    width = block_size * _bits(bits, "MatMulNBits") // 8
    if tuple(B.shape) != (N, blocks, width) or math.prod(scales.shape) != N * blocks or A.shape[-1] != K:
        raise ShapeError(
            "MatMulNBits: shapes do not fit",
            expected=f"A (…, {K}), B {(N, blocks, width)}, {N * blocks} scales",
            received=f"{tuple(A.shape)}, {tuple(B.shape)}, {tuple(scales.shape)}",
        )
    affordable((N, blocks * block_size), A.dtype, "MatMulNBits")
    numbers = ops.cast(unpacked(B, bits), A.dtype)  # (N, blocks, block_size)
    scale = ops.reshape(scales, (N, blocks, 1))
    zero: Any = number(2 ** (bits - 1), A.dtype)
    if zero_points is not None and zero_points.dtype == np.uint8:
        rows = unpacked(ops.reshape(zero_points, (N, -1)), bits)
        zero = ops.cast(ops.expand_dims(ops.index(rows, (slice(None), slice(0, blocks))), -1), A.dtype)
    elif zero_points is not None:
        zero = ops.reshape(zero_points, (N, blocks, 1))
    if g_idx is None:
        weight = ops.multiply(ops.subtract(numbers, zero), scale)
    else:
        groups = ops.index(g_idx, slice(0, K))
        spread = [ops.squeeze(ops.broadcast_to(part, (N, blocks, 1)), -1) for part in (zero, scale)]
        zero, scale = (ops.take(part, groups, 1) for part in spread)
        flat = ops.index(ops.reshape(numbers, (N, blocks * block_size)), (slice(None), slice(0, K)))
        weight = ops.multiply(ops.subtract(flat, zero), scale)
    weight = ops.index(ops.reshape(weight, (N, -1)), (slice(None), slice(0, K)))
    y = ops.matmul(A, ops.swapaxes(weight, 0, 1))
    return y if bias is None else ops.add(y, bias)


@declared("GatherBlockQuantized")
def gather_block_quantized(
    data: Array,
    indices: Array,
    scales: Array,
    zero_points: Array | None = None,
    /,
    bits: int = 4,
    block_size: int = 128,
    gather_axis: int = 0,
    quantize_axis: int = 1,
) -> Array:
    """Slices of a table that is stored in few bits, in blocks along an axis with a scale each."""
    packed = data.dtype == np.uint8
    rank = len(data.shape)
    gather, along = normalized_axis(gather_axis, rank, "Gather"), normalized_axis(quantize_axis, rank, "Gather")
    if block_size < 1 or (packed and gather == along):
        raise ArgumentError("GatherBlockQuantized: block_size or axes are not supported", received=block_size)

    def numbers(x: Array) -> Array:
        return unpacked(x, _bits(bits, "GatherBlockQuantized")) if packed else x

    size = data.shape[gather]
    places = concrete(indices, "the indices of GatherBlockQuantized").astype(np.int64)
    inside = (places >= -size) & (places < size)
    safe = np.where(inside, places % max(size, 1), 0)

    def whole(x: Array) -> Array:
        """All elements of what holds for blocks."""
        return ops.index(ops.repeat(x, block_size, along), (*[slice(None)] * along, slice(0, values.shape[along])))

    if gather == along:
        values = ops.cast(data, scales.dtype)
        zero = 0 if zero_points is None else whole(ops.cast(zero_points, scales.dtype))
        table = ops.multiply(ops.subtract(values, zero), whole(scales))
        result = ops.take(table, safe, gather)
    else:
        scale = ops.take(scales, safe, gather)
        along += places.ndim - 1 if along > gather else 0
        values = ops.cast(numbers(ops.take(data, safe, gather)), scales.dtype)
        zero = number(2 ** (bits - 1) if packed else 0, scales.dtype)
        if zero_points is not None:
            points = numbers(ops.take(zero_points, safe, gather))
            points = ops.index(points, (*[slice(None)] * along, slice(0, scale.shape[along])))
            zero = whole(ops.cast(points, scales.dtype))
        result = ops.multiply(ops.subtract(values, zero), whole(scale))
    if inside.all():
        return result
    shape = [1] * gather + list(places.shape) + [1] * (rank - gather - 1)
    return ops.where(inside.reshape(shape), result, number(0, result.dtype))
