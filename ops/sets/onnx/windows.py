"""Operators that slide windows: Conv, ConvTranspose, ConvInteger, Col2Im, the pools and their inverses."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from zoonet import ops
from zoonet.ops.convolution import convolution_windows
from zoonet.ops.deformation import check_deformation, deformed
from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.sets.onnx.common import affordable, integers
from zoonet.ops.sets.onnx.registry import declare, onnx_operator
from zoonet.ops.types import Array

Pairs = tuple[tuple[int, int], ...]


#: Most cells of a window: what a pool over a picture of 2048 x 2048 has.
_LARGEST = 1 << 22


def padding_of(
    auto_pad: str,
    pads: Sequence[int] | None,
    input: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None,
) -> Pairs:
    """Padding as (before, after) pairs: of the attribute `pads`, or of what `auto_pad` asks for."""
    rank = len(kernel)
    if auto_pad in ("NOTSET", "", "VALID"):
        given = tuple(pads) if pads and auto_pad != "VALID" else (0,) * (2 * rank)
        if len(given) != 2 * rank:
            raise ArgumentError("pads does not fit the kernel", expected=f"{2 * rank} numbers", received=given)
        return tuple(zip(given[:rank], given[rank:], strict=True))
    if auto_pad not in ("SAME_UPPER", "SAME_LOWER"):
        raise ArgumentError("unknown auto_pad", expected="NOTSET, SAME_UPPER, SAME_LOWER, VALID", received=auto_pad)
    pairs = []
    for n, k, s, d in zip(input, kernel, strides or (1,) * rank, dilations or (1,) * rank, strict=True):
        total = max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
        small, large = total // 2, total - total // 2
        pairs.append((small, large) if auto_pad == "SAME_UPPER" else (large, small))
    return tuple(pairs)


def sizes(value: Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """An attribute of one number for each spatial axis; ones where it is absent."""
    return tuple(value) if value else (1,) * rank


def conv(
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
    """X (N, C, spatial…) convolved with W (M, C/group, kernel…)."""
    kernel = tuple(W.shape[2:])
    if kernel_shape and tuple(kernel_shape) != kernel:
        raise ShapeError("Conv: kernel_shape differs from the weight", expected=kernel, received=tuple(kernel_shape))
    padding = padding_of(auto_pad, pads, X.shape[2:], kernel, strides, dilations)
    rank = len(kernel)
    return ops.conv(X, W, B, sizes(strides, rank), padding, sizes(dilations, rank), group)


declare("Conv", conv, (1, 11, 22))


def deform_conv(
    X: Array,
    W: Array,
    offset: Array,
    B: Array | None = None,
    mask: Array | None = None,
    /,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    offset_group: int = 1,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """A convolution whose taps read at places moved by an offset, each multiplied by a mask."""
    kernel, rank = tuple(W.shape[2:]), len(W.shape) - 2
    if kernel_shape and tuple(kernel_shape) != kernel:
        raise ShapeError("DeformConv: kernel_shape differs from the weight", expected=kernel, received=kernel_shape)
    if W.shape[1] * group != X.shape[1] or offset.shape[1] != offset_group * math.prod(kernel) * rank:
        raise ShapeError(
            "DeformConv: groups do not fit the shapes",
            expected=f"{W.shape[1] * group} channels and {offset_group * math.prod(kernel) * rank} offsets",
            received=f"{X.shape[1]} and {offset.shape[1]}",
        )
    pairs = padding_of("NOTSET", pads, X.shape[2:], kernel, strides, dilations)
    stride, dilation = sizes(strides, rank), sizes(dilations, rank)
    if rank == 2:
        return ops.deform_conv2d(X, offset, W, B, stride, pairs, dilation, mask)
    windows, _ = convolution_windows("DeformConv", X.shape[2:], kernel, stride, pairs, dilation)
    check_deformation("DeformConv", X, offset, W, B, mask, windows)
    return deformed(X, offset, W, B, mask, windows, offset_group)


declare("DeformConv", deform_conv, (19, 22))


@onnx_operator("ConvInteger", since=10)
def conv_integer(
    x: Array,
    w: Array,
    x_zero_point: Array | None = None,
    w_zero_point: Array | None = None,
    /,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """The convolution of 8-bit integers in int32, after their zero points were subtracted."""
    x, w = shifted(x, x_zero_point, 1), shifted(w, w_zero_point, 0)
    return conv(x, w, None, auto_pad, dilations, group, kernel_shape, pads, strides)


def shifted(x: Array, zero_point: Array | None, axis: int) -> Array:
    """An integer array in int32, less its zero point: one number, or one for each index along the axis."""
    x = ops.cast(x, np.int32)
    if zero_point is None:
        return x
    zero = ops.cast(zero_point, np.int32)
    if len(zero.shape) == 1 and zero.shape[0] > 1:
        zero = ops.reshape(zero, [-1 if i == axis % len(x.shape) else 1 for i in range(len(x.shape))])
    elif len(zero.shape) == 1:
        zero = ops.reshape(zero, ())
    return ops.subtract(x, zero)


def conv_transpose(
    X: Array,
    W: Array,
    B: Array | None = None,
    /,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """The transpose of a convolution: X (N, C, spatial…), W (C, M/group, kernel…)."""
    kernel, rank = tuple(W.shape[2:]), len(W.shape) - 2
    stride, dilation = sizes(strides, rank), sizes(dilations, rank)
    extra = tuple(output_padding) if output_padding else (0,) * rank
    full = [
        (n - 1) * s + d * (k - 1) + 1 + e
        for n, s, d, k, e in zip(X.shape[2:], stride, dilation, kernel, extra, strict=True)
    ]
    if output_shape or auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        target = (
            list(output_shape)[-rank:] if output_shape else [n * s for n, s in zip(X.shape[2:], stride, strict=True)]
        )
        totals = [n - wanted for n, wanted in zip(full, target, strict=True)]
        larger_first = auto_pad != "SAME_UPPER"
        cut = [(t - t // 2, t // 2) if larger_first else (t // 2, t - t // 2) for t in totals]
    else:
        cut = list(padding_of(auto_pad, pads, X.shape[2:], kernel, strides, dilations))
    grown = [(max(-before, 0), max(-after, 0)) for before, after in cut]
    kept = tuple([(max(before, 0), max(after, 0)) for before, after in cut])
    y = ops.conv_transpose(X, W, None, stride, kept, extra, group, dilation)
    if any(before or after for before, after in grown):
        y = ops.pad(y, ((0, 0), (0, 0), *grown))
    return y if B is None else ops.add(y, ops.reshape(B, (-1, *[1] * rank)))


declare("ConvTranspose", conv_transpose, (1, 11, 22))


def average_pool(
    X: Array,
    /,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] | None = None,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """The average of each window."""
    kernel, padding, stride, dilation = _window("AveragePool", X, auto_pad, dilations, kernel_shape, pads, strides)
    y = ops.avg_pool(X, kernel, stride, padding, bool(ceil_mode), bool(count_include_pad), None, dilation)
    return ops.cast(y, X.dtype)


declare("AveragePool", average_pool, (1, 7, 10, 11, 19, 22))


def _window(
    name: str,
    x: Array,
    auto_pad: str,
    dilations: Sequence[int] | None,
    kernel_shape: Sequence[int] | None,
    pads: Sequence[int] | None,
    strides: Sequence[int] | None,
) -> tuple[tuple[int, ...], Pairs, tuple[int, ...], tuple[int, ...]]:
    """Kernel, padding, strides and dilations of a pool."""
    if not kernel_shape or len(kernel_shape) != len(x.shape) - 2:
        raise ArgumentError(
            f"{name}: kernel_shape does not fit", expected=f"{len(x.shape) - 2} sizes", received=kernel_shape
        )
    kernel = tuple(kernel_shape)
    if min(kernel) < 1 or math.prod(kernel) > _LARGEST:
        raise ArgumentError(f"{name}: impossible kernel_shape", expected=f"1 to {_LARGEST} cells", received=kernel)
    padding = padding_of(auto_pad, pads, x.shape[2:], kernel, strides, dilations)
    return kernel, padding, sizes(strides, len(kernel)), sizes(dilations, len(kernel))


def max_pool(
    X: Array,
    /,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    storage_order: int = 0,
    strides: Sequence[int] | None = None,
    outputs: int = 1,
) -> tuple[Array, ...]:
    """The maximum of each window, and where it lies in X flattened (in columns first for storage_order 1)."""
    kernel, padding, stride, dilation = _window("MaxPool", X, auto_pad, dilations, kernel_shape, pads, strides)
    if outputs == 1:
        return (ops.max_pool(X, kernel, stride, padding, dilation, bool(ceil_mode)),)
    y, indices = ops.max_pool_with_indices(X, kernel, stride, padding, dilation, bool(ceil_mode))
    spatial = tuple(X.shape[2:])
    if storage_order:
        strides_of = [math.prod(spatial[axis + 1 :]) for axis in range(len(spatial))]
        turned = [math.prod(spatial[:axis]) for axis in range(len(spatial))]
        parts = [
            ops.multiply(ops.remainder(ops.floor_divide(indices, step), n), weight)
            for step, n, weight in zip(strides_of, spatial, turned, strict=True)
        ]
        indices = functools.reduce(ops.add, parts)
    planes = np.arange(math.prod(X.shape[:2]), dtype=np.int64).reshape(*X.shape[:2], *[1] * len(spatial))
    return y, ops.add(indices, planes * math.prod(spatial))


declare("MaxPool", max_pool, (1, 8, 10, 11, 12, 22))


def lp_pool(
    X: Array,
    /,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    kernel_shape: Sequence[int] | None = None,
    p: float = 2.0,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """The p-norm of each window."""
    kernel, padding, stride, dilation = _window("LpPool", X, auto_pad, dilations, kernel_shape, pads, strides)
    return ops.lp_pool(X, p, kernel, stride, padding, dilation, bool(ceil_mode))


declare("LpPool", lp_pool, (1, 2, 11, 18, 22))


def _spatial(x: Array) -> tuple[int, ...]:
    return tuple(range(2, len(x.shape)))


def global_average_pool(X: Array, /) -> Array:
    """The mean over all spatial axes, which stay with size 1."""
    return ops.mean(X, _spatial(X), True)


def global_max_pool(X: Array, /) -> Array:
    """The maximum over all spatial axes, which stay with size 1."""
    return ops.max(X, _spatial(X), True)


def global_lp_pool(X: Array, /, p: float = 2.0) -> Array:
    """The p-norm over all spatial axes, which stay with size 1."""
    return ops.pow(ops.sum(ops.pow(ops.abs(X), float(p)), _spatial(X), True), 1.0 / p)


declare("GlobalAveragePool", global_average_pool, (1, 22))
declare("GlobalMaxPool", global_max_pool, (1, 22))
declare("GlobalLpPool", global_lp_pool, (1, 2, 22))


def max_unpool(
    X: Array,
    I: Array,  # noqa: E741 (its name in the specification)
    output_shape: Array | None = None,
    /,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """X at the places I of zeros, which count the flattened result; an output_shape adds zeros at the end."""
    kernel, padding, stride, _ = _window("MaxUnpool", X, "NOTSET", None, kernel_shape, pads, strides)
    spatial = [
        (n - 1) * s + k - before - after
        for n, s, k, (before, after) in zip(X.shape[2:], stride, kernel, padding, strict=True)
    ]
    shape = (*X.shape[:2], *spatial)
    zeros = np.zeros(math.prod(affordable(shape, X.dtype, "MaxUnpool")), X.dtype)
    flat = ops.scatter_elements(zeros, ops.reshape(I, (-1,)), ops.reshape(X, (-1,)))
    y = ops.reshape(flat, shape)
    if output_shape is None:
        return y
    wanted = affordable(integers(output_shape, "the output_shape of MaxUnpool"), X.dtype, "MaxUnpool")
    return ops.pad(y, tuple([(0, n - m) for n, m in zip(wanted, shape, strict=True)]))


declare("MaxUnpool", max_unpool, (9, 11, 22))


def max_roi_pool(
    X: Array, rois: Array, /, pooled_shape: Sequence[int] | None = None, spatial_scale: float = 1.0
) -> Array:
    """The maximum of X over a grid of cells in each region (image, x1, y1, x2, y2)."""
    return ops.roi_pool(X, rois, tuple(pooled_shape or ()), spatial_scale)


declare("MaxRoiPool", max_roi_pool, (1, 22))


@onnx_operator("Col2Im", since=18)
def col2im(
    input: Array,
    image_shape: Array,
    block_shape: Array,
    /,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Images (N, C, spatial…) of summed blocks (N, C · block, positions)."""
    image = integers(image_shape, "the image_shape of Col2Im")
    block = integers(block_shape, "the block_shape of Col2Im")
    rank = len(image)
    padding = padding_of("NOTSET", pads, image, block, strides, dilations)
    affordable((*input.shape[:2], *image), input.dtype, "Col2Im")
    return ops.fold(input, image, block, sizes(dilations, rank), padding, sizes(strides, rank))
