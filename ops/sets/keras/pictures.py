"""Operations of keras.ops on pictures, (N, H, W, C) or (N, C, H, W)."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError
from zoonet.ops.sets.keras.common import (
    floating,
    from_first,
    is_channels_first,
    per_axis,
    require_rank,
    spatial_axes,
    to_first,
)
from zoonet.ops.sets.keras.registry import layer
from zoonet.ops.sets.keras.shapes import resizing
from zoonet.ops.types import Array


@layer("ops.Resize")
def resize(
    images: Array,
    /,
    size: tuple[int, int],
    interpolation: str = "bilinear",
    antialias: bool = False,
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    fill_mode: str = "constant",
    fill_value: float = 0.0,
    data_format: str | None = None,
) -> Array:
    """Pictures resized, as by the layer Resizing."""
    batched = images if len(images.shape) == 4 else ops.expand_dims(images, 0)
    crop, pad = crop_to_aspect_ratio, pad_to_aspect_ratio
    y = resizing(batched, *size, interpolation, crop, pad, fill_mode, fill_value, antialias, data_format)
    return y if len(images.shape) == 4 else ops.squeeze(y, 0)


@layer("ops.RGBToGrayscale")
def rgb_to_grayscale(images: Array, /, data_format: str | None = None) -> Array:
    """The brightness of red, green and blue, with the weights of ITU-R BT.601 as TensorFlow has them."""
    x = to_first(images, data_format, "rgb_to_grayscale")
    red, green, blue = ops.split(floating(x), 3, 1)
    y = ops.add(ops.add(ops.multiply(red, 0.2989), ops.multiply(green, 0.5870)), ops.multiply(blue, 0.1140))
    return from_first(ops.cast(y, images.dtype), data_format, "rgb_to_grayscale")


def _margins(before: Any, after: Any, target: Any, size: int, sign: int, name: str) -> tuple[int, int]:
    """What is added (sign 1) or cut (-1) before and after, of which the target size gives the one that is missing."""
    if [before, after, target].count(None) != 1:
        raise ArgumentError(f"{name}: two of before, after and the size are needed for each axis")
    if target is not None:
        total = sign * (target - size)
        before, after = (total - after if before is None else before), (total - before if after is None else after)
    return before, after


@layer("ops.PadImages")
def pad_images(
    images: Array,
    /,
    top_padding: int | None = None,
    left_padding: int | None = None,
    bottom_padding: int | None = None,
    right_padding: int | None = None,
    target_height: int | None = None,
    target_width: int | None = None,
    data_format: str | None = None,
) -> Array:
    """Zeros around pictures."""
    height, width = spatial_axes(images, data_format, "pad_images")
    pairs = {
        height: _margins(top_padding, bottom_padding, target_height, int(images.shape[height]), 1, "pad_images"),
        width: _margins(left_padding, right_padding, target_width, int(images.shape[width]), 1, "pad_images"),
    }
    return ops.pad(images, tuple([pairs.get(axis, (0, 0)) for axis in range(len(images.shape))]))


@layer("ops.CropImages")
def crop_images(
    images: Array,
    /,
    top_cropping: int | None = None,
    left_cropping: int | None = None,
    bottom_cropping: int | None = None,
    right_cropping: int | None = None,
    target_height: int | None = None,
    target_width: int | None = None,
    data_format: str | None = None,
) -> Array:
    """A part of pictures."""
    height, width = spatial_axes(images, data_format, "crop_images")
    key = [slice(None)] * len(images.shape)
    for axis, before, after, target in (
        (height, top_cropping, bottom_cropping, target_height),
        (width, left_cropping, right_cropping, target_width),
    ):
        size = int(images.shape[axis])
        start, end = _margins(before, after, target, size, -1, "crop_images")
        key[axis] = slice(start, size - end)
    return images[tuple(key)]


# -- colours -------------------------------------------------------------------------------------------------------


@layer("ops.RGBToHSV")
def rgb_to_hsv(images: Array, /, data_format: str | None = None) -> Array:
    """Hue, saturation and value, from 0 to 1, of red, green and blue; a hue of 0 is red."""
    axis = 1 if is_channels_first(data_format, "rgb_to_hsv") else -1
    images = ops.where(ops.less(ops.abs(images), float(np.finfo(np.float32).eps)), 0.0, images)
    red, green, blue = ops.split(images, 3, axis)
    value = ops.maximum(ops.maximum(red, green), blue)
    spread = ops.subtract(value, ops.minimum(ops.minimum(red, green), blue))
    some, lit = ops.greater(spread, 0.0), ops.greater(value, 0.0)
    saturation = ops.where(lit, ops.divide(spread, ops.where(lit, value, 1.0)), 0.0)
    sixth = ops.reciprocal(ops.multiply(ops.where(some, spread, 1.0), 6.0))
    of_green = ops.add(ops.multiply(sixth, ops.subtract(blue, red)), 2.0 / 6.0)
    of_blue = ops.add(ops.multiply(sixth, ops.subtract(red, green)), 4.0 / 6.0)
    of_red = ops.multiply(sixth, ops.subtract(green, blue))
    hue = ops.where(ops.equal(value, red), of_red, ops.where(ops.equal(value, green), of_green, of_blue))
    hue = ops.where(some, ops.where(ops.less(hue, 0.0), ops.add(hue, 1.0), hue), 0.0)
    return ops.concat((hue, saturation, value), axis)


@layer("ops.HSVToRGB")
def hsv_to_rgb(images: Array, /, data_format: str | None = None) -> Array:
    """Red, green and blue of hue, saturation and value."""
    axis = 1 if is_channels_first(data_format, "hsv_to_rgb") else -1
    hue, saturation, value = ops.split(images, 3, axis)
    sector = ops.multiply(ops.remainder(hue, 1.0), 6.0)
    parts = []
    for sign, centre, shift in ((1.0, 3.0, -1.0), (-1.0, 2.0, 2.0), (-1.0, 4.0, 2.0)):
        distance = ops.abs(ops.subtract(sector, centre))
        parts.append(ops.clip(ops.add(ops.multiply(distance, sign), shift), 0.0, 1.0))
    grey = ops.subtract(1.0, saturation)
    return ops.concat([ops.multiply(value, ops.add(grey, ops.multiply(saturation, part))) for part in parts], axis)


# -- cells and their neighbours ------------------------------------------------------------------------------------


@layer("ops.ExtractPatches")
def extract_patches(
    images: Array,
    /,
    size: Any,
    strides: Any = None,
    dilation_rate: Any = 1,
    padding: str = "valid",
    data_format: str | None = None,
) -> Array:
    """The window of each position as one vector: rows, columns, then channels."""
    require_rank(images, 4, "extract_patches")
    window = per_axis(size, 2, "extract_patches", "size")
    steps = window if strides is None else per_axis(strides, 2, "extract_patches", "strides")
    dilation = per_axis(dilation_rate, 2, "extract_patches", "dilation_rate")
    x = to_first(images, data_format, "extract_patches")
    count = window[0] * window[1] * int(x.shape[1])
    each = np.eye(count, dtype=np.float32).reshape(count, *window, int(x.shape[1])).transpose(0, 3, 1, 2)
    y = ops.conv(x, ops.cast(each, x.dtype), None, steps, padding, dilation, 1)
    return from_first(y, data_format, "extract_patches")


def _blocks(x: Array, block_size: int, data_format: str | None, name: str, deep: bool) -> Array:
    require_rank(x, 4, name)
    y = ops.moveaxis(x, 1, -1) if is_channels_first(data_format, name) else x
    count, height, width, channels = [int(n) for n in y.shape]
    if deep:
        channels //= block_size**2
        y = ops.reshape(y, (count, height, width, block_size, block_size, channels))
        sizes: tuple[int, ...] = (count, height * block_size, width * block_size, channels)
    else:
        height, width = height // block_size, width // block_size
        y = ops.reshape(y, (count, height, block_size, width, block_size, channels))
        sizes = (count, height, width, channels * block_size**2)
    y = ops.reshape(ops.transpose(y, (0, 1, 3, 2, 4, 5)), sizes)
    return ops.moveaxis(y, -1, 1) if is_channels_first(data_format, name) else y


@layer("ops.DepthToSpace")
def depth_to_space(x: Array, /, block_size: int, data_format: str | None = None) -> Array:
    """Channels as blocks of block_size by block_size cells."""
    return _blocks(x, block_size, data_format, "depth_to_space", True)


@layer("ops.SpaceToDepth")
def space_to_depth(x: Array, /, block_size: int, data_format: str | None = None) -> Array:
    """Blocks of block_size by block_size cells as channels."""
    return _blocks(x, block_size, data_format, "space_to_depth", False)
