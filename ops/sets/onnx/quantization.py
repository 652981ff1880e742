"""Quantised numbers: QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear, QLinearMatMul, QLinearConv."""

from __future__ import annotations

from collections.abc import Sequence

import ml_dtypes
import numpy as np

from zoonet import ops
from zoonet.ops.errors import ShapeError
from zoonet.ops.sets.onnx.arithmetic import number
from zoonet.ops.sets.onnx.casting import converted
from zoonet.ops.sets.onnx.common import dtype_of, normalized_axis
from zoonet.ops.sets.onnx.registry import declare, onnx_operator
from zoonet.ops.sets.onnx.windows import conv, shifted
from zoonet.ops.types import INTEGER, Array, DType, kind_of


def spread(parameter: Array, x: Array, axis: int, block: int) -> Array:
    """A scale or zero point for every element: of the tensor, of each index along an axis, or of blocks along it."""
    if int(np.prod(parameter.shape)) == 1:
        return ops.reshape(parameter, ())
    axis = normalized_axis(axis, len(x.shape), "QuantizeLinear")
    if (len(parameter.shape) == 1 and len(x.shape) != 1) or (len(x.shape) == 1 and not block):
        if parameter.shape[0] != x.shape[axis]:
            raise ShapeError("the scale does not fit", expected=[x.shape[axis]], received=list(parameter.shape))
        return ops.reshape(parameter, [-1 if i == axis else 1 for i in range(len(x.shape))])
    size = block or -(-x.shape[axis] // parameter.shape[axis])
    wide = ops.repeat(parameter, size, axis)
    if wide.shape[axis] < x.shape[axis]:
        raise ShapeError("the blocks of the scale do not cover the tensor", received=list(parameter.shape))
    if wide.shape[axis] == x.shape[axis]:
        return wide
    return ops.take(wide, np.arange(x.shape[axis]), axis)


def rounded(x: Array, zero_point: Array | None, to: DType, saturate: bool = True) -> Array:
    """Numbers rounded to even, moved by the zero point and held within the range of an integer type, or cast.

    NaN becomes the lowest integer, as in ONNX Runtime: masks of -inf, whose scale is infinite, are quantised so.
    """
    if kind_of(to) != INTEGER:
        return converted(x, to, saturate)
    limits = ml_dtypes.iinfo(to)  # type: ignore[no-untyped-call]
    wide = ops.cast(ops.round(ops.cast(x, np.float64)), np.float64)
    if zero_point is not None:
        wide = ops.add(wide, ops.cast(zero_point, np.float64))
    low = np.asarray(limits.min, np.float64)
    return ops.cast(ops.minimum(ops.where(ops.greater(wide, low), wide, low), float(limits.max)), to)


def quantized(
    x: Array,
    y_scale: Array,
    y_zero_point: Array | None,
    axis: int,
    saturate: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
) -> Array:
    """saturate(round(x / scale) + zero point)."""
    to = y_zero_point.dtype if y_zero_point is not None else dtype_of(output_dtype) if output_dtype else np.dtype("u1")
    kind = dtype_of(precision) if precision else y_scale.dtype
    if x.dtype == np.int32 and not precision:
        kind = y_scale.dtype
    scale = ops.cast(spread(y_scale, x, axis, block_size), kind)
    zero = None if y_zero_point is None else spread(y_zero_point, x, axis, block_size)
    return rounded(ops.divide(ops.cast(x, kind), scale), zero, to, bool(saturate))


def dequantized(
    x: Array, x_scale: Array, x_zero_point: Array | None, axis: int, block_size: int = 0, output_dtype: int = 0
) -> Array:
    """(x - zero point) · scale."""
    kind = dtype_of(output_dtype) if output_dtype else x_scale.dtype
    wide = np.int32 if kind_of(x.dtype) == INTEGER else np.float32
    value = ops.cast(x, wide)
    if x_zero_point is not None:
        value = ops.subtract(value, ops.cast(spread(x_zero_point, x, axis, block_size), wide))
    scale = ops.cast(spread(x_scale, x, axis, block_size), np.float32 if kind.itemsize < 4 else kind)
    return ops.cast(ops.multiply(ops.cast(value, scale.dtype), scale), kind)


def quantize_10(x: Array, y_scale: Array, y_zero_point: Array | None = None, /) -> Array:
    """saturate(round(x / y_scale) + y_zero_point), of the whole tensor."""
    return quantized(x, y_scale, y_zero_point, 1)


def quantize_13(x: Array, y_scale: Array, y_zero_point: Array | None = None, /, axis: int = 1) -> Array:
    """saturate(round(x / y_scale) + y_zero_point), by tensor or axis."""
    return quantized(x, y_scale, y_zero_point, axis)


def quantize_19(
    x: Array, y_scale: Array, y_zero_point: Array | None = None, /, axis: int = 1, saturate: int = 1
) -> Array:
    """As version 13, to floats of 8 bits too."""
    return quantized(x, y_scale, y_zero_point, axis, saturate)


def quantize_21(
    x: Array,
    y_scale: Array,
    y_zero_point: Array | None = None,
    /,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    saturate: int = 1,
) -> Array:
    """As version 19, by blocks too."""
    return quantized(x, y_scale, y_zero_point, axis, saturate, block_size, output_dtype)


def quantize_23(
    x: Array,
    y_scale: Array,
    y_zero_point: Array | None = None,
    /,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Array:
    """As version 21; precision: the type of the division."""
    return quantized(x, y_scale, y_zero_point, axis, saturate, block_size, output_dtype, precision)


declare("QuantizeLinear", quantize_10, (10,))
declare("QuantizeLinear", quantize_13, (13,))
declare("QuantizeLinear", quantize_19, (19,))
declare("QuantizeLinear", quantize_21, (21,))
declare("QuantizeLinear", quantize_23, (23, 24, 25, 28))


def dequantize_10(x: Array, x_scale: Array, x_zero_point: Array | None = None, /) -> Array:
    """(x - x_zero_point) · x_scale, of the whole tensor."""
    return dequantized(x, x_scale, x_zero_point, 1)


def dequantize_13(x: Array, x_scale: Array, x_zero_point: Array | None = None, /, axis: int = 1) -> Array:
    """(x - x_zero_point) · x_scale, by tensor or axis."""
    return dequantized(x, x_scale, x_zero_point, axis)


def dequantize_21(
    x: Array, x_scale: Array, x_zero_point: Array | None = None, /, axis: int = 1, block_size: int = 0
) -> Array:
    """As version 13, by blocks too."""
    return dequantized(x, x_scale, x_zero_point, axis, block_size)


def dequantize_23(
    x: Array,
    x_scale: Array,
    x_zero_point: Array | None = None,
    /,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Array:
    """As version 21, in the type of output_dtype."""
    return dequantized(x, x_scale, x_zero_point, axis, block_size, output_dtype)


declare("DequantizeLinear", dequantize_10, (10,))
declare("DequantizeLinear", dequantize_13, (13, 19))
declare("DequantizeLinear", dequantize_21, (21,))
declare("DequantizeLinear", dequantize_23, (23, 24, 25, 28))


def dynamic_quantize(x: Array, /, outputs: int = 3) -> tuple[Array, ...]:
    """x in uint8 over the range that it has (with zero), and the scale and zero point."""
    zero = number(0, x.dtype)
    low, high = ops.minimum(ops.min(x), zero), ops.maximum(ops.max(x), zero)
    scale = ops.divide(ops.subtract(high, low), number(255, x.dtype))
    scale = ops.where(ops.equal(scale, zero), number(1, x.dtype), scale)
    point = ops.cast(ops.clip(ops.round(ops.divide(ops.negative(low), scale)), 0.0, 255.0), np.uint8)
    return rounded(ops.divide(x, scale), point, np.dtype(np.uint8)), scale, point


declare("DynamicQuantizeLinear", dynamic_quantize, (11,))


def _factor(a: Array, b: Array, y: Array) -> Array:
    wide = [ops.cast(scale, np.float32) for scale in (a, b, y)]
    return ops.divide(ops.multiply(wide[0], wide[1]), wide[2])


def _scalar(parameter: Array) -> Array:
    return ops.reshape(parameter, ()) if tuple(parameter.shape) == (1,) else parameter


def qlinear_matmul(
    a: Array,
    a_scale: Array,
    a_zero_point: Array,
    b: Array,
    b_scale: Array,
    b_zero_point: Array,
    y_scale: Array,
    y_zero_point: Array,
    /,
) -> Array:
    """The product of quantised matrices, quantised."""
    rows, columns = _by_row(a_scale, a), _scalar(b_scale)
    product = ops.matmul(shifted(a, a_zero_point, -2), shifted(b, b_zero_point, -1))
    real = ops.multiply(ops.cast(product, np.float32), _factor(rows, columns, _by_row(y_scale, a)))
    return rounded(real, _by_row(y_zero_point, a), y_zero_point.dtype)


def _by_row(parameter: Array, a: Array) -> Array:
    if len(parameter.shape) == 1 and parameter.shape[0] > 1 and len(a.shape) > 1:
        return ops.reshape(parameter, (-1, 1))
    return _scalar(parameter)


declare("QLinearMatMul", qlinear_matmul, (10, 21))


@onnx_operator("QLinearConv", since=10)
def qlinear_conv(
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
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """The convolution of quantised pictures, quantised; scale and zero point of w for each channel, or for all."""
    pictures, weight = shifted(x, x_zero_point, 1), shifted(w, w_zero_point, 0)
    sums = conv(pictures, weight, B, auto_pad, dilations, group, kernel_shape, pads, strides)
    scale = _scalar(w_scale)
    if len(scale.shape) == 1:
        scale = ops.reshape(scale, [-1, *[1] * (len(x.shape) - 2)])
    real = ops.multiply(ops.cast(sums, np.float32), _factor(_scalar(x_scale), scale, _scalar(y_scale)))
    return rounded(real, _scalar(y_zero_point), y_zero_point.dtype)
