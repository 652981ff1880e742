"""Operators that ONNX does not have, as products with constant matrices and gathers by constant indices.

Their maps depend on sizes alone, so that these must be fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np

from zoonet.formats.onnx.writing.builder import Builder
from zoonet.formats.onnx.writing.indexing import wrapped
from zoonet.formats.onnx.writing.shapes import reverse, widths_of
from zoonet.formats.onnx.writing.sizes import Dimension, Tensor
from zoonet.formats.onnx.writing.table import emitter
from zoonet.ops.adaptive_pooling import adaptive_ranges
from zoonet.ops.deformation import places
from zoonet.ops.fourier import dft, dft_gradient
from zoonet.ops.grid_sampling import affine_grid
from zoonet.ops.normalization import window_sum
from zoonet.ops.padding import pad, unpad
from zoonet.ops.rearranging import unfold
from zoonet.ops.resampling import resize, resize_gradient
from zoonet.ops.types import INTEGER, bool_, int64, kind_of


def fixed(b: Builder, sizes: Sequence[Dimension]) -> tuple[int, ...]:
    """The sizes, all of which must be fixed. Raises UnsupportedFormatError."""
    found = tuple([n for n in sizes if isinstance(n, int)])
    if len(found) < len(sizes):
        raise b.refuse("an axis of free size", "fix its size: leave it out of `dynamic`")
    return found


def along(b: Builder, x: str, matrix: Any, axis: int, rank: int) -> str:
    """A matrix (outputs, inputs) applied along one axis."""
    order = [i for i in range(rank) if i != axis] + [axis]
    whole = kind_of(matrix.dtype) <= INTEGER  # ONNX multiplies matrices of floats
    given = b.node("Cast", x, to=1) if whole else x
    weights = np.ascontiguousarray(matrix.T, np.float32 if whole else matrix.dtype)
    product = b.node("MatMul", b.transpose(given, order), b.constant(weights))
    y = b.transpose(product, [order.index(i) for i in range(rank)])
    return b.cast(y, matrix.dtype) if whole else y


def matrix_of(function: Callable[[Any], Any], inputs: int, dtype: Any) -> Any:
    """The matrix of a linear map of vectors: what it makes of each unit vector."""
    return np.stack([np.asarray(function(row)) for row in np.eye(inputs, dtype=dtype)], axis=1)


@emitter("window_sum")
def _(b: Builder, x: Tensor, axis: int, before: int, after: int) -> str:
    (size,) = fixed(b, [x.shape[axis]])
    matrix = matrix_of(lambda row: window_sum(row, 0, before, after), size, x.dtype)
    return along(b, x.name, matrix, axis % x.ndim, x.ndim)


@emitter("unrepeat")
def _(b: Builder, x: Tensor, repeats: Any, axis: int) -> str:
    matrix = np.zeros((len(repeats), sum(repeats)), x.dtype)
    matrix[np.repeat(np.arange(len(repeats)), repeats), np.arange(sum(repeats))] = 1
    return along(b, x.name, matrix, axis % x.ndim, x.ndim)


def padded_by_gathers(b: Builder, x: Tensor, pad_width: Any, mode: str) -> str:
    """Padding whose cells are cells of x, for modes that ONNX does not have."""
    y = x.name
    for axis, pair in enumerate(widths_of(x.ndim, pad_width)):
        if pair != (0, 0):
            (size,) = fixed(b, [x.shape[axis]])
            y = b.node("Gather", y, b.constant(np.asarray(pad(np.arange(size), (pair,), mode))), axis=axis)
    return y if y != x.name else b.node("Identity", x)


def unpadded(b: Builder, x: Tensor, pad_width: Any, mode: str) -> str:
    """The transpose of padding whose cells are cells of the array."""
    y = x.name
    whole = b.outputs[0]
    for axis, pair in enumerate(widths_of(x.ndim, pad_width)):
        if pair != (0, 0):
            size, padded = fixed(b, [whole.shape[axis], x.shape[axis]])
            matrix = matrix_of(partial(_called, unpad, (size,), ((pair,), mode)), padded, x.dtype)
            y = along(b, y, matrix, axis, x.ndim)
    return y if y != x.name else b.node("Identity", x)


@emitter("resize.gradient")
def _(b: Builder, gy: Tensor, shape: Any, sizes: Any, scales: Any, axes: Any, *options: Any) -> str:
    inputs = fixed(b, b.outputs[0].shape)
    *kinds, roi = options
    given = sizes if sizes is not None else scales
    chosen = range(len(inputs) - len(given), len(inputs)) if axes is None else [a % len(inputs) for a in axes]
    y = gy.name
    forward: Any = resize
    backward: Any = resize_gradient
    for place, axis in enumerate(chosen):
        size = inputs[axis]
        parts = [None if item is None else (item[place],) for item in (sizes, scales)]
        region = None if roi is None else (roi[place], roi[place + len(given)])
        call = (*parts, (0,), *kinds, region)
        length = len(forward(np.zeros(size, np.float32), *call))
        matrix = matrix_of(partial(_called, backward, (size,), call), length, gy.dtype)
        if not np.array_equal(matrix, np.eye(length, size)):
            y = along(b, y, matrix, axis, gy.ndim)
    return y if y != gy.name else b.node("Identity", gy)


def _called(function: Any, shape: tuple[int, ...], call: tuple[Any, ...], row: Any) -> Any:
    return function(row, shape, *call)


# -- Fourier transforms ------------------------------------------------------------------------------------------


@emitter("dft")
def _(b: Builder, x: Tensor, axis: int, length: Any, inverse: bool, onesided: bool) -> str:
    return _transformed(b, x, axis, lambda units: dft(units, 1, length, inverse, onesided))


@emitter("dft.gradient")
def _(b: Builder, gy: Tensor, count: Any, parts: int, axis: int, *options: Any) -> str:
    return _transformed(b, gy, axis, lambda units: dft_gradient(units, count, parts, 1, *options))


def _transformed(b: Builder, x: Tensor, axis: int, transform: Callable[[Any], Any]) -> str:
    """A linear map of an axis and the parts on the last one. transform: of (K, n, parts), on axis 1."""
    axis %= x.ndim
    size, parts = fixed(b, [x.shape[axis], x.shape[-1]])
    units = np.eye(size * parts, dtype=x.dtype).reshape(-1, size, parts)
    results = np.asarray(transform(units))  # (n · parts, m, new parts)
    rest = [i for i in range(x.ndim - 1) if i != axis]
    order = [*rest, axis, x.ndim - 1]
    leading = [x.shape[i] for i in rest]
    flat = b.reshape(b.transpose(x, order), [*leading, size * parts])
    product = b.node("MatMul", flat, b.constant(results.reshape(size * parts, -1)))
    y = b.reshape(product, [*leading, *results.shape[1:]])
    return b.transpose(y, [order.index(i) for i in range(x.ndim)])


# -- windows as columns ------------------------------------------------------------------------------------------


def _cells(b: Builder, spatial: Sequence[int], arguments: Any) -> Any:
    """For each entry of a column, by unfold, the cell that it comes from; the last one for padding."""
    numbers = np.arange(1, prod(spatial) + 1).reshape(1, 1, *spatial)
    cells = np.asarray(unfold(numbers, *arguments))[0] - 1
    return np.where(cells < 0, prod(spatial), cells)


@emitter("unfold")
def _(b: Builder, x: Tensor, *arguments: Any) -> str:
    spatial = fixed(b, x.shape[2:])
    cells = _cells(b, spatial, arguments)
    flat = b.reshape(x, [*x.shape[:2], prod(spatial)], x.shape)
    given = b.cast(flat, int64) if x.dtype == bool_ else flat
    kind = int64 if x.dtype == bool_ else x.dtype
    padded = b.node("Pad", given, b.ints([0, 0, 0, 0, 0, 1]), b.constant(np.asarray(0, kind)))
    y = b.node("Gather", padded, b.constant(cells.astype(np.int64)), axis=2)  # (N, C, taps, positions)
    result = b.reshape(y, b.outputs[0].shape)
    return b.cast(result, bool_) if x.dtype == bool_ else result


@emitter("fold")
def _(b: Builder, x: Tensor, output_size: Any, *arguments: Any) -> str:
    b.require(16)
    whole = b.outputs[0]
    spatial = fixed(b, whole.shape[2:])
    cells = _cells(b, spatial, arguments).reshape(-1)
    columns = b.reshape(x, [*whole.shape[:2], len(cells)])
    zeros = b.full([*whole.shape[:2], prod(spatial) + 1], 0, whole.dtype)
    places = b.expand(b.constant(cells.astype(np.int64)), [*whole.shape[:2], len(cells)])
    added = b.node("ScatterElements", zeros, places, columns, axis=2, reduction="add")
    return b.reshape(b.slice(added, [0], [prod(spatial)], [2]), whole.shape)


@emitter("adaptive_max_pool")
def _(b: Builder, x: Tensor, output_size: Any) -> str:
    y: str = x.name
    for axis, (n, m) in enumerate(zip(fixed(b, x.shape[2:]), fixed(b, b.outputs[0].shape[2:]), strict=True), start=2):
        ranges = adaptive_ranges(n, m)
        longest = max(stop - start for start, stop in ranges)
        cells = [min(start + tap, stop - 1) for start, stop in ranges for tap in range(longest)]
        taken = b.node("Gather", y, b.constant(np.asarray(cells, np.int64).reshape(m, longest)), axis=axis)
        y = b.reduce("ReduceMax", taken, [axis + 1], False)
    return y


# -- diagonals and products --------------------------------------------------------------------------------------


@emitter("undiagonal")
def _(b: Builder, x: Tensor, shape: Any, offset: int, axis1: int, axis2: int) -> str:
    whole = b.outputs[0]
    rank = len(whole.shape)
    first, second = axis1 % rank, axis2 % rank
    rows, columns, count = fixed(b, [whole.shape[first], whole.shape[second], x.shape[-1]])
    sources = np.full(rows * columns, count, np.int64)  # the zero behind the last
    sources[np.arange(count) * (columns + 1) + (offset if offset >= 0 else -offset * columns)] = np.arange(count)
    pads = [0] * (2 * x.ndim)
    pads[-1] = 1
    padded = b.node("Pad", x, b.ints(pads), b.constant(np.asarray(0, x.dtype)))
    flat = b.node("Gather", padded, b.constant(sources), axis=-1)
    rest = [i for i in range(rank) if i not in (first, second)]
    matrix = b.reshape(flat, [*(whole.shape[i] for i in rest), rows, columns])
    order = [*rest, first, second]
    return b.transpose(matrix, [order.index(i) for i in range(rank)])


@emitter("cumprod")
def _(b: Builder, x: Tensor, axis: int, exclusive: bool, is_reversed: bool) -> str:
    axis %= x.ndim
    (size,) = fixed(b, [x.shape[axis]])
    dtype = b.outputs[0].dtype
    y = b.cast(x, dtype)
    if is_reversed:
        y = reverse(b, y, [axis])

    def shifted(given: str, step: int) -> str:
        """The elements `step` places before, ones where there are none."""
        pads = [0] * (2 * x.ndim)
        pads[axis], pads[x.ndim + axis] = step, -step
        return b.node("Pad", given, b.ints(pads), b.constant(np.asarray(1, dtype)))

    if exclusive and size:
        y = shifted(y, 1)
    step = 1
    while step < size:  # products of 2, 4, 8, … neighbours
        y = b.node("Mul", y, shifted(y, step))
        step *= 2
    if is_reversed:
        y = reverse(b, y, [axis])
    return y if y != x.name else b.node("Identity", x)


# -- grids and regions -------------------------------------------------------------------------------------------


@emitter("affine_grid")
def _(b: Builder, theta: Tensor, size: Any, align_corners: bool) -> str:
    spatial = fixed(b, b.outputs[0].shape[1:-1])
    y = b.node("MatMul", _base(b, spatial, align_corners), b.transpose(theta, [0, 2, 1]))
    return b.reshape(y, b.outputs[0].shape)


def _base(b: Builder, spatial: tuple[int, ...], align_corners: bool) -> str:
    """The coordinates (P, r + 1) that an affine map is applied to: what the identity makes, and ones."""
    rank = len(spatial)
    identity = np.eye(rank, rank + 1, dtype=b.outputs[0].dtype)[None]
    grid = np.asarray(affine_grid(identity, (1, 1, *spatial), align_corners)).reshape(-1, rank)
    return b.constant(np.concatenate([grid, np.ones((len(grid), 1), grid.dtype)], 1))


@emitter("affine_grid.gradient")
def _(b: Builder, gy: Tensor, align_corners: bool) -> str:
    spatial = fixed(b, gy.shape[1:-1])
    flat = b.reshape(gy, [gy.shape[0], prod(spatial), len(spatial)])
    return b.node("MatMul", b.transpose(flat, [0, 2, 1]), _base(b, spatial, align_corners))


def _spread_cells(b: Builder, cells: Tensor, channels: Dimension) -> str:
    """Cells (N, P) for every channel, (N, C, P)."""
    return b.expand(b.unsqueeze(b.cast(cells, int64), [1]), [cells.shape[0], channels, cells.shape[1]])


@emitter("grid_sample.gather")
def _(b: Builder, x: Tensor, cells: Tensor) -> str:
    return b.node("GatherElements", x, _spread_cells(b, cells, x.shape[1]), axis=2)


@emitter("grid_sample.scatter")
def _(b: Builder, gy: Tensor, cells: Tensor, size: Any) -> str:
    b.require(16)
    zeros = b.full(b.outputs[0].shape, 0, gy.dtype)
    return b.node("ScatterElements", zeros, _spread_cells(b, cells, gy.shape[1]), gy, axis=2, reduction="add")


@emitter("deform_conv2d.places")
def _(b: Builder, offset: Tensor, windows: Any, axis: int) -> str:
    start = places(np.zeros((1, *fixed(b, offset.shape[1:])), offset.dtype), windows, axis)
    return b.node("Add", offset, b.constant(start))


@emitter("ravel_index")
def _(b: Builder, indices: Tensor, shape: Any) -> str:
    total: Any = None
    for axis, size in enumerate(shape):
        one = b.node("Gather", indices, b.constant(axis, int64), axis=-1)
        place = wrapped(b, Tensor(one, indices.shape[:-1], indices.dtype), size)
        total = place if total is None else b.node("Add", b.node("Mul", total, b.number(size, int64)), place)
    return total if total is not None else b.full(b.outputs[0].shape, 0, int64)


@emitter("roi_align")
def _(b: Builder, x: Tensor, boxes: Tensor, output_size: Any, scale: float, ratio: int, aligned: bool) -> str:
    if aligned:
        b.require(16, "aligned cells")
    height, width = fixed(b, b.outputs[0].shape[2:])
    return b.node(
        "RoiAlign",
        x,
        b.slice(b.cast(boxes, x.dtype), [1], [5], [1]),
        b.squeeze(b.slice(b.cast(boxes, int64), [0], [1], [1]), [1]),
        output_height=height,
        output_width=width,
        sampling_ratio=max(ratio, 0),
        spatial_scale=float(scale),
        coordinate_transformation_mode=("half_pixel" if aligned else "output_half_pixel") if b.opset >= 16 else None,
    )


# -- parts of numbers --------------------------------------------------------------------------------------------


@emitter("conj", "real")
def _(b: Builder, x: Any) -> str:
    return b.node("Identity", b.operand(x, b.outputs[0].dtype))


@emitter("imag")
def _(b: Builder, x: Tensor) -> str:
    return b.full(x.shape, 0, b.outputs[0].dtype)


@emitter("signbit")
def _(b: Builder, x: Tensor) -> str:
    return _is_negative(b, x.name, x.dtype)


@emitter("copysign")
def _(b: Builder, x: Any, y: Any) -> str:
    dtype = b.outputs[0].dtype
    size = b.node("Abs", b.operand(x, dtype))
    return b.node("Where", _is_negative(b, b.operand(y, dtype), dtype), b.node("Neg", size), size)


def _is_negative(b: Builder, x: str, dtype: Any) -> str:
    """Whether a number is below 0, or is -0."""
    zero = b.constant(np.asarray(0, dtype))
    below = b.node(
        "Less", b.node("Cast", x, to=6) if dtype == bool_ else x, b.constant(np.int32(0)) if dtype == bool_ else zero
    )
    if kind_of(dtype) <= INTEGER:
        return below
    inverse = b.node("Less", b.node("Reciprocal", x), zero)
    return b.node("Or", below, b.node("And", b.node("Equal", x, zero), inverse))


@emitter("det")
def _(b: Builder, x: Tensor) -> str:
    return b.node("Det", x)
