"""Convolution by matrix products on columns: the array algorithms behind conv, conv_transpose, unfold and fold.

Columns (im2col) are filled tap by tap from clipped slices, so nothing is padded and no loop runs over pixels. They
live in one scratch buffer of bounded size, reused from chunk to chunk: some images, or some rows of one image. The
processor's matrix product is as fast on chunks that its cache holds, so the bound is small there; a GPU gets more.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from zoonet.ops.depthwise import convolve_depthwise, correlate_depthwise, spread_depthwise
from zoonet.ops.types import Array
from zoonet.ops.windows import Windows

#: Bytes of scratch for columns: on the CPU forward, on the CPU where chunks are accumulated, and on the GPU.
FORWARD_BYTES = 4 << 20
ACCUMULATE_BYTES = 16 << 20
GPU_BYTES = 256 << 20
#: Images are joined in one product until it has this many columns, or this many numbers in them, fewer being slow.
JOINED_COLUMNS, JOINED_NUMBERS = 512, 1 << 18
#: Numbers per tap below which columns are copied from one view of all taps: calls cost more than their work there.
_FEW = 1 << 15


def _scratch_bytes(xp: Any, accumulate: bool) -> int:
    if xp is not np:
        return GPU_BYTES
    return ACCUMULATE_BYTES if accumulate else FORWARD_BYTES


def _chunks(images: int, windows: Windows, bytes_per_row: int, bound: int, joined: int) -> Iterator[Any]:
    """(first image, last image, first row, last row) of chunks whose columns fit the bound (at least one row)."""
    rows = windows.output[0]
    if rows * bytes_per_row > bound:
        step = max(1, bound // bytes_per_row)
        for image in range(images):
            for row in range(0, rows, step):
                yield image, image + 1, row, min(row + step, rows)
        return
    positions = prod(windows.output)
    count = max(1, min(images, bound // max(1, rows * bytes_per_row), -(-joined // positions)))
    for image in range(0, images, count):
        yield image, min(image + count, images), 0, rows


def fill_columns(columns: Array, images: Array, windows: Windows, start: int, stop: int) -> None:
    """Columns (..., *kernel, n, rows, *rest of output) from images (..., n, *input), zero in the padding."""
    rank = len(windows.kernel)
    whole = start == 0 and stop == windows.output[0]
    if whole and isinstance(images, np.ndarray) and prod(images.shape[:-rank]) * prod(windows.output) < _FEW:
        columns[...] = _window_view(images, windows)
        return
    lead = (slice(None),) * (images.ndim - rank - 1)
    every = slice(None)
    sizes = (stop - start, *windows.output[1:])
    for tap, output, input in windows.taps(start, stop):
        target = columns[(*lead, *tap)]
        target[(..., *output)] = images[(..., *input)]
        for axis, (part, size) in enumerate(zip(output, sizes, strict=True)):
            rest = (every,) * (rank - axis - 1)
            if part.start > 0 or part.stop < size:
                target[(..., slice(0, part.start), *rest)] = 0
                target[(..., slice(part.stop, size), *rest)] = 0


def _window_view(images: Array, windows: Windows) -> Array:
    """Windows of images (..., n, *input) as a view (..., *kernel, n, *output); of a padded copy where they go out."""
    rank = len(windows.kernel)
    lead = images.shape[:-rank]
    axes = zip(windows.output, windows.stride, windows.kernel, windows.dilation, strict=True)
    reached = [(out - 1) * stride + (size - 1) * dilation + 1 for out, stride, size, dilation in axes]
    inside = all(b == 0 and n >= r for b, n, r in zip(windows.before, windows.input, reached, strict=True))
    if not inside:
        sizes = [max(r, b + n) for b, n, r in zip(windows.before, windows.input, reached, strict=True)]
        padded = np.zeros((*lead, *sizes), images.dtype)
        place: tuple[Any, ...] = tuple([slice(b, b + n) for b, n in zip(windows.before, windows.input, strict=True)])
        padded[(..., *place)] = images
        images = padded
    steps = images.strides[-rank:]
    taps = [step * dilation for step, dilation in zip(steps, windows.dilation, strict=True)]
    moves = [step * stride for step, stride in zip(steps, windows.stride, strict=True)]
    return np.lib.stride_tricks.as_strided(
        images,
        (*lead[:-1], *windows.kernel, lead[-1], *windows.output),
        (*images.strides[: -rank - 1], *taps, images.strides[-rank - 1], *moves),
        writeable=False,
    )


def _grouped(x: Array, groups: int) -> Array:
    """(N, C, ...) as (G, C/G, N, ...), a view."""
    split = x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])
    return split.transpose(1, 2, 0, *range(3, split.ndim))


def convolve(xp: Any, x: Array, weight: Array, bias: Array | None, windows: Windows, groups: int, out: Array) -> Array:
    """Write the convolution of x (N, C, *input) by weight (O, C/G, *kernel) to out (N, O, *output), contiguous."""
    channels = weight.shape[1]
    if channels == 1 and groups > 1:
        return convolve_depthwise(xp, x, weight, bias, windows, out)
    count, outputs = len(x), len(weight) // groups
    depth, rest = channels * prod(windows.kernel), prod(windows.output[1:])
    matrix = xp.ascontiguousarray(weight).reshape(groups, outputs, depth)
    images = _grouped(x, groups)
    target = out.reshape(count, groups, outputs, prod(windows.output))
    offset = None if bias is None else bias.reshape(groups, outputs, 1)
    bytes_per_row = groups * depth * rest * out.dtype.itemsize
    scratch = product = None
    joined = max(JOINED_COLUMNS, JOINED_NUMBERS // (groups * depth))
    for n0, n1, r0, r1 in _chunks(count, windows, bytes_per_row, _scratch_bytes(xp, False), joined):
        size = (n1 - n0) * (r1 - r0) * rest
        if scratch is None:
            scratch = xp.empty(groups * depth * size, out.dtype)
        shape = (groups, channels, *windows.kernel, n1 - n0, r1 - r0, *windows.output[1:])
        columns = scratch[: groups * depth * size].reshape(shape)
        fill_columns(columns, images[:, :, n0:n1], windows, r0, r1)
        columns = columns.reshape(groups, depth, size)
        if n1 - n0 == 1:
            part = target[n0, :, :, r0 * rest : r1 * rest]
            xp.matmul(matrix, columns, out=part)
            if offset is not None:
                xp.add(part, offset, out=part)
            continue
        product = xp.matmul(matrix, columns)
        if offset is not None:
            xp.add(product, offset, out=product)
        target[n0:n1] = product.reshape(groups, outputs, n1 - n0, -1).transpose(2, 0, 1, 3)
    return out


def convolve_transposed(
    xp: Any, x: Array, weight: Array, bias: Array | None, windows: Windows, groups: int, out: Array
) -> Array:
    """Write the transpose of a convolution to out (N, O, *windows.input), for x (N, C, *windows.output).

    weight: (C, O/G, *kernel). With stride 1 it is a convolution by the flipped kernel, otherwise the columns'
    products are added tap by tap.
    """
    count, channels = len(x), len(weight) // groups
    outputs = weight.shape[1]
    if max(windows.stride) == 1 and prod(windows.kernel) > 1:
        split = weight.reshape(groups, channels, *weight.shape[1:]).swapaxes(1, 2)
        flipped = split[(..., *(slice(None, None, -1),) * len(windows.kernel))]
        turned = xp.ascontiguousarray(flipped).reshape(groups * outputs, channels, *windows.kernel)
        return convolve(xp, x, turned, bias, _flipped(windows), groups, out)
    offset = None if bias is None else bias.reshape(-1, *(1,) * len(windows.kernel))
    if channels == 1 and outputs == 1:
        spread_depthwise(xp, x, weight, windows, out)
        return out if offset is None else xp.add(out, offset, out=out)
    out[...] = 0 if offset is None else offset
    depth, rest = outputs * prod(windows.kernel), prod(windows.output[1:])
    matrix = weight.reshape(groups, channels, depth).swapaxes(1, 2)
    target = _grouped(out, groups)
    bytes_per_row = groups * depth * rest * out.dtype.itemsize
    for n0, n1, r0, r1 in _chunks(count, windows, bytes_per_row, _scratch_bytes(xp, False), JOINED_COLUMNS):
        part = _grouped(x[n0:n1, :, r0:r1], groups).reshape(groups, channels, -1)
        columns = xp.matmul(matrix, part)
        shape = (groups, outputs, *windows.kernel, n1 - n0, r1 - r0, *windows.output[1:])
        add_columns(xp, columns.reshape(shape), target[:, :, n0:n1], windows, r0, r1)
    return out


def add_columns(xp: Any, columns: Array, images: Array, windows: Windows, start: int, stop: int) -> None:
    """Add columns (..., *kernel, n, rows, *rest of output) to images (..., n, *input): the transpose of filling."""
    lead = (slice(None),) * (images.ndim - len(windows.kernel) - 1)
    for tap, output, input in windows.taps(start, stop):
        place = images[(..., *input)]
        xp.add(place, columns[(*lead, *tap)][(..., *output)], out=place)


def correlate(xp: Any, x: Array, gy: Array, windows: Windows, groups: int) -> Array:
    """The gradient of a convolution's weight (O, C/G, *kernel), from x (N, C, *input) and gy (N, O, *output)."""
    count, channels, outputs = len(x), x.shape[1] // groups, gy.shape[1] // groups
    if not count:
        return xp.zeros((gy.shape[1], channels, *windows.kernel), gy.dtype)
    if channels == 1 and groups > 1:
        return correlate_depthwise(xp, x, gy, windows, groups)
    depth, rest = channels * prod(windows.kernel), prod(windows.output[1:])
    result = xp.zeros((groups, outputs, depth), gy.dtype)
    images = _grouped(x, groups)
    bytes_per_row = groups * depth * rest * gy.dtype.itemsize
    bound = _scratch_bytes(xp, True)
    scratch = None
    for n0, n1, r0, r1 in _chunks(count, windows, bytes_per_row, bound, joined=1 << 40):
        size = (n1 - n0) * (r1 - r0) * rest
        if scratch is None:
            scratch = xp.empty(groups * depth * size, gy.dtype)
        shape = (groups, channels, *windows.kernel, n1 - n0, r1 - r0, *windows.output[1:])
        columns = scratch[: groups * depth * size].reshape(shape)
        fill_columns(columns, images[:, :, n0:n1], windows, r0, r1)
        part = _grouped(gy[n0:n1, :, r0:r1], groups).reshape(groups, outputs, size)
        product = xp.matmul(part, columns.reshape(groups, depth, size).swapaxes(1, 2))
        xp.add(result, product, out=result)
    return result.reshape(groups * outputs, channels, *windows.kernel)


def _flipped(windows: Windows) -> Windows:
    """The windows of the stride-1 convolution that goes back from output to input."""
    before = [d * (k - 1) - b for d, k, b in zip(windows.dilation, windows.kernel, windows.before, strict=True)]
    return Windows(windows.output, windows.kernel, windows.stride, windows.dilation, tuple(before), windows.input)
