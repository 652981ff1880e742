"""Operators on shapes: Shape, Reshape, Transpose, Concat, Split, Slice, Pad, Expand, Tile, …

Shapes and axes are looked at as contents: they are constants or computed from shapes, so they are known while tracing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.sets.onnx.common import affordable, axes_of, concrete, dtype_of, integers, normalized_axis, scalar
from zoonet.ops.sets.onnx.registry import declare, onnx_operator
from zoonet.ops.types import Array


def identity(input: Any, /) -> Any:
    """The input itself: a tensor, sequence or optional."""
    return input


declare("Identity", identity, (1, 13, 14, 16, 19, 21, 23, 24, 25))


def shape(data: Array, /, start: int = 0, end: int | None = None) -> Array:
    """The sizes of the axes from start to end."""
    return np.asarray(tuple(data.shape)[start:end], np.int64)


def shape_1(data: Array, /) -> Array:
    """The sizes of the axes."""
    return np.asarray(tuple(data.shape), np.int64)


def size(data: Array, /) -> Array:
    """The number of elements."""
    return np.asarray(math.prod(data.shape), np.int64)


declare("Shape", shape_1, (1, 13))
declare("Shape", shape, (15, 19, 21, 23, 24, 25))
declare("Size", size, (1, 13, 19, 21, 23, 24, 25))


def reshaped(data: Array, target: Sequence[int], allowzero: bool) -> Array:
    """The data in another shape; 0 copies a size unless allowzero, one -1 is inferred."""
    sizes = list(target)
    if not allowzero:
        if any(n == 0 for n in sizes[len(data.shape) :]):
            raise ShapeError(
                "Reshape: a 0 in the shape has no size to copy", expected=tuple(data.shape), received=tuple(sizes)
            )
        sizes = [data.shape[i] if n == 0 else n for i, n in enumerate(sizes)]
    if -1 in sizes and 0 in sizes and 0 in data.shape:
        sizes[sizes.index(-1)] = 0 if allowzero else math.prod(data.shape) or 1
        rest = math.prod(n for n in target if n > 0)
        sizes = [n if target[i] != -1 else (0 if rest == 0 else sizes[i]) for i, n in enumerate(sizes)]
    return ops.reshape(data, tuple(sizes))


@onnx_operator("Reshape", since=1)
def reshape_1(data: Array, /, shape: Sequence[int]) -> Array:
    """The data in another shape."""
    return reshaped(data, shape, False)


def reshape_5(data: Array, shape: Array, /) -> Array:
    """The data in another shape."""
    return reshaped(data, integers(shape, "the shape of Reshape"), False)


def reshape_14(data: Array, shape: Array, /, allowzero: int = 0) -> Array:
    """The data in another shape; a 0 copies the size of that axis unless allowzero."""
    return reshaped(data, integers(shape, "the shape of Reshape"), bool(allowzero))


declare("Reshape", reshape_5, (5, 13))
declare("Reshape", reshape_14, (14, 19, 21, 23, 24, 25))


def flatten(input: Array, /, axis: int = 1) -> Array:
    """A matrix of the axes before `axis` by those from it on."""
    split = axis + len(input.shape) if axis < 0 else axis
    if not 0 <= split <= len(input.shape):
        raise ArgumentError("Flatten: no such axis", expected=f"up to {len(input.shape)}", received=axis)
    return ops.reshape(input, (math.prod(input.shape[:split]), math.prod(input.shape[split:])))


declare("Flatten", flatten, (1, 9, 11, 13, 21, 23, 24, 25))


def squeeze_1(data: Array, /, axes: Sequence[int] | None = None) -> Array:
    """The data without axes of size 1."""
    return ops.squeeze(data, tuple(axes) if axes else None)


def squeeze_13(data: Array, axes: Array | None = None, /) -> Array:
    """The data without axes of size 1."""
    chosen = axes_of(axes, "the axes of Squeeze")
    return ops.squeeze(data, chosen if chosen else None)


declare("Squeeze", squeeze_1, (1, 11))
declare("Squeeze", squeeze_13, (13, 21, 23, 24, 25))


def unsqueeze_1(data: Array, /, axes: Sequence[int]) -> Array:
    """The data with axes of size 1 at these places of the result."""
    return ops.expand_dims(data, tuple(axes))


def unsqueeze_13(data: Array, axes: Array, /) -> Array:
    """The data with axes of size 1 at these places of the result."""
    return ops.expand_dims(data, integers(axes, "the axes of Unsqueeze"))


declare("Unsqueeze", unsqueeze_1, (1, 11))
declare("Unsqueeze", unsqueeze_13, (13, 21, 23, 24, 25))


def transpose(data: Array, /, perm: Sequence[int] | None = None) -> Array:
    """The data with its axes permuted, reversed by default."""
    return ops.transpose(data, tuple(perm) if perm is not None else None)


declare("Transpose", transpose, (1, 13, 21, 23, 24, 25))


def concat(inputs: Sequence[Array], axis: int) -> Array:
    """The inputs one after another along an axis."""
    if len(inputs) > 1 and len({x.dtype for x in inputs}) == 1:  # a chain of them grows as a power of two
        shape = list(inputs[0].shape)
        axis = normalized_axis(axis, len(shape), "Concat")
        shape[axis] = sum(x.shape[axis] for x in inputs if len(x.shape) == len(shape))
        affordable(shape, inputs[0].dtype, "Concat")
    return ops.concat(tuple(inputs), axis)


@onnx_operator("Concat", since=1, variadic=True)
def concat_1(inputs: Sequence[Array], /, axis: int = 1) -> Array:
    """The inputs one after another along an axis."""
    return concat(inputs, axis)


@onnx_operator("Concat", since=4, variadic=True)
@onnx_operator("Concat", since=11, variadic=True)
@onnx_operator("Concat", since=13, variadic=True)
def concat_4(inputs: Sequence[Array], /, axis: int) -> Array:
    """The inputs one after another along an axis."""
    return concat(inputs, axis)


def split_parts(input: Array, sizes: Sequence[int] | None, axis: int, parts: int) -> tuple[Array, ...]:
    """Parts along an axis, of these sizes or equal ones (the last may be smaller)."""
    axis = normalized_axis(axis, len(input.shape), "Split")
    extent = input.shape[axis]
    if sizes is None:
        if parts > 1 << 16:
            raise ShapeError("Split: more parts than can be", expected=f"at most {1 << 16}", received=parts)
        step = -(-extent // max(parts, 1))
        sizes = [max(min(step, extent - i * step), 0) for i in range(parts)]
    if sum(sizes) != extent or any(n < 0 for n in sizes):
        raise ShapeError("Split: the sizes do not add up to the axis", expected=extent, received=tuple(sizes))
    bounds = np.cumsum(sizes)[:-1].tolist() if len(sizes) else []
    return tuple(ops.split(input, tuple(bounds), axis))


@onnx_operator("Split", since=1)
def split_1(
    input: Array, sizes: Array | None = None, /, axis: int = 0, split: Sequence[int] | None = None, outputs: int = 1
) -> tuple[Array, ...]:
    """Parts along an axis."""
    chosen = integers(sizes, "the sizes of Split") if sizes is not None else split
    return split_parts(input, chosen, axis, outputs)


@onnx_operator("Split", since=2)
@onnx_operator("Split", since=11)
def split_2(input: Array, /, axis: int = 0, split: Sequence[int] | None = None, outputs: int = 1) -> tuple[Array, ...]:
    """Parts along an axis."""
    return split_parts(input, split, axis, outputs)


@onnx_operator("Split", since=13)
def split_13(input: Array, split: Array | None = None, /, axis: int = 0, outputs: int = 1) -> tuple[Array, ...]:
    """Parts along an axis."""
    return split_parts(input, axes_of(split, "the sizes of Split"), axis, outputs)


@onnx_operator("Split", since=18)
def split_18(
    input: Array,
    split: Array | None = None,
    /,
    axis: int = 0,
    num_outputs: int | None = None,
    outputs: int = 1,
) -> tuple[Array, ...]:
    """Parts along an axis."""
    return split_parts(input, axes_of(split, "the sizes of Split"), axis, num_outputs or outputs)


def sliced(
    data: Array, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int] | None, steps: Sequence[int] | None
) -> Array:
    """The data from starts to ends by steps along axes."""
    rank = len(data.shape)
    axes = tuple(range(len(starts))) if axes is None else axes
    steps = (1,) * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise ShapeError(
            "Slice: starts, ends, axes and steps are not equally many",
            received=(len(starts), len(ends), len(axes), len(steps)),
        )
    key = [slice(None)] * rank
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = normalized_axis(axis, rank, "Slice")
        if step == 0:
            raise ArgumentError("Slice: a step is 0", expected="a number other than 0")
        extent = data.shape[axis]
        if step < 0:  # an end before the first element cannot be written as an index
            first = min(start + extent if start < 0 else start, extent - 1)
            last = max(end + extent if end < 0 else end, -1)
            key[axis] = slice(max(first, 0), None if last < 0 else last, step) if first >= 0 else slice(0, 0, 1)
        else:
            key[axis] = slice(start, end, step)
    return ops.index(data, tuple(key))


@onnx_operator("Slice", since=1)
def slice_1(data: Array, /, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int] | None = None) -> Array:
    """The data from starts to ends along axes."""
    return sliced(data, starts, ends, axes, None)


def slice_10(
    data: Array, starts: Array, ends: Array, axes: Array | None = None, steps: Array | None = None, /
) -> Array:
    """The data from starts to ends by steps along axes."""
    return sliced(
        data,
        integers(starts, "the starts of Slice"),
        integers(ends, "the ends of Slice"),
        axes_of(axes, "the axes of Slice"),
        axes_of(steps, "the steps of Slice"),
    )


declare("Slice", slice_10, (10, 11, 13))


def padded(data: Array, pads: Sequence[int], mode: str, value: Any, axes: Sequence[int] | None = None) -> Array:
    """The data with pads (all befores, then all afters) along axes; negative ones crop."""
    rank = len(data.shape)
    axes = tuple(range(rank)) if axes is None else tuple(normalized_axis(a, rank, "Pad") for a in axes)
    if len(pads) != 2 * len(axes):
        raise ShapeError("Pad: wrong number of pads", expected=2 * len(axes), received=len(pads))
    widths = [(0, 0)] * rank
    for i, axis in enumerate(axes):
        widths[axis] = (int(pads[i]), int(pads[i + len(axes)]))
    affordable([max(n + a + b, 0) for n, (a, b) in zip(data.shape, widths, strict=True)], data.dtype, "Pad")
    if data.dtype == object:
        filled = {"constant_values": value} if mode == "constant" else {}
        return np.pad(data, widths, mode, **filled)  # type: ignore[call-overload]
    return ops.pad(data, tuple(widths), mode, value)


@onnx_operator("Pad", since=1)
def pad_1(data: Array, /, paddings: Sequence[int], mode: str = "constant", value: float = 0.0) -> Array:
    """The data padded on each axis."""
    return padded(data, paddings, mode, value)


@onnx_operator("Pad", since=2)
def pad_2(data: Array, /, pads: Sequence[int], mode: str = "constant", value: float = 0.0) -> Array:
    """The data padded on each axis."""
    return padded(data, pads, mode, value)


def pad_11(data: Array, pads: Array, constant_value: Array | None = None, /, mode: str = "constant") -> Array:
    """The data padded on each axis."""
    return pad_18(data, pads, constant_value, None, mode)


def pad_18(
    data: Array,
    pads: Array,
    constant_value: Array | None = None,
    axes: Array | None = None,
    /,
    mode: str = "constant",
) -> Array:
    """The data padded on each of the axes."""
    if constant_value is None or constant_value.shape == (0,):
        value = "" if data.dtype == object else 0
    else:
        value = scalar(constant_value, "the value of Pad")
    return padded(data, integers(pads, "the pads of Pad"), mode, value, axes_of(axes, "the axes of Pad"))


declare("Pad", pad_11, (11, 13))
declare("Pad", pad_18, (18, 19, 21, 23, 24, 25))


@onnx_operator("Expand", since=8)
@onnx_operator("Expand", since=13)
def expand(input: Array, shape: Array, /) -> Array:
    """The input broadcast together with a shape."""
    target = integers(shape, "the shape of Expand")
    own = tuple(input.shape)
    rank = max(len(own), len(target))
    pairs = zip((1,) * (rank - len(own)) + own, (1,) * (rank - len(target)) + target, strict=True)
    result = [b if a == 1 else a for a, b in pairs]
    return ops.broadcast_to(input, affordable(result, input.dtype, "Expand"))


@onnx_operator("Tile", since=1)
def tile_1(input: Array, tiles: Array, axis: Array, /) -> Array:
    """The input repeated along one axis."""
    along = normalized_axis(int(scalar(axis, "the axis of Tile")), len(input.shape), "Tile")
    times = int(scalar(tiles, "the number of tiles"))
    return tiled(input, [times if i == along else 1 for i in range(len(input.shape))])


@onnx_operator("Tile", since=6)
@onnx_operator("Tile", since=13)
def tile_6(input: Array, repeats: Array, /) -> Array:
    """The input repeated along each axis."""
    return tiled(input, integers(repeats, "the repeats of Tile"))


def tiled(input: Array, repeats: Sequence[int]) -> Array:
    """The input repeated along each axis."""
    if len(repeats) != len(input.shape):
        raise ShapeError("Tile: one number of repeats for each axis", expected=len(input.shape), received=repeats)
    affordable([n * r for n, r in zip(input.shape, repeats, strict=True)], input.dtype, "Tile")
    return ops.tile(input, tuple(repeats))


@onnx_operator("DepthToSpace", since=1)
def depth_to_space_1(input: Array, /, blocksize: int) -> Array:
    """Channels moved into blocks of pixels."""
    return depth_to_space(input, blocksize, "DCR")


@onnx_operator("DepthToSpace", since=11)
@onnx_operator("DepthToSpace", since=13)
@onnx_operator("DepthToSpace", since=28)
def depth_to_space_11(input: Array, /, blocksize: int, mode: str = "DCR") -> Array:
    """Channels moved into blocks of pixels."""
    return depth_to_space(input, blocksize, mode)


def depth_to_space(x: Array, size: int, mode: str) -> Array:
    """(N, C size², H, W) to (N, C, H size, W size); mode DCR has the block's axes before C, CRD after it."""
    _check_blocks("DepthToSpace", x, size, mode)
    n, c, h, w = x.shape
    if c % size**2:
        raise ShapeError("DepthToSpace: channels do not divide", expected=f"a multiple of {size**2}", received=c)
    depth = c // size**2
    if mode == "DCR":
        blocks = ops.transpose(ops.reshape(x, (n, size, size, depth, h, w)), (0, 3, 4, 1, 5, 2))
    else:
        blocks = ops.transpose(ops.reshape(x, (n, depth, size, size, h, w)), (0, 1, 4, 2, 5, 3))
    return ops.reshape(blocks, (n, depth, h * size, w * size))


@onnx_operator("SpaceToDepth", since=1)
@onnx_operator("SpaceToDepth", since=13)
def space_to_depth_1(input: Array, /, blocksize: int) -> Array:
    """Blocks of pixels moved into channels."""
    return space_to_depth(input, blocksize, "DCR")


@onnx_operator("SpaceToDepth", since=28)
def space_to_depth_28(input: Array, /, blocksize: int, mode: str = "DCR") -> Array:
    """Blocks of pixels moved into channels."""
    return space_to_depth(input, blocksize, mode)


def space_to_depth(x: Array, size: int, mode: str) -> Array:
    """(N, C, H size, W size) to (N, C size², H, W); mode DCR puts the block's axes before C, CRD after it."""
    _check_blocks("SpaceToDepth", x, size, mode)
    n, c, h, w = x.shape
    if h % size or w % size:
        raise ShapeError("SpaceToDepth: the picture does not divide", expected=f"multiples of {size}", received=(h, w))
    blocks = ops.reshape(x, (n, c, h // size, size, w // size, size))
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    return ops.reshape(ops.transpose(blocks, order), (n, c * size**2, h // size, w // size))


def _check_blocks(name: str, x: Array, size: int, mode: str) -> None:
    if len(x.shape) != 4:
        raise ShapeError(f"{name} takes (N, C, H, W)", received=tuple(x.shape))
    if size < 1 or mode not in ("DCR", "CRD"):
        raise ArgumentError(
            f"{name}: wrong attributes", expected="blocksize above 0, mode DCR or CRD", received=(size, mode)
        )


@onnx_operator("CenterCropPad", since=18)
def center_crop_pad(input_data: Array, shape: Array, /, axes: Sequence[int] | None = None) -> Array:
    """The input cropped or padded with zeros around its centre to a shape."""
    rank = len(input_data.shape)
    target = integers(shape, "the shape of CenterCropPad")
    chosen = range(rank) if axes is None else [normalized_axis(a, rank, "CenterCropPad") for a in axes]
    key = [slice(None)] * rank
    pads = [(0, 0)] * rank
    for axis, wanted in zip(chosen, target, strict=False):
        extent = input_data.shape[axis]
        if wanted < extent:
            start = (extent - wanted) // 2
            key[axis] = slice(start, start + wanted)
        else:
            before = (wanted - extent) // 2
            pads[axis] = (before, wanted - extent - before)
    cropped = ops.index(input_data, tuple(key))
    return padded(cropped, [b for b, _ in pads] + [a for _, a in pads], "constant", 0)


def trilu_of(input: Array, k: Array | None = None, /, upper: int = 1) -> Array:
    """The upper or lower triangle of matrices, from diagonal k."""
    diagonal = 0 if k is None else int(scalar(k, "k of Trilu"))
    return (ops.triu if upper else ops.tril)(input, diagonal)


declare("Trilu", trilu_of, (14,))


@onnx_operator("EyeLike", since=9)
@onnx_operator("EyeLike", since=22)
def eye_like(input: Array, /, dtype: int | None = None, k: int = 0) -> Array:
    """Ones on diagonal k of a matrix of the input's shape."""
    if len(input.shape) != 2:
        raise ShapeError("EyeLike takes a matrix", received=tuple(input.shape))
    rows, columns = input.shape
    return np.eye(rows, columns, k, dtype=np.bool_).astype(input.dtype if dtype is None else dtype_of(dtype))


def constant_of_shape(input: Array, /, value: Any = None) -> Array:
    """An array of a shape that holds one value, a float32 0 by default."""
    value = np.zeros(1, np.float32) if value is None else concrete(value, "the value of ConstantOfShape")
    target = affordable(integers(input, "the shape of ConstantOfShape"), value.dtype, "ConstantOfShape")
    if value.size != 1:
        raise ShapeError("ConstantOfShape: the value is not one element", received=tuple(value.shape))
    return np.full(target, value.reshape(-1)[0], value.dtype)


declare("ConstantOfShape", constant_of_shape, (9, 20, 21, 23, 24, 25))


@onnx_operator("Range", since=11)
def range_11(start: Array, limit: Array, delta: Array, /) -> Array:
    """Numbers from start to limit by delta."""
    return number_range(start, limit, delta, False)


@onnx_operator("Range", since=27)
def range_27(start: Array, limit: Array, delta: Array, /, stash_type: int = 1) -> Array:
    """Numbers from start to limit by delta."""
    return number_range(start, limit, delta, stash_type == 1)


def number_range(start: Array, limit: Array, delta: Array, wide: bool) -> Array:
    """start + i delta below limit; 16-bit floats are computed in float32 where wide."""
    first, last, step = (concrete(v, "a bound of Range").reshape(-1) for v in (start, limit, delta))
    if not first.size == last.size == step.size == 1 or step[0] == 0:
        raise ArgumentError("Range takes three numbers, and a delta other than 0", received=(first, last, step))
    dtype = first.dtype
    if dtype.kind in "iu":
        values: list[Any] = [int(v[0]) for v in (first, last, step)]
        count = max(-((values[0] - values[1]) // values[2]), 0)
    else:
        values = [float(v[0]) for v in (first, last, step)]
        count = max(math.ceil((values[1] - values[0]) / values[2]), 0) if all(map(math.isfinite, values)) else -1
    affordable((count,), dtype, "Range")
    steps = np.arange(count, dtype=np.int64)
    if dtype.kind in "iu":
        return (values[0] + steps * values[2]).astype(dtype)
    working = np.dtype(np.float64 if dtype == np.float64 else np.float32)
    start, delta = np.array(values[0], working), np.array(values[2], working)
    return (start + steps.astype(working) * delta).astype(dtype)
