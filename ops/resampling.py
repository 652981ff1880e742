"""Resizing along any axes: nearest, linear and cubic, with every coordinate convention of ONNX Resize.

Interpolation is separable: each axis is mapped by a banded matrix that is computed from sizes and scales alone, so the
gradient is the map by the transposes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from zoonet.ops.adaptive_pooling import adaptive_avg_pool
from zoonet.ops.axis_maps import Bands, map_axis
from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.registry import composite, op
from zoonet.ops.samples import floats, ints, sample
from zoonet.ops.types import Array, TensorType, promote
from zoonet.ops.windows import spatial_rank

__all__ = ["interpolate", "resize"]

MODES = ("nearest", "linear", "cubic")
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_crop_and_resize",
)


class Rule(NamedTuple):
    """How one axis is resized: everything but its input size. scale: output over input size, None for their ratio."""

    size: int
    scale: float | None
    start: float
    end: float
    mode: str
    coordinates: str
    nearest: str
    cubic: float
    exclude_outside: bool
    antialias: bool


def _positions(inputs: int, rule: Rule) -> np.ndarray[Any, Any]:
    """Where the output positions lie on the input axis."""
    n, m = inputs, rule.size
    x = np.arange(m, dtype=np.float64)
    if rule.coordinates == "align_corners":
        width = m if rule.scale is None else rule.scale * n  # not a whole number where a scale says so
        return x * (n - 1) / (width - 1) if width != 1 and m > 1 else x
    if rule.coordinates == "tf_crop_and_resize":
        span = (rule.end - rule.start) * (n - 1)
        return rule.start * (n - 1) + (x * span / (m - 1) if m > 1 else x + span / 2)
    factor, divisor = (n, m) if rule.scale is None else (1, rule.scale)  # in this order ties are exact
    if rule.coordinates == "asymmetric":
        return x * factor / divisor
    if rule.coordinates == "pytorch_half_pixel" and m == 1:
        return x
    centers = (2 * x + 1) * factor / (2 * divisor) - 0.5
    if rule.coordinates == "half_pixel_symmetric" and rule.scale is not None:
        centers += n / 2 * (1 - m / (rule.scale * n))
    return centers


def _kernel(rule: Rule, distance: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The weight at a distance: a triangle, or the cubic convolution kernel of Keys (1981)."""
    d: np.ndarray[Any, Any] = np.abs(distance)
    if rule.mode == "linear":
        return np.maximum(1.0 - d, 0.0)
    a = rule.cubic
    inner = ((a + 2) * d - (a + 3)) * d * d + 1
    outer = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, inner, np.where(d < 2, outer, 0))


@lru_cache(maxsize=64)
def axis_bands(inputs: int, rule: Rule) -> tuple[Bands, np.ndarray[Any, Any]]:
    """The matrix of one axis, and which of its rows lie outside the input and get the extrapolation value."""
    x = _positions(inputs, rule)
    outside = np.zeros(len(x), bool)
    if rule.coordinates == "tf_crop_and_resize":
        outside = (x < 0) | (x > inputs - 1)
    if rule.mode == "nearest":
        rounding, shift = {
            "round_prefer_floor": (np.ceil, -0.5),
            "round_prefer_ceil": (np.floor, 0.5),
            "floor": (np.floor, 0.0),
            "ceil": (np.ceil, 0.0),
        }[rule.nearest]
        cells = np.clip(rounding(x + shift), 0, inputs - 1).astype(np.int64)[:, None]
        weights = np.ones(cells.shape)
    else:
        scale = rule.size / inputs if rule.scale is None else rule.scale
        shrink = min(1.0, scale) if rule.antialias else 1.0
        reach = int(np.ceil((1 if rule.mode == "linear" else 2) / shrink))
        cells = np.floor(x).astype(np.int64)[:, None] + np.arange(-reach, reach + 2)
        weights = _kernel(rule, (cells - x[:, None]) * shrink)
        if rule.exclude_outside:
            weights = weights * ((cells >= 0) & (cells < inputs))
        total = weights.sum(axis=1, keepdims=True)
        weights = weights / np.where(total == 0, 1, total)
        cells = np.clip(cells, 0, inputs - 1)
    weights = weights * ~outside[:, None]
    return Bands(inputs, cells, weights), outside


def _rules(
    shape: Sequence[int | None],
    sizes: Sequence[int] | None,
    scales: Sequence[float] | None,
    axes: Sequence[int] | None,
    mode: str,
    coordinates: str,
    nearest: str,
    cubic_coeff_a: float,
    exclude_outside: bool,
    antialias: bool,
    roi: Sequence[float] | None,
) -> list[tuple[int, Rule]]:
    """Pairs of an axis and its rule, without axes that stay as they are. Raises ArgumentError or ShapeError."""
    for parameter, value, allowed in (
        ("mode", mode, MODES),
        ("coordinates", coordinates, COORDINATES),
        ("nearest", nearest, NEAREST),
    ):
        if value not in allowed:
            raise ArgumentError(f"resize: unknown {parameter}", expected=" or ".join(allowed), received=repr(value))
    given = sizes if sizes is not None else scales
    if given is None or (sizes is not None and scales is not None and len(sizes) != len(scales)):
        raise ArgumentError("resize needs sizes or scales", expected="one of them, or both of equal length")
    places = range(len(shape) - len(given), len(shape)) if axes is None else axes
    if any(not -len(shape) <= a < len(shape) for a in places) or len(places) != len(given):
        raise ShapeError(
            "resize: axes do not fit",
            expected=f"one size or scale for each axis, of {len(shape)} axes",
            received=f"axes {tuple(places)}, {len(given)} sizes or scales",
        )
    if roi is not None and len(roi) != 2 * len(given):
        raise ArgumentError("resize: roi does not fit", expected=f"{2 * len(given)} numbers", received=len(roi))
    if coordinates == "tf_crop_and_resize" and roi is None:
        raise ArgumentError("resize: tf_crop_and_resize needs roi", fix="pass starts, then ends, for each axis")
    rules = []
    for position, axis in enumerate(places):
        axis %= len(shape)
        n = shape[axis] or 0
        scale = None if scales is None else float(scales[position])
        if scale is not None and not scale > 0:
            raise ArgumentError("resize: a scale does not fit", expected="numbers above 0", received=scale)
        size = int(sizes[position]) if sizes is not None else int(np.floor(n * (scale or 1.0)))
        if size < 1 or n < 1:
            raise ShapeError("resize: an axis would be empty", expected="at least 1", received=f"{n} to {size}")
        start, end = (0.0, 1.0) if roi is None else (float(roi[position]), float(roi[position + len(given)]))
        cropped = coordinates == "tf_crop_and_resize" and (start, end) != (0.0, 1.0)
        if size != n or scale not in (None, 1.0) or cropped:
            options = (mode, coordinates, nearest, float(cubic_coeff_a), bool(exclude_outside), bool(antialias))
            rules.append((axis, Rule(size, scale, start, end, *options)))
    return rules


@op(
    samples=[
        sample(floats(1, 2, 4, 5), (7, 8)),
        sample(floats(1, 2, 4, 5), (3, 8), None, (2, 3), "nearest", "asymmetric", "floor"),
        sample(floats(1, 2, 5, 5), (7, 3), None, (2, 3), "nearest", "half_pixel", "ceil"),
        sample(floats(1, 2, 4, 6), (6, 3), None, None, "nearest", "align_corners", "round_prefer_ceil"),
        sample(floats(1, 2, 4, 5), (7, 3), None, None, "linear"),
        sample(floats(1, 2, 4, 5), (7, 3), None, None, "linear", "align_corners"),
        sample(floats(1, 2, 4, 5), None, (1.7, 0.7), None, "linear", "half_pixel_symmetric"),
        sample(floats(1, 2, 4, 5), (1, 8), None, None, "linear", "pytorch_half_pixel"),
        sample(floats(1, 1, 3, 4, 5), (5, 3, 6), None, None, "linear"),
        sample(floats(1, 2, 5, 6), (8, 4), None, None, "cubic"),
        sample(floats(1, 2, 5, 6), (8, 4), None, None, "cubic", "asymmetric", "floor", -0.5, True),
        sample(floats(1, 2, 9, 8), (4, 11), None, None, "linear", antialias=True),
        sample(floats(1, 1, 12, 8), (6, 16), None, None, "cubic", antialias=True, exclude_outside=True),
        sample(
            floats(1, 2, 6, 5),
            (4, 4),
            None,
            None,
            "linear",
            "tf_crop_and_resize",
            roi=(0.2, -0.3, 0.9, 1.2),
            extrapolation_value=3.0,
        ),
        sample(floats(4, 2, 3), None, (1.5,), (0,), "linear"),
        sample(ints(1, 1, 3, 3), (5, 2)),
    ]
)
def resize(
    xp: Any,
    x: Array,
    sizes: Sequence[int] | None = None,
    scales: Sequence[float] | None = None,
    axes: Sequence[int] | None = None,
    mode: str = "nearest",
    coordinates: str = "half_pixel",
    nearest: str = "round_prefer_floor",
    cubic_coeff_a: float = -0.75,
    exclude_outside: bool = False,
    antialias: bool = False,
    roi: Sequence[float] | None = None,
    extrapolation_value: float = 0.0,
) -> Array:
    """x with axes resized by interpolation. x: any shape -> x's shape with the new sizes.

    sizes: new lengths; scales: factors, the new length being ⌊length · scale⌋ where no sizes are given. With both,
    scales decide the coordinates. axes: which axes, the last ones for None. mode: "nearest" (keeps the dtype),
    "linear" or "cubic" (at least float32). coordinates: "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel",
    "align_corners", "asymmetric" or "tf_crop_and_resize", which reads `roi` (starts, then ends, for each axis; 1 is
    the last cell) and gives `extrapolation_value` outside the input. nearest: how ties and fractions are rounded.
    exclude_outside: cells outside the input get no weight; otherwise the edge is repeated. antialias: widen the
    kernel where an axis shrinks. Raises ArgumentError or ShapeError where the arguments do not fit.
    Source: ONNX Resize, opset 19.
    """
    rules = _rules(
        x.shape, sizes, scales, axes, mode, coordinates, nearest, cubic_coeff_a, exclude_outside, antialias, roi
    )
    if mode != "nearest":
        x = xp.asarray(x, dtype=promote([x], floating=True))
    result = x
    for axis, rule in sorted(rules, key=lambda r: r[1].size / x.shape[r[0]]):  # shrinking axes first
        bands, outside = axis_bands(x.shape[axis], rule)
        if mode == "nearest":
            result = xp.take(result, xp.asarray(bands.indices[:, 0]), axis=axis)
        else:
            result = map_axis(xp, result, bands, axis)
        if outside.any():
            result[(slice(None),) * axis + (xp.asarray(np.flatnonzero(outside)),)] = extrapolation_value
    for axis, rule in rules:  # cells that a later axis mixed with extrapolated ones keep the value exactly
        outside = axis_bands(x.shape[axis], rule)[1]
        if outside.any():
            result[(slice(None),) * axis + (xp.asarray(np.flatnonzero(outside)),)] = extrapolation_value
    return result.copy() if result is x else result


@resize.type
def _(
    x: TensorType,
    sizes: Sequence[int] | None,
    scales: Sequence[float] | None,
    axes: Sequence[int] | None,
    mode: str,
    coordinates: str,
    nearest: str,
    cubic_coeff_a: float,
    exclude_outside: bool,
    antialias: bool,
    roi: Sequence[float] | None,
    extrapolation_value: float,
) -> TensorType:
    rules = _rules(
        x.shape, sizes, scales, axes, mode, coordinates, nearest, cubic_coeff_a, exclude_outside, antialias, roi
    )
    shape = list(x.shape)
    for axis, rule in rules:
        shape[axis] = rule.size
    return TensorType(tuple(shape), x.dtype if mode == "nearest" else promote([x], floating=True))


@resize.vjp
def _(gy: Array, _y: TensorType, _x: TensorType, *arguments: Any) -> Any:
    return resize_gradient(gy, _x.shape, *arguments[:-1])


@op(name="resize.gradient")
def resize_gradient(
    xp: Any,
    gy: Array,
    shape: tuple[int, ...],
    sizes: Sequence[int] | None,
    scales: Sequence[float] | None,
    axes: Sequence[int] | None,
    mode: str,
    coordinates: str,
    nearest: str,
    cubic_coeff_a: float,
    exclude_outside: bool,
    antialias: bool,
    roi: Sequence[float] | None,
) -> Array:
    """The gradient of resize by x, which has this shape."""
    rules = _rules(
        shape, sizes, scales, axes, mode, coordinates, nearest, cubic_coeff_a, exclude_outside, antialias, roi
    )
    result = gy
    for axis, rule in rules:
        result = map_axis(xp, result, axis_bands(shape[axis], rule)[0], axis, transposed=True)
    return result.copy() if result is gy else result


@resize_gradient.type
def _(gy: TensorType, shape: tuple[int, ...], *_: Any) -> TensorType:
    return TensorType(shape, gy.dtype)


@resize_gradient.vjp
def _(gx: Array, _y: TensorType, _gy: TensorType, _shape: tuple[int, ...], *arguments: Any) -> Any:
    return resize(gx, *arguments)


@composite(
    samples=[
        sample(floats(1, 2, 4, 5), 7),
        sample(floats(1, 2, 4, 5), None, 1.6, "nearest-exact"),
        sample(floats(1, 2, 4, 5), (6, 3), None, "bilinear"),
        sample(floats(1, 2, 4, 5), None, (1.5, 2.3), "bilinear", True),
        sample(floats(1, 2, 8, 9), (5, 6), None, "bicubic", False, True),
        sample(floats(1, 2, 5, 6), (4, 9), None, "bicubic", True),
        sample(floats(1, 2, 6), 4, None, "linear"),
        sample(floats(1, 1, 2, 3, 4), 3, None, "trilinear"),
        sample(floats(1, 2, 5, 6), 3, None, "area"),
    ]
)
def interpolate(
    x: Array,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool = False,
    antialias: bool = False,
) -> Array:
    """Resizing of images in PyTorch's terms. x: (N, C, spatial...) -> (N, C, size...).

    Either size or scale_factor is given, one number or one per axis. mode: "nearest", "nearest-exact", "linear",
    "bilinear" or "trilinear" (the same here), "bicubic", "area". antialias: as Pillow does when shrinking.
    Raises ArgumentError where the arguments do not fit. Source: torch.nn.functional.interpolate.
    """
    rank = spatial_rank("interpolate", len(x.shape))
    if (size is None) == (scale_factor is None):
        raise ArgumentError("interpolate needs size or scale_factor", expected="exactly one of them")
    sizes = None if size is None else (size,) * rank if isinstance(size, int) else size
    scales = scale_factor
    if isinstance(scales, int | float):
        scales = (scales,) * rank
    if mode == "area":
        if sizes is None:
            sizes = tuple(int(n * s) for n, s in zip(x.shape[2:], scales or (), strict=True))
        return adaptive_avg_pool(x, sizes)
    kinds = {"nearest": "nearest", "nearest-exact": "nearest", "bicubic": "cubic"}
    kinds |= dict.fromkeys(("linear", "bilinear", "trilinear"), "linear")
    if mode not in kinds:
        raise ArgumentError("interpolate: unknown mode", expected=", ".join([*kinds, "area"]), received=repr(mode))
    if antialias and (align_corners or kinds[mode] == "nearest"):
        raise ArgumentError("interpolate: antialias goes with linear and cubic modes without align_corners")
    if kinds[mode] == "nearest":
        exact = mode == "nearest-exact"
        options = ("half_pixel", "round_prefer_ceil") if exact else ("asymmetric", "floor")
        return resize(x, sizes, scales, None, "nearest", *options)
    coordinates = "align_corners" if align_corners else "half_pixel"
    if align_corners and scales is not None:  # here PyTorch maps whole sizes, and ONNX the exact products
        sizes, scales = tuple(int(np.floor(n * s)) for n, s in zip(x.shape[2:], scales, strict=True)), None
    cubic = -0.5 if antialias else -0.75  # Pillow's kernel, and PyTorch's
    return resize(x, sizes, scales, None, kinds[mode], coordinates, "floor", cubic, antialias, antialias)
