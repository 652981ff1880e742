"""Layers that rearrange, pad, crop and resize."""

from __future__ import annotations

import math
from typing import Any

from zoonet import ops
from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.sets.keras.common import (
    LARGEST_SIDE,
    Sizes,
    affordable,
    floating,
    is_channels_first,
    pairs_per_axis,
    per_axis,
    require_rank,
    spatial_axes,
)
from zoonet.ops.sets.keras.registry import layer
from zoonet.ops.types import Array, is_floating


@layer("Flatten")
def flatten(inputs: Array, /, data_format: str | None = None) -> Array:
    """All axes but the first as one, in the order of channels_last."""
    x = ops.moveaxis(inputs, 1, -1) if is_channels_first(data_format, "Flatten") and len(inputs.shape) > 2 else inputs
    return ops.reshape(x, (int(x.shape[0]), math.prod(int(n) for n in x.shape[1:])))


@layer("Reshape")
def reshape(inputs: Array, /, target_shape: tuple[int, ...]) -> Array:
    """Another shape for all axes but the first; one size may be -1."""
    return ops.reshape(inputs, (int(inputs.shape[0]), *target_shape))


@layer("Permute")
def permute(inputs: Array, /, dims: tuple[int, ...]) -> Array:
    """The axes after the first in another order, counted from 1."""
    return ops.transpose(inputs, (0, *dims))


@layer("RepeatVector")
def repeat_vector(inputs: Array, /, n: int) -> Array:
    """(N, features) -> (N, n, features)."""
    require_rank(inputs, 2, "RepeatVector")
    return ops.repeat(ops.expand_dims(inputs, 1), n, 1)


def _declare_padding(rank: int) -> None:
    padding_name, cropping_name, up_name = f"ZeroPadding{rank}D", f"Cropping{rank}D", f"UpSampling{rank}D"
    ones, twos = (1 if rank == 1 else (1,) * rank), (2 if rank == 1 else (2,) * rank)

    @layer(padding_name)
    def zero_padding(inputs: Array, /, padding: Any = ones, data_format: str | None = None) -> Array:
        """Zeros around the spatial axes: a number, one per axis, or pairs."""
        require_rank(inputs, rank + 2, padding_name)
        pairs = dict(
            zip(
                spatial_axes(inputs, data_format, padding_name),
                pairs_per_axis(padding, rank, padding_name, "padding"),
                strict=True,
            )
        )
        return ops.pad(inputs, tuple([pairs.get(axis, (0, 0)) for axis in range(rank + 2)]))

    @layer(cropping_name)
    def cropping(inputs: Array, /, cropping: Any = ones, data_format: str | None = None) -> Array:
        """Positions cut off the spatial axes: a number, one per axis, or pairs."""
        require_rank(inputs, rank + 2, cropping_name)
        key = [slice(None)] * (rank + 2)
        for axis, (before, after) in zip(
            spatial_axes(inputs, data_format, cropping_name),
            pairs_per_axis(cropping, rank, cropping_name, "cropping"),
            strict=True,
        ):
            size = int(inputs.shape[axis])
            if before + after >= size:
                raise ShapeError(f"{cropping_name}: nothing is left", expected=f"below {size}", received=cropping)
            key[axis] = slice(before, size - after)
        return inputs[tuple(key)]

    def up_sampling(
        inputs: Array, /, size: Sizes = twos, data_format: str | None = None, interpolation: str = "nearest"
    ) -> Array:
        """Each position repeated, or pictures resized, by whole factors."""
        require_rank(inputs, rank + 2, up_name)
        factors = per_axis(size, rank, up_name, "size")
        axes = spatial_axes(inputs, data_format, up_name)
        if interpolation == "nearest":
            x = inputs
            for axis, factor in zip(axes, factors, strict=True):
                x = ops.repeat(x, factor, axis)
            return x
        sizes = tuple([int(inputs.shape[axis]) * factor for axis, factor in zip(axes, factors, strict=True)])
        return resize_pictures(inputs, sizes, axes, interpolation, False)

    def up_sampling_1d(inputs: Array, /, size: int = 2) -> Array:
        """Each step repeated."""
        return up_sampling(inputs, size)

    def up_sampling_3d(inputs: Array, /, size: Sizes = twos, data_format: str | None = None) -> Array:
        """Each cell repeated."""
        return up_sampling(inputs, size, data_format)

    layer(up_name)({1: up_sampling_1d, 2: up_sampling, 3: up_sampling_3d}[rank])


for _rank in (1, 2, 3):
    _declare_padding(_rank)


def resize_pictures(
    x: Array, sizes: tuple[int, ...], axes: tuple[int, ...], interpolation: str, antialias: bool
) -> Array:
    """Pictures resized by half-pixel centres, as TensorFlow does."""
    modes = {"nearest": "nearest", "bilinear": "linear", "bicubic": "cubic"}
    if interpolation not in modes:
        raise ArgumentError("unknown interpolation", expected=", ".join(modes), received=interpolation)
    for size in sizes:
        affordable(size, LARGEST_SIDE, "Resizing", "a side of the picture")
    cubic, smooth = interpolation == "bicubic", antialias and interpolation != "nearest"
    return ops.resize(
        x,
        sizes=sizes,
        axes=axes,
        mode=modes[interpolation],
        nearest="round_prefer_ceil",
        cubic_coeff_a=-0.5 if cubic else -0.75,
        exclude_outside=cubic or smooth,
        antialias=smooth,
    )


@layer("Resizing")
def resizing(
    inputs: Array,
    /,
    height: int,
    width: int,
    interpolation: str = "bilinear",
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    fill_mode: str = "constant",
    fill_value: float = 0.0,
    antialias: bool = False,
    data_format: str | None = None,
) -> Array:
    """Pictures (N, H, W, C), or (N, C, H, W), resized to height and width.

    crop_to_aspect_ratio: the largest middle part of the wanted proportions is taken; pad_to_aspect_ratio: the picture
    is surrounded by fill_value until it has them.
    """
    require_rank(inputs, 4, "Resizing")
    axes = spatial_axes(inputs, data_format, "Resizing")
    x = floating(inputs)
    rows, columns = (int(x.shape[axis]) for axis in axes)
    if crop_to_aspect_ratio:
        kept = (
            max(min(rows, int(float(columns * height) / width)), 1),
            max(min(columns, int(float(rows * width) / height)), 1),
        )
        x = _cut(x, axes, [((n - k) // 2, k) for n, k in zip((rows, columns), kept, strict=True)])
    elif pad_to_aspect_ratio:
        wanted = max(rows, int(float(columns * height) / width)), max(columns, int(float(rows * width) / height))
        around = dict(zip(axes, [int((w - n) / 2) for n, w in zip((rows, columns), wanted, strict=True)], strict=True))
        x = ops.pad(x, tuple([(around.get(i, 0), around.get(i, 0)) for i in range(4)]), "constant", fill_value)
    y = resize_pictures(x, (height, width), axes, interpolation, antialias)
    return y if is_floating(inputs.dtype) else ops.cast(ops.round(y), inputs.dtype)


def _cut(x: Array, axes: tuple[int, ...], windows: list[tuple[int, int]]) -> Array:
    key = [slice(None)] * len(x.shape)
    for axis, (start, size) in zip(axes, windows, strict=True):
        key[axis] = slice(start, start + size)
    return x[tuple(key)]


@layer("CenterCrop")
def center_crop(inputs: Array, /, height: int, width: int, data_format: str | None = None) -> Array:
    """The middle of pictures; smaller ones are resized so that they fill the size, in their proportions."""
    require_rank(inputs, 4, "CenterCrop")
    axes = spatial_axes(inputs, data_format, "CenterCrop")
    sizes = [int(inputs.shape[axis]) for axis in axes]
    if all(n >= wanted for n, wanted in zip(sizes, (height, width), strict=True)):
        return _cut(inputs, axes, [(int((n - w) / 2), w) for n, w in zip(sizes, (height, width), strict=True)])
    return resizing(inputs, height, width, "bilinear", True, data_format=data_format)
