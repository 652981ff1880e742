"""com.microsoft: windows and regions of pictures.

Source: ONNX Runtime's documentation of contributed operators, and its results.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.sets.onnx.arithmetic import number
from zoonet.ops.sets.onnx.common import affordable, integers
from zoonet.ops.sets.onnx.microsoft import declared
from zoonet.ops.types import Array


@declared("MaxpoolWithMask")
def max_pool_with_mask(
    X: Array,
    M: Array,
    /,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    pads: Sequence[int] | None = None,
    storage_order: int = 0,
    strides: Sequence[int] | None = None,
) -> Array:
    """The maximum of each window of X (N, C, spatial…); of a window's row only what stands before the first 0 of M.

    M (1, 1, spatial…) holds for every plane; its first element has no meaning. Where nothing counts, the result is the
    least float. Masks of several planes, which ONNX Runtime reads at odd places, are refused.
    """
    rank = len(X.shape) - 2
    steps, around = tuple(strides or (1,) * rank), tuple(pads or (0,) * (2 * rank))
    if auto_pad != "NOTSET" or storage_order or {len(kernel_shape), len(steps), len(around) // 2} != {rank}:
        raise ArgumentError("MaxpoolWithMask: auto_pad and storage_order are not supported", received=auto_pad)
    if tuple(M.shape) != (1, 1, *X.shape[2:]):
        raise ShapeError("MaxpoolWithMask: bad mask", expected=(1, 1, *X.shape[2:]), received=tuple(M.shape))
    sizes = [n + around[i] + around[rank + i] for i, n in enumerate(X.shape[2:])]
    counts = [(n - k) // step + 1 for n, k, step in zip(sizes, kernel_shape, steps, strict=True)]
    affordable((*X.shape[:2], *counts), X.dtype, "MaxpoolWithMask")
    least = float(np.finfo(np.float32).min)
    outside = ((0, 0), (0, 0), *[(around[i], around[rank + i]) for i in range(rank)])
    first = np.zeros(X.shape[2:], bool)
    first.reshape(-1)[:1] = True
    counted = ops.logical_or(ops.not_equal(M, np.asarray(0, M.dtype)), first)
    counted, x = ops.pad(counted, outside, value=True), ops.pad(X, outside, value=least)
    result, before = None, counted
    for place in itertools.product(*map(range, kernel_shape)):
        window = tuple(
            slice(start, start + (count - 1) * step + 1, step)
            for start, count, step in zip(place, counts, steps, strict=True)
        )
        mask = ops.index(counted, (Ellipsis, *window))
        before = mask if place[-1] == 0 else ops.logical_and(before, mask)
        item = ops.where(before, ops.index(x, (Ellipsis, *window)), number(least, x.dtype))
        result = item if result is None else ops.maximum(result, item)
    return result


@declared("CropAndResize")
def crop_and_resize(
    X: Array,
    rois: Array,
    batch_indices: Array,
    crop_size: Array,
    /,
    extrapolation_value: float = 0.0,
    mode: str = "bilinear",
) -> Array:
    """Regions (y1, x1, y2, x2 as shares of the sides) of pictures (N, C, H, W) in one size: (regions, C, h, w).

    Corners fall on the corners of the region; a region of one row or column is taken at its middle. Points outside of
    the picture get the extrapolation_value.
    """
    if mode not in ("bilinear", "nearest"):
        raise ArgumentError("CropAndResize: unknown mode", expected="bilinear or nearest", received=mode)
    height, width = integers(crop_size, "the crop_size of CropAndResize")
    affordable((rois.shape[0], X.shape[1], height, width), X.dtype, "CropAndResize")
    if min(height, width) < 1:
        raise ShapeError("CropAndResize: the crop_size must be positive", received=(height, width))
    images = ops.reshape(ops.cast(batch_indices, np.int64), (-1, 1, 1))
    ys, inside_y = _points(rois, 0, height, X.shape[2])
    xs, inside_x = _points(rois, 1, width, X.shape[3])
    ys, xs = ops.expand_dims(ys, 2), ops.expand_dims(xs, 1)  # (regions, h, 1), (regions, 1, w)
    pixels = ops.transpose(X, (0, 2, 3, 1))

    def at(y: Array, x: Array) -> Array:
        place = ops.add(ops.multiply(images, np.asarray(X.shape[2])), ops.cast(y, np.int64))
        place = ops.add(ops.multiply(place, np.asarray(X.shape[3])), ops.cast(x, np.int64))
        return ops.take(ops.reshape(pixels, (-1, X.shape[1])), place, 0)  # (regions, h, w, C)

    if mode == "nearest":
        y = at(_nearest(ys), _nearest(xs))
    else:
        top, left = ops.floor(ys), ops.floor(xs)
        bottom, right = ops.ceil(ys), ops.ceil(xs)
        down, aside = ops.expand_dims(ops.subtract(ys, top), -1), ops.expand_dims(ops.subtract(xs, left), -1)
        upper = _between(at(top, left), at(top, right), aside)
        y = _between(upper, _between(at(bottom, left), at(bottom, right), aside), down)
    inside = ops.logical_and(ops.expand_dims(inside_y, 2), ops.expand_dims(inside_x, 1))
    y = ops.where(ops.expand_dims(inside, -1), y, number(extrapolation_value, y.dtype))
    return ops.transpose(y, (0, 3, 1, 2))


def _points(rois: Array, axis: int, count: int, size: int) -> tuple[Array, Array]:
    """Where the points of each region lie on an axis of a picture, and whether that is inside: (regions, count)."""
    start, end = (ops.expand_dims(ops.index(rois, (slice(None), axis + i)), 1) for i in (0, 2))
    length = number(size - 1, rois.dtype)
    if count > 1:
        step = ops.divide(ops.multiply(ops.subtract(end, start), length), number(count - 1, rois.dtype))
        points = ops.add(ops.multiply(start, length), ops.multiply(step, np.arange(count, dtype=rois.dtype)))
    else:
        points = ops.multiply(ops.multiply(ops.add(start, end), length), number(0.5, rois.dtype))
    inside = ops.logical_and(ops.greater_equal(points, number(0, rois.dtype)), ops.less_equal(points, length))
    return ops.where(inside, points, number(0, rois.dtype)), inside


def _nearest(points: Array) -> Array:
    """The nearest whole number, the upper one of two; a sum with 0.5 would round just below it."""
    whole = ops.floor(points)
    return ops.where(ops.less(ops.subtract(points, whole), 0.5), whole, ops.add(whole, 1.0))


def _between(a: Array, b: Array, share: Array) -> Array:
    return ops.add(a, ops.multiply(ops.subtract(b, a), share))
