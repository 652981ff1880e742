"""Resize, Upsample, GridSample, AffineGrid, RoiAlign."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError
from zoonet.ops.sets.onnx.common import affordable, concrete, integers, normalized_axis
from zoonet.ops.sets.onnx.registry import declare, onnx_operator
from zoonet.ops.types import Array


def _numbers(value: Any, purpose: str) -> tuple[float, ...] | None:
    """The contents of an operand of floats; None for none."""
    if value is None or 0 in value.shape:
        return None
    return tuple([float(n) for n in concrete(value, purpose).reshape(-1)])


def resized(
    x: Array,
    roi: Any,
    scales: Any,
    sizes: Any,
    axes: Sequence[int] | None,
    policy: str,
    mode: str,
    options: dict[str, Any],
) -> Array:
    """Resize with scales and sizes as operands, and what ONNX adds: axes, and sizes that keep the aspect ratio."""
    factors = _numbers(scales, "the scales of Resize")
    wanted = None if sizes is None or 0 in sizes.shape else integers(sizes, "the sizes of Resize")
    rank = len(x.shape)
    chosen = tuple(range(rank)) if axes is None else tuple([normalized_axis(a, rank, "Resize") for a in axes])
    region = _numbers(roi, "the roi of Resize") if options["coordinates"] == "tf_crop_and_resize" else None
    if wanted is not None and policy != "stretch":
        ratios = [n / x.shape[axis] for n, axis in zip(wanted, chosen, strict=True)]
        factor = min(ratios) if policy == "not_larger" else max(ratios)
        wanted = tuple([int(np.floor(x.shape[axis] * factor + 0.5)) for axis in chosen])
        factors = (factor,) * len(chosen)
    if wanted is not None:
        whole = list(x.shape)
        for axis, n in zip(chosen, wanted, strict=True):
            whole[axis] = n
        affordable(whole, x.dtype, "Resize")
    elif factors is not None:
        affordable([n * f for n, f in zip(x.shape, factors, strict=False)], x.dtype, "Resize")
    y = ops.resize(x, wanted, factors, chosen, mode, roi=region, **options)
    return ops.cast(y, x.dtype)


def resize(
    X: Array,
    roi: Any = None,
    scales: Any = None,
    sizes: Any = None,
    /,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Array:
    """X resized by interpolation; the source of every convention is the specification of opset 19."""
    coordinates = coordinate_transformation_mode
    options = {
        "coordinates": coordinates,
        "nearest": nearest_mode,
        "cubic_coeff_a": cubic_coeff_a,
        "exclude_outside": bool(exclude_outside),
        "antialias": bool(antialias),
        "extrapolation_value": extrapolation_value,
    }
    return resized(X, roi, scales, sizes, axes, keep_aspect_ratio_policy, mode, options)


def resize_11(
    X: Array,
    roi: Any = None,
    scales: Any = None,
    sizes: Any = None,
    /,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Array:
    """X resized by interpolation."""
    coordinates = coordinate_transformation_mode
    if coordinates == "tf_half_pixel_for_nn":
        if mode != "nearest":
            raise ArgumentError("Resize: tf_half_pixel_for_nn is for the nearest mode", received=mode)
        return _nearest_of_tensorflow(X, scales, sizes)
    options = {
        "coordinates": coordinates,
        "nearest": nearest_mode,
        "cubic_coeff_a": cubic_coeff_a,
        "exclude_outside": bool(exclude_outside),
        "extrapolation_value": extrapolation_value,
    }
    return resized(X, roi, scales, sizes, None, "stretch", mode, options)


def _nearest_of_tensorflow(x: Array, scales: Any, sizes: Any) -> Array:
    factors = _numbers(scales, "the scales of Resize")
    wanted = None if sizes is None or 0 in sizes.shape else integers(sizes, "the sizes of Resize")
    for axis, n in enumerate(tuple(x.shape)):
        m = wanted[axis] if wanted is not None else int(np.floor(n * (factors or ())[axis]))
        ratio = n / m if factors is None else 1 / factors[axis]
        if m != n:
            x = ops.take(x, np.minimum(np.floor((np.arange(m) + 0.5) * ratio), n - 1).astype(np.int64), axis)
    return x


def upsampled(x: Array, scales: Any, mode: str) -> Array:
    """Upsample: coordinates without shift, rounded down."""
    mode = {"bilinear": "linear"}.get(mode, mode)
    options = {"coordinates": "asymmetric", "nearest": "floor"}
    return resized(x, None, scales, None, None, "stretch", mode, options)


@onnx_operator("Resize", since=10)
def resize_10(X: Array, scales: Array, /, mode: str = "nearest") -> Array:
    """X resized by scales; coordinates without shift, rounded down."""
    return upsampled(X, scales, mode)


declare("Resize", resize_11, (11, 13))
declare("Resize", resize, (18, 19))


@onnx_operator("Upsample", since=1)
def upsample_1(X: Array, /, height_scale: float, width_scale: float, mode: str = "nearest") -> Array:
    """Pictures enlarged."""
    return upsampled(X, np.asarray([1.0, 1.0, height_scale, width_scale]), mode)


@onnx_operator("Upsample", since=7)
def upsample_7(X: Array, /, scales: Sequence[float], mode: str = "nearest") -> Array:
    """X enlarged by scales."""
    return upsampled(X, np.asarray(scales), mode)


def upsample(X: Array, scales: Array, /, mode: str = "nearest") -> Array:
    """X enlarged by scales."""
    return upsampled(X, scales, mode)


declare("Upsample", upsample, (9, 10))


def grid_sample(
    X: Array, grid: Array, /, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros"
) -> Array:
    """X read at the points of a grid, whose coordinates run from -1 to 1."""
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    return ops.cast(ops.grid_sample(X, grid, mode, padding_mode, bool(align_corners)), X.dtype)


def grid_sample_16(
    X: Array, grid: Array, /, align_corners: int = 0, mode: str = "bilinear", padding_mode: str = "zeros"
) -> Array:
    """X read at the points of a grid, whose coordinates run from -1 to 1."""
    return ops.cast(ops.grid_sample(X, grid, mode, padding_mode, bool(align_corners)), X.dtype)


declare("GridSample", grid_sample_16, (16,))
declare("GridSample", grid_sample, (20, 22))


@onnx_operator("AffineGrid", since=20)
def affine_grid(theta: Array, size: Array, /, align_corners: int = 0) -> Array:
    """The grid of an affine map, for GridSample."""
    shape = affordable(integers(size, "the size of AffineGrid"), theta.dtype, "AffineGrid")
    return ops.affine_grid(theta, shape, bool(align_corners))
