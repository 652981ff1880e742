"""Reductions over sliding windows, one axis after the other: the array algorithms behind pooling.

Maximum and sum over a window are those of its axes in turn, so a k×k window costs 2k passes in place of k². Each pass
combines whole slices. Arrays go through in blocks that the processor's cache holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any, TypeAlias

import numpy as np

from zoonet.ops.types import FLOATING, Array, DType, kind_of
from zoonet.ops.windows import Windows

#: Elements of one block on the CPU.
BLOCK_ELEMENTS = 1 << 17
#: For one axis, pairs of the output positions (a slice) and the input positions (a slice or indices) of each tap.
Taps: TypeAlias = "Sequence[tuple[slice[Any, Any, Any], Any]]"


def window_taps(windows: Windows) -> list[Taps]:
    """The taps of every axis that meet the input somewhere."""
    axes: list[Taps] = []
    for axis, size in enumerate(windows.kernel):
        pairs = [windows.overlap(axis, tap) for tap in range(size)]
        axes.append([pair for pair in pairs if pair[0].start < pair[0].stop])
    return axes


def image_blocks(xp: Any, x: Array) -> Iterator[tuple[slice, slice]]:
    """Images and channels of x in blocks; all at once on the GPU."""
    images, channels = x.shape[:2]
    if xp is not np:
        yield slice(0, images), slice(0, channels)
        return
    plane = max(1, prod(x.shape[2:]))
    count = max(1, BLOCK_ELEMENTS // max(1, plane * channels))
    width = max(1, min(channels, BLOCK_ELEMENTS // plane))
    for image in range(0, images, count):
        for channel in range(0, channels, width):
            yield slice(image, image + count), slice(channel, channel + width)


def _at(axis: int, selection: Any) -> tuple[Any, ...]:
    """An index of the spatial axis `axis` of an (N, C, spatial...) array."""
    return (slice(None),) * (2 + axis) + (selection,)


def lowest(dtype: DType) -> Any:
    """The value below all others of a dtype."""
    return -np.inf if kind_of(dtype) == FLOATING else np.iinfo(dtype).min


def reduce_windows(
    xp: Any, x: Array, taps: Sequence[Taps], combine: Callable[..., Any], initial: Any, out: Array
) -> Array:
    """Write to out (N, C, *output) what combine, a ufunc, makes of each window of x (N, C, *input)."""
    sizes = out.shape[2:]
    for images, channels in image_blocks(xp, x):
        values = x[images, channels]
        for axis, pairs in enumerate(taps):
            shape = (*values.shape[: 2 + axis], sizes[axis], *values.shape[3 + axis :])
            result = out[images, channels] if axis == len(taps) - 1 else xp.empty(shape, out.dtype)
            whole = next((i for i, p in enumerate(pairs) if p[0].stop - p[0].start == sizes[axis]), None)
            result[...] = initial if whole is None else values[_at(axis, pairs[whole][1])]
            for position, (output, input) in enumerate(pairs):
                if position != whole:
                    place = result[_at(axis, output)]
                    combine(place, values[_at(axis, input)], out=place)
            values = result
    return out


def spread_windows(xp: Any, gy: Array, windows: Windows) -> Array:
    """The transpose of summing over windows: (N, C, *output) -> (N, C, *input)."""
    out = xp.empty((*gy.shape[:2], *windows.input), gy.dtype)
    axes = window_taps(windows)
    for images, channels in image_blocks(xp, out):
        values = gy[images, channels]
        for axis in reversed(range(len(axes))):
            shape = (*values.shape[: 2 + axis], windows.input[axis], *values.shape[3 + axis :])
            result = out[images, channels] if axis == 0 else xp.empty(shape, gy.dtype)
            result[...] = 0
            for output, input in axes[axis]:
                place = result[_at(axis, input)]
                xp.add(place, values[_at(axis, output)], out=place)
            values = result
    return out


def max_with_indices(xp: Any, x: Array, taps: Sequence[Taps], sizes: Sequence[int]) -> tuple[Array, Array]:
    """The maximum of each window and the place of its first occurrence in the flattened spatial axes, int64.

    Going from the last axis to the first, the first maximum on each is the first in row-major order.
    """
    values = xp.empty((*x.shape[:2], *sizes), x.dtype)
    indices = xp.empty(values.shape, np.int64)
    for images, channels in image_blocks(xp, x):
        best, places = x[images, channels], None
        for axis in reversed(range(len(taps))):
            best, places = _max_along(xp, best, places, taps[axis], axis, sizes[axis], x.shape[2:])
        values[images, channels] = best
        indices[images, channels] = places
    return values, indices


def _max_along(
    xp: Any, values: Array, places: Array | None, pairs: Taps, axis: int, size: int, spatial: Sequence[int]
) -> tuple[Array, Array]:
    shape = (*values.shape[: 2 + axis], size, *values.shape[3 + axis :])
    best = xp.full(shape, lowest(values.dtype), values.dtype)
    for output, input in pairs:
        top = best[_at(axis, output)]
        xp.maximum(top, values[_at(axis, input)], out=top)
    # The winner is the largest code of a tap that holds the maximum; the earlier the tap, the larger its code.
    codes = np.dtype(np.uint8 if len(pairs) < 256 else np.int32)
    winner = xp.zeros(shape, codes)
    unordered = kind_of(values.dtype) == FLOATING and bool(xp.isnan(best).any())
    for tap, (output, input) in enumerate(pairs):
        candidate = values[_at(axis, input)]
        chosen = candidate == best[_at(axis, output)]
        if unordered:
            chosen |= candidate != candidate
        place = winner[_at(axis, output)]
        xp.maximum(place, chosen.astype(codes) * codes.type(len(pairs) - tap), out=place)
    cells = xp.zeros((len(pairs) + 1, size), np.int64)  # by code and output position; code 0 is nowhere
    numbers = xp.arange(spatial[axis])
    for tap, (output, input) in enumerate(pairs):
        cells[len(pairs) - tap, output] = numbers[input]
    along = xp.arange(size).reshape(-1, *(1,) * (len(spatial) - axis - 1))
    cell = cells.ravel()[winner.astype(np.int64) * size + along]
    step = prod(spatial[axis + 1 :])
    if places is None:
        return best, cell
    return best, cell * step + xp.take_along_axis(places, cell, axis=2 + axis)
