"""Convolution with one input channel per group (depthwise): multiply and add tap by tap on flat arrays.

Images are padded and split into one phase per stride remainder, so that each tap is a contiguous range of one phase
and the array module's inner loops are long however small or strided the images are. Work goes through blocks of
channels and images that the cache holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod
from typing import Any

import numpy as np

from zoonet.ops.types import Array
from zoonet.ops.windows import Windows

#: Elements of one block on the CPU, and the least length of its inner loops.
BLOCK_ELEMENTS = 1 << 15
INNER_LENGTH = 512


class _Phases:
    """The layout of phases: `pitch` cells per axis for each phase, a shift and phase for each tap."""

    def __init__(self, windows: Windows) -> None:
        self.windows = windows
        self.pitch = tuple(
            out + (k - 1) * d // s
            for out, k, d, s in zip(windows.output, windows.kernel, windows.dilation, windows.stride, strict=True)
        )
        self.size = prod(self.pitch)
        self.split = Windows(
            windows.input, windows.stride, windows.stride, (1,) * len(self.pitch), windows.before, self.pitch
        )
        steps = [prod(self.pitch[axis + 1 :]) for axis in range(len(self.pitch))]
        self.taps = []
        for tap in product(*map(range, windows.kernel)):
            offsets = [t * d for t, d in zip(tap, windows.dilation, strict=True)]
            phase = tuple(o % s for o, s in zip(offsets, windows.stride, strict=True))
            shift = sum(o // s * step for o, s, step in zip(offsets, windows.stride, steps, strict=True))
            self.taps.append((tap, phase, shift))
        self.longest_shift = max(shift for _, _, shift in self.taps)
        self.used = {phase for _, phase, _ in self.taps}
        self.inside = (..., *[slice(0, n) for n in windows.output])
        reach = [n * s - b for n, s, b in zip(self.pitch, windows.stride, windows.before, strict=True)]
        self.stops_short = any(end < n for end, n in zip(reach, windows.input, strict=True))

    def blocks(self, xp: Any, images: int, channels: int) -> Iterator[tuple[slice, slice]]:
        """Images and channels in blocks; all at once on the GPU."""
        count, width = images, channels
        if xp is np:
            count = max(1, min(images, -(-INNER_LENGTH // self.size)))
            width = max(1, min(channels, BLOCK_ELEMENTS // (count * self.size)))
        for image in range(0, images, count):
            for channel in range(0, channels, width):
                yield (
                    slice(image, min(image + count, images)),
                    slice(channel, min(channel + width, channels)),
                )

    def fill(self, xp: Any, images: Array, buffer: Array | None) -> Array:
        """Phases (c, *stride, n, *pitch) of images (c, n, *input), in the buffer if it has that shape.

        The padding of a buffer that comes from here is zero already.
        """
        shape = (images.shape[0], *self.windows.stride, images.shape[1], *self.pitch)
        if buffer is None or buffer.shape != shape:
            buffer = xp.zeros(shape, images.dtype)
        for phase, output, input in self.split.taps():
            if phase in self.used:
                buffer[(slice(None), *phase)][(..., *output)] = images[(..., *input)]
        return buffer

    def collect(self, phases: Array, images: Array) -> None:
        """Write phases back to images (c, n, *input)."""
        for phase, output, input in self.split.taps():
            images[(..., *input)] = phases[(slice(None), *phase)][(..., *output)]

    def flat(self, phases: Array, phase: tuple[int, ...], shift: int) -> Array:
        """The cells (c, length) of a phase that one tap meets."""
        cells = phases[(slice(None), *phase)].reshape(len(phases), -1)
        return cells[:, shift : cells.shape[1] - self.longest_shift + shift]


def convolve_depthwise(xp: Any, x: Array, weight: Array, bias: Array | None, windows: Windows, out: Array) -> Array:
    """Write to out (N, C·m, *output) the convolution of x (N, C, *input) by weight (C·m, 1, *kernel)."""
    count, channels = x.shape[:2]
    layout = _Phases(windows)
    factors = weight.reshape(channels, -1, *windows.kernel)
    multiplier = factors.shape[1]
    target = out.reshape(count, channels, multiplier, *windows.output).swapaxes(0, 1)
    source = x.swapaxes(0, 1)
    buffer = sums = term = None
    for images, block in layout.blocks(xp, count, channels):
        buffer = layout.fill(xp, source[block, images], buffer)
        width, joined = len(buffer), images.stop - images.start
        length = joined * layout.size - layout.longest_shift
        if sums is None or sums.shape != (width, multiplier, joined * layout.size):
            sums = xp.empty((width, multiplier, joined * layout.size), out.dtype)
            term = xp.empty((width, multiplier, length), out.dtype)
        total = sums[..., :length]
        for position, (tap, phase, shift) in enumerate(layout.taps):
            cells = layout.flat(buffer, phase, shift)[:, None]
            factor = factors[(block, slice(None), *tap)][..., None]
            xp.multiply(cells, factor, out=term if position else total)
            if position:
                xp.add(total, term, out=total)
        if bias is not None:
            xp.add(total, bias.reshape(channels, multiplier, 1)[block], out=total)
        result = sums.reshape(width, multiplier, joined, *layout.pitch)[layout.inside]
        target[block, images] = result.swapaxes(1, 2)
    return out


def spread_depthwise(xp: Any, x: Array, weight: Array, windows: Windows, out: Array) -> Array:
    """Write to out (N, C, *input) the transpose of a depthwise convolution, for x (N, C, *output)."""
    count, channels = x.shape[:2]
    layout = _Phases(windows)
    source, target = x.swapaxes(0, 1), out.swapaxes(0, 1)
    if layout.stops_short:
        out[...] = 0
    rows: Any = None
    phases: Any = None
    term: Any = None
    for images, block in layout.blocks(xp, count, channels):
        width, joined = block.stop - block.start, images.stop - images.start
        if rows is None or rows.shape[:2] != (width, joined):
            rows = xp.zeros((width, joined, *layout.pitch), out.dtype)
            phases = xp.empty((width, *windows.stride, joined, *layout.pitch), out.dtype)
            term = xp.empty((width, joined * layout.size - layout.longest_shift), out.dtype)
        rows[layout.inside] = source[block, images]
        phases[...] = 0
        cells = rows.reshape(width, -1)[:, : term.shape[1]]
        for tap, phase, shift in layout.taps:
            place = layout.flat(phases, phase, shift)
            xp.multiply(cells, weight[(block, 0, *tap)][:, None], out=term)
            xp.add(place, term, out=place)
        layout.collect(phases, target[block, images])
    return out


def correlate_depthwise(xp: Any, x: Array, gy: Array, windows: Windows, groups: int) -> Array:
    """The weight gradient (C·m, 1, *kernel) of a depthwise convolution: one sum of products per tap."""
    layout = _Phases(windows)
    split = gy.reshape(len(gy), groups, -1, *windows.output).transpose(1, 2, 0, *range(3, gy.ndim + 1))
    result = xp.zeros((groups, split.shape[1], *windows.kernel), gy.dtype)
    source = x.swapaxes(0, 1)
    buffer = rows = None
    for images, block in layout.blocks(xp, len(x), groups):
        buffer = layout.fill(xp, source[block, images], buffer)
        joined = images.stop - images.start
        shape = (len(buffer), split.shape[1], joined, *layout.pitch)
        if rows is None or rows.shape != shape:
            rows = xp.zeros(shape, gy.dtype)
        rows[layout.inside] = split[block, :, images]
        for tap, phase, shift in layout.taps:
            cells = layout.flat(buffer, phase, shift)
            weights = rows.reshape(*shape[:2], -1)[..., : cells.shape[1]]
            result[(block, slice(None), *tap)] += xp.matmul(weights, cells[..., None])[..., 0]
    return result.reshape(gy.shape[1], 1, *windows.kernel)
