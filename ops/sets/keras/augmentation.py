"""Layers that change pictures at random in training, by keys of ours. Numbers are drawn from the ranges of Keras 3."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError
from zoonet.ops.random import random_fold_in
from zoonet.ops.sets.keras.common import floating, is_channels_first, spatial_axes
from zoonet.ops.sets.keras.pictures import hsv_to_rgb, rgb_to_grayscale, rgb_to_hsv
from zoonet.ops.sets.keras.registry import layer
from zoonet.ops.sets.keras.shapes import resizing
from zoonet.ops.types import Array

__all__ = ["UNCHANGED", "affine_transform", "drawn"]

#: Layers that change pictures in Keras's training, and not here.
UNCHANGED = (
    *("RandomHeight", "RandomWidth", "RandomSharpness", "RandomColorJitter", "RandomErasing", "RandomGaussianBlur"),
    *("RandomPerspective", "RandomElasticTransform", "MixUp", "CutMix", "RandAugment", "AugMix", "Equalization"),
)


def drawn(key: Array, place: int, shape: Sequence[int], low: float, high: float) -> Array:
    """Uniform numbers, float32. place: tells the draws of one layer apart."""
    made = random_fold_in(key, np.asarray(place, np.int64))
    return ops.random_uniform(made, tuple([int(n) for n in shape]), float(low), float(high))


def span(factor: Any, least: float = -1.0) -> tuple[float, float]:
    """The range that a factor says: a pair, or one number for both sides, cut at `least`. Raises ArgumentError."""
    if isinstance(factor, int | float):
        return max(-abs(float(factor)), least), abs(float(factor))
    if isinstance(factor, tuple | list) and len(factor) == 2 and all(isinstance(n, int | float) for n in factor):
        return float(min(factor)), float(max(factor))
    raise ArgumentError("a factor of a random layer does not fit", expected="a number or a pair", received=factor)


def _least_and_width(value_range: Any) -> tuple[float, float]:
    return float(min(value_range)), float(max(value_range) - min(value_range))


def _each(x: Array) -> tuple[int, int, int, int]:
    return int(x.shape[0]), 1, 1, 1


# -- places --------------------------------------------------------------------------------------------------------


def _triangle(index: Array, size: int) -> Array:
    half = max(size - 1, 1)
    return ops.abs(ops.subtract(ops.remainder(ops.add(index, half), 2 * half), half))


def _inside(index: Array, size: int, fill_mode: str) -> Array:
    """Integer places within [0, size)."""
    if fill_mode == "wrap":
        return ops.remainder(index, size)
    if fill_mode == "mirror":
        return _triangle(index, size)
    if fill_mode == "reflect":
        doubled = ops.add(ops.multiply(index, 2), 1)
        return ops.floor_divide(ops.subtract(_triangle(doubled, 2 * size + 1), 1), 2)
    if fill_mode in ("constant", "nearest"):
        return ops.clip(index, 0, size - 1)
    raise ArgumentError("unknown fill_mode", expected="constant, nearest, wrap, mirror or reflect", received=fill_mode)


def _corners(places: Array, interpolation: str) -> list[tuple[Array, Any]]:
    """Integer places around real ones, with their weights."""
    if interpolation == "nearest":
        return [(ops.cast(ops.round(places), "int64"), 1.0)]
    if interpolation != "bilinear":
        raise ArgumentError("unknown interpolation", expected="nearest or bilinear", received=interpolation)
    lower = ops.floor(places)
    above = ops.subtract(places, lower)
    whole = ops.cast(lower, "int64")
    return [(whole, ops.subtract(1.0, above)), (ops.add(whole, 1), above)]


def _sampled(x: Array, rows: Array, columns: Array, interpolation: str, fill_mode: str, fill_value: float) -> Array:
    """Pictures (N, H, W, C) read at real places (N, H, W)."""
    count, height, width, channels = [int(n) for n in x.shape]
    cells = ops.reshape(x, (count * height * width, channels))
    first = np.arange(count).reshape(count, 1, 1) * (height * width)
    result: Any = 0.0
    for (row, of_row), (column, of_column) in itertools.product(
        _corners(rows, interpolation), _corners(columns, interpolation)
    ):
        at = ops.add(ops.multiply(_inside(row, height, fill_mode), width), _inside(column, width, fill_mode))
        value = ops.take(cells, ops.add(at, first), 0)
        if fill_mode == "constant":
            there = ops.logical_and(
                ops.logical_and(ops.greater_equal(row, 0), ops.less(row, height)),
                ops.logical_and(ops.greater_equal(column, 0), ops.less(column, width)),
            )
            value = ops.where(ops.expand_dims(there, -1), value, fill_value)
        weight: Any = ops.multiply(of_row, of_column) if interpolation == "bilinear" else None
        weighted = value if weight is None else ops.multiply(value, ops.cast(ops.expand_dims(weight, -1), x.dtype))
        result = ops.add(result, weighted)
    return result


def affine_transform(
    images: Array,
    transform: Sequence[Any],
    interpolation: str,
    fill_mode: str,
    fill_value: float,
    data_format: str | None,
) -> Array:
    """Pictures whose position (x, y) shows what the given ones have at (a0·x + a1·y + a2, b0·x + b1·y + b2).

    transform: a0, a1, a2, b0, b1, b2, numbers or arrays (N,).
    """
    first = is_channels_first(data_format, "affine_transform")
    x = ops.moveaxis(images, 1, -1) if first else images
    count, height, width, _ = [int(n) for n in x.shape]
    across = np.broadcast_to(np.arange(width, dtype=np.float32), (count, height, width))
    down = np.broadcast_to(np.arange(height, dtype=np.float32)[:, None], (count, height, width))

    def linear(along: Any, beside: Any, shift: Any) -> Array:
        one, two, three = (v if isinstance(v, float) else ops.reshape(v, (-1, 1, 1)) for v in (along, beside, shift))
        return ops.add(ops.add(ops.multiply(across, one), ops.multiply(down, two)), three)

    columns, rows = linear(*transform[:3]), linear(*transform[3:])
    y = _sampled(x, rows, columns, interpolation, fill_mode, fill_value)
    return ops.moveaxis(y, -1, 1) if first else y


@layer("RandomFlip", draws=["mode"], any_options=True)
def random_flip(
    inputs: Array,
    random_key: Array | None = None,
    /,
    mode: str = "horizontal_and_vertical",
    data_format: str | None = None,
) -> Array:
    """Each picture as it is or turned round, with even chances; along both axes together, or along one."""
    x = floating(inputs)
    if random_key is None:
        return x
    axes = dict(zip(("vertical", "horizontal"), spatial_axes(x, data_format, "RandomFlip"), strict=True))
    if mode not in (*axes, "horizontal_and_vertical"):
        raise ArgumentError("RandomFlip: unknown mode", expected=", ".join(axes), received=mode)
    turned = ops.flip(x, tuple([axis for name, axis in axes.items() if name in mode]))
    return ops.where(ops.less_equal(drawn(random_key, 0, _each(x), 0.0, 1.0), 0.5), turned, x)


@layer("RandomRotation", draws=["factor"], any_options=True)
def random_rotation(
    inputs: Array,
    random_key: Array | None = None,
    /,
    factor: Any = 0.0,
    fill_mode: str = "reflect",
    interpolation: str = "bilinear",
    fill_value: float = 0.0,
    data_format: str | None = None,
) -> Array:
    """Each picture turned about its centre by an angle of the range `factor`, in whole turns."""
    x = floating(inputs)
    if random_key is None:
        return x
    low, high = span(factor)
    angle = ops.multiply(drawn(random_key, 0, x.shape[:1], low * 360.0, high * 360.0), math.pi / 180.0)
    cos, sin = ops.cos(angle), ops.sin(angle)
    cy, cx = ((int(x.shape[axis]) - 1) / 2 for axis in spatial_axes(x, data_format, "RandomRotation"))
    right = ops.add(ops.subtract(cx, ops.multiply(cos, cx)), ops.multiply(sin, cy))
    down = ops.subtract(ops.subtract(cy, ops.multiply(sin, cx)), ops.multiply(cos, cy))
    matrix = (cos, ops.negative(sin), right, sin, cos, down)
    return affine_transform(x, matrix, interpolation, fill_mode, fill_value, data_format)


@layer("RandomZoom", draws=["height_factor", "width_factor"], any_options=True)
def random_zoom(
    inputs: Array,
    random_key: Array | None = None,
    /,
    height_factor: Any = 0.0,
    width_factor: Any = None,
    fill_mode: str = "reflect",
    interpolation: str = "bilinear",
    fill_value: float = 0.0,
    data_format: str | None = None,
) -> Array:
    """Each picture smaller (factors above 0) or larger about its centre; without width_factor in its proportions."""
    x = floating(inputs)
    if random_key is None:
        return x
    zooms: list[Any] = []
    for place, factor in enumerate((height_factor, width_factor)):
        low, high = (0.0, 0.0) if factor is None else span(factor)
        zooms.append(zooms[0] if factor is None else drawn(random_key, place, x.shape[:1], 1.0 + low, 1.0 + high))
    shifts = [
        ops.multiply(ops.subtract(1.0, zoom), (int(x.shape[axis]) - 1) / 2)
        for zoom, axis in zip(zooms, spatial_axes(x, data_format, "RandomZoom"), strict=True)
    ]
    matrix = (zooms[1], 0.0, shifts[1], 0.0, zooms[0], shifts[0])
    return affine_transform(x, matrix, interpolation, fill_mode, fill_value, data_format)


@layer("RandomTranslation", draws=["height_factor", "width_factor"], any_options=True)
def random_translation(
    inputs: Array,
    random_key: Array | None = None,
    /,
    height_factor: Any = 0.0,
    width_factor: Any = 0.0,
    fill_mode: str = "reflect",
    interpolation: str = "bilinear",
    fill_value: float = 0.0,
    data_format: str | None = None,
) -> Array:
    """Each picture moved down and to the right by parts of its height and width."""
    x = floating(inputs)
    if random_key is None:
        return x
    down, right = (
        ops.multiply(drawn(random_key, place, x.shape[:1], *span(factor)), -float(x.shape[axis]))
        for place, (factor, axis) in enumerate(
            zip((height_factor, width_factor), spatial_axes(x, data_format, "RandomTranslation"), strict=True)
        )
    )
    matrix = (1.0, 0.0, right, 0.0, 1.0, down)
    return affine_transform(x, matrix, interpolation, fill_mode, fill_value, data_format)


@layer("RandomShear", draws=["x_factor", "y_factor"], any_options=True)
def random_shear(
    inputs: Array,
    random_key: Array | None = None,
    /,
    x_factor: Any = 0.0,
    y_factor: Any = 0.0,
    interpolation: str = "bilinear",
    fill_mode: str = "reflect",
    fill_value: float = 0.0,
    data_format: str | None = None,
) -> Array:
    """Each picture slanted along both axes, to one side or the other."""
    x = floating(inputs)
    if random_key is None:
        return x
    side = ops.where(ops.greater(drawn(random_key, 0, x.shape[:1], 0.0, 1.0), 0.5), -1.0, 1.0)
    down, across = (
        ops.multiply(drawn(random_key, place, x.shape[:1], *span(factor)), side)
        for place, factor in ((1, y_factor), (2, x_factor))
    )
    matrix = (1.0, across, 0.0, down, 1.0, 0.0)
    return affine_transform(x, matrix, interpolation, fill_mode, fill_value, data_format)


@layer("RandomCrop", draws=["height"], any_options=True)
def random_crop(
    inputs: Array, random_key: Array | None = None, /, height: int = 1, width: int = 1, data_format: str | None = None
) -> Array:
    """A part of all pictures at one place, in training only; smaller ones are resized."""
    x = floating(inputs)
    if random_key is None:
        return x
    axes = spatial_axes(x, data_format, "RandomCrop")
    sizes = [int(x.shape[axis]) for axis in axes]
    wanted = (height, width)
    if not all(size > least for size, least in zip(sizes, wanted, strict=True)):
        within = int(sizes[1] * height / width), int(sizes[0] * width / height)
        key = [slice(None)] * 4
        for axis, size, part, least in zip(axes, sizes, within, wanted, strict=True):
            start = int((size - max(min(size, part), 1)) / 2)
            key[axis] = slice(start, start + least)
        return resizing(x[tuple(key)], height, width, data_format=data_format)
    for place, (axis, size, least) in enumerate(zip(axes, sizes, wanted, strict=True)):
        begin = ops.cast(ops.floor(drawn(random_key, place, (), 0.0, size - least + 1)), "int64")
        x = ops.take(x, ops.add(ops.minimum(begin, size - least), np.arange(least)), axis)
    return x


# -- colours -------------------------------------------------------------------------------------------------------


@layer("RandomContrast", draws=["factor"], any_options=True)
def random_contrast(
    inputs: Array,
    random_key: Array | None = None,
    /,
    factor: Any = 0.0,
    value_range: Any = (0, 255),
    data_format: str | None = None,
) -> Array:
    """Distances from the mean of each channel by a number of [1 - factor[0], 1 + factor[1]], within value_range."""
    x = floating(inputs)
    if random_key is None:
        return x
    less, more = (float(factor),) * 2 if isinstance(factor, int | float) else span(factor)
    contrast = ops.cast(drawn(random_key, 0, _each(x), 1.0 - less, 1.0 + more), x.dtype)
    mean = ops.mean(x, spatial_axes(x, data_format, "RandomContrast"), True)
    return ops.clip(ops.add(ops.multiply(ops.subtract(x, mean), contrast), mean), *value_range)


@layer("RandomBrightness", draws=["factor"], any_options=True)
def random_brightness(
    inputs: Array, random_key: Array | None = None, /, factor: Any = 0.0, value_range: Any = (0, 255)
) -> Array:
    """One number added to each picture: a part of value_range, in which the result stays."""
    x = floating(inputs)
    if random_key is None:
        return x
    low, high = min(value_range), max(value_range)
    added = ops.multiply(drawn(random_key, 0, _each(x), *span(factor)), float(high - low))
    return ops.clip(ops.add(x, ops.cast(added, x.dtype)), low, high)


@layer("RandomGrayscale", draws=["factor"], any_options=True)
def random_grayscale(
    inputs: Array, random_key: Array | None = None, /, factor: float = 0.5, data_format: str | None = None
) -> Array:
    """Each picture in grey with the probability `factor`."""
    if random_key is None:
        return inputs
    chosen = ops.less(drawn(random_key, 0, inputs.shape[:1], 0.0, 1.0), float(factor))
    return ops.where(ops.reshape(chosen, (-1, 1, 1, 1)), rgb_to_grayscale(inputs, data_format), inputs)


@layer("RandomInvert", draws=["factor"], any_options=True)
def random_invert(
    inputs: Array, random_key: Array | None = None, /, factor: Any = 1.0, value_range: Any = (0, 255)
) -> Array:
    """Each picture as its negative, with a probability that is drawn from the range `factor`."""
    x = floating(inputs)
    if random_key is None:
        return x
    chance = drawn(random_key, 0, x.shape[:1], *span(factor, 0.0))
    chosen = ops.less(drawn(random_key, 1, x.shape[:1], 0.0, 1.0), chance)
    return ops.where(ops.reshape(chosen, (-1, 1, 1, 1)), ops.subtract(value_range[1], x), x)


@layer("RandomSaturation", draws=["factor"], any_options=True)
def random_saturation(
    inputs: Array,
    random_key: Array | None = None,
    /,
    factor: Any = 0.0,
    value_range: Any = (0, 255),
    data_format: str | None = None,
) -> Array:
    """The saturation of each picture by f / (1 - f), for f of the range `factor`."""
    x = floating(inputs)
    if random_key is None:
        return x
    share = drawn(random_key, 0, x.shape[:1], *span(factor))
    times = ops.divide(share, ops.add(ops.subtract(1.0, share), 1e-7))
    axis = 1 if is_channels_first(data_format, "RandomSaturation") else 3
    hue, saturation, value = ops.split(rgb_to_hsv(x, data_format), 3, axis)
    times = ops.cast(ops.reshape(times, (-1, 1, 1, 1)), x.dtype)
    saturation = ops.clip(ops.multiply(saturation, times), min(value_range), max(value_range))
    return hsv_to_rgb(ops.concat((hue, saturation, value), axis), data_format)


@layer("RandomHue", draws=["factor"], any_options=True)
def random_hue(
    inputs: Array,
    random_key: Array | None = None,
    /,
    factor: Any = 0.0,
    value_range: Any = (0, 255),
    data_format: str | None = None,
) -> Array:
    """The hue of each picture turned by up to half a turn, one way or the other."""
    x = floating(inputs)
    if random_key is None:
        return x
    way = ops.where(ops.greater(drawn(random_key, 0, x.shape[:1], 0.0, 1.0), 0.5), -0.5, 0.5)
    turn = ops.multiply(drawn(random_key, 1, x.shape[:1], *span(factor, 0.0)), way)
    axis = 1 if is_channels_first(data_format, "RandomHue") else 3
    low, width = _least_and_width(value_range)
    unit = ops.divide(ops.subtract(x, low), width)
    hue, saturation, value = ops.split(rgb_to_hsv(unit, data_format), 3, axis)
    hue = ops.remainder(ops.add(hue, ops.cast(ops.reshape(turn, (-1, 1, 1, 1)), x.dtype)), 1.0)
    turned = hsv_to_rgb(ops.concat((hue, saturation, value), axis), data_format)
    return ops.add(ops.multiply(ops.clip(turned, 0.0, 1.0), width), low)


@layer("RandomColorDegeneration", draws=["factor"], any_options=True)
def random_color_degeneration(
    inputs: Array,
    random_key: Array | None = None,
    /,
    factor: Any = 0.0,
    value_range: Any = (0, 255),
    data_format: str | None = None,
) -> Array:
    """Each picture on its way to grey by a part of the range `factor`."""
    x = floating(inputs)
    if random_key is None:
        return x
    part = ops.cast(drawn(random_key, 0, _each(x), *span(factor)), x.dtype)
    grey = rgb_to_grayscale(x, data_format)
    return ops.clip(ops.add(x, ops.multiply(part, ops.subtract(grey, x))), min(value_range), max(value_range))


@layer("RandomPosterization", draws=["factor"], any_options=True)
def random_posterization(
    inputs: Array, random_key: Array | None = None, /, factor: Any = 8, value_range: Any = (0, 255)
) -> Array:
    """Each picture with as many bits a channel as are drawn from the range `factor`."""
    x = floating(inputs)
    if random_key is None:
        return x
    low, high = span(factor, 1.0)
    bits = ops.floor(drawn(random_key, 0, _each(x), low, high)) if low != high else np.full(_each(x), low, np.float32)
    step = ops.pow(2.0, ops.subtract(8.0, bits))
    least, width = _least_and_width(value_range)
    whole = ops.floor(ops.multiply(ops.subtract(x, least), 255.0 / width))
    kept = ops.multiply(ops.floor(ops.divide(whole, ops.cast(step, x.dtype))), ops.cast(step, x.dtype))
    return ops.add(ops.multiply(kept, width / 255.0), least)


@layer("Solarization", draws=["value_range"], any_options=True)
def solarization(
    inputs: Array,
    random_key: Array | None = None,
    /,
    addition_factor: Any = 0.0,
    threshold_factor: Any = 0.0,
    value_range: Any = (0, 255),
) -> Array:
    """Each picture made brighter, and what is not below a threshold as its negative."""
    x = floating(inputs)
    if random_key is None:
        return x
    added, threshold = (
        ops.cast(drawn(random_key, place, _each(x), low, high * 255.0), x.dtype)
        for place, (low, high) in enumerate((span(addition_factor, 0.0), span(threshold_factor, 0.0)))
    )
    least, width = _least_and_width(value_range)
    wide = ops.multiply(ops.subtract(x, least), 255.0 / width)
    bright = ops.clip(ops.add(wide, added), 0.0, 255.0)
    y = ops.where(ops.less(bright, threshold), bright, ops.subtract(255.0, bright))
    return ops.add(ops.multiply(y, width / 255.0), least)


@layer("AutoContrast")
def auto_contrast(inputs: Array, /, value_range: Any = (0, 255), data_format: str | None = None) -> Array:
    """Each channel of a picture stretched to all of value_range; also outside of training, as in Keras."""
    x = floating(inputs)
    low, high = ops.min(x, (1, 2), True), ops.max(x, (1, 2), True)
    spread, least = ops.subtract(high, low), float(min(value_range))
    unit = ops.divide(ops.subtract(x, low), ops.where(ops.equal(spread, 0.0), 1.0, spread))
    stretched = ops.add(ops.multiply(unit, float(max(value_range)) - least), least)
    return ops.where(ops.equal(spread, 0.0), x, stretched)


def _declare_unchanged(name: str) -> None:
    @layer(name, any_options=True)
    def unchanged(inputs: Array, /) -> Array:
        """The input: Keras changes pictures at random in training only."""
        return inputs


for _name in UNCHANGED:
    _declare_unchanged(_name)
