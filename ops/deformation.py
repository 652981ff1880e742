"""Deformable convolution: each tap of the kernel reads where an offset moves it."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any

import numpy as np

from zoonet.ops.comparisons import greater_equal, less_equal, logical_and
from zoonet.ops.convolution import convolution_windows
from zoonet.ops.elementwise import add, cast, clip, multiply, subtract, where
from zoonet.ops.errors import ArgumentError, DTypeError, ShapeError
from zoonet.ops.grid_sampling import gather
from zoonet.ops.linear import matmul
from zoonet.ops.registry import composite, op
from zoonet.ops.rounding import floor
from zoonet.ops.samples import floats, sample
from zoonet.ops.shapes import expand_dims, reshape
from zoonet.ops.slicing import index
from zoonet.ops.types import Array, TensorType, is_floating
from zoonet.ops.windows import Padding, PerAxis, Windows

__all__ = ["deform_conv2d"]

#: Offsets that keep positions away from whole ones, where the slope jumps.
_SMALL = {"low": 0.1, "high": 0.9}


def tap_places(windows: Windows, axis: int) -> Any:
    """Where each tap reads along an axis in `conv`: (taps, outputs)."""
    ones = [1] * len(windows.kernel)
    ones[axis] = -1
    tap = np.arange(windows.kernel[axis]) * windows.dilation[axis] - windows.before[axis]
    out = np.arange(windows.output[axis]) * windows.stride[axis]
    rows = np.broadcast_to(tap.reshape(ones), windows.kernel).reshape(-1, 1)
    columns = np.broadcast_to(out.reshape(ones), windows.output).reshape(1, -1)
    return rows + columns


@op(name="deform_conv2d.places")
def places(xp: Any, offset: Array, windows: Windows, axis: int) -> Array:
    """Where taps read along an axis, as offsets (N, taps, outputs) from their places in `conv`."""
    return offset + xp.asarray(tap_places(windows, axis), dtype=offset.dtype)


@places.type
def _(offset: TensorType, windows: Windows, axis: int) -> TensorType:
    return offset


@places.vjp
def _(gy: Array, _y: TensorType, _offset: TensorType, windows: Windows, axis: int) -> Array:
    return gy


def deformed(
    x: Array, offset: Array, weight: Array, bias: Array | None, mask: Array | None, windows: Windows, groups: int
) -> Array:
    """Deformable convolution over any number of spatial axes; see `deform_conv2d`. groups: of offsets."""
    count, channels = x.shape[:2]
    spatial, taps, outputs = windows.input, prod(windows.kernel), prod(windows.output)
    flat = reshape(x, (count * groups, channels // groups, prod(spatial)))
    moved = reshape(offset, (count * groups, taps, len(spatial), outputs))
    axes = []
    for axis, size in enumerate(spatial):
        place = places(index(moved, (slice(None), slice(None), axis)), windows, axis)
        place = reshape(place, (count * groups, taps * outputs))
        place = clip(place, -2.0, size + 1.0)  # within reach of whole numbers; outside counts 0 in any case
        low = floor(place)
        fraction = subtract(place, low)
        axes.append([(low, subtract(1.0, fraction)), (add(low, 1.0), fraction)])
    columns: Any = None
    for corner in product(*axes):
        cells: Any = 0
        weights: Any = None
        for (place, factor), size in zip(corner, spatial, strict=True):
            cells = add(multiply(cells, size), cast(clip(place, 0.0, size - 1.0), "int64"))
            inside = logical_and(greater_equal(place, 0.0), less_equal(place, size - 1.0))
            factor = where(inside, factor, 0.0)
            weights = factor if weights is None else multiply(weights, factor)
        term = multiply(gather(flat, cells), expand_dims(weights, 1))
        columns = term if columns is None else add(columns, term)
    if mask is not None:
        columns = multiply(columns, reshape(mask, (count * groups, 1, taps * outputs)))
    made, inner = weight.shape[:2]
    shared = channels // inner
    columns = reshape(columns, (count, shared, inner * taps, outputs))
    y = matmul(reshape(weight, (shared, made // shared, inner * taps)), columns)
    y = reshape(y, (count, made, *windows.output))
    return y if bias is None else add(y, reshape(bias, (-1, *[1] * len(spatial))))


@composite(
    samples=[
        sample(floats(2, 4, 5, 6), floats(2, 18, 5, 6, **_SMALL), floats(3, 4, 3, 3), floats(3), 1, 1),
        sample(
            floats(1, 4, 7, 6), floats(1, 24, 2, 4, **_SMALL), floats(6, 2, 3, 2), None, (2, 1), ((1, 0), (0, 0)),
            (2, 2), floats(1, 12, 2, 4),
        ),
        sample(floats(1, 2, 4, 4), floats(1, 2, 4, 4, low=-3.9, high=-3.1), floats(2, 2, 1, 1)),
    ]
)  # fmt: skip
def deform_conv2d(
    x: Array,
    offset: Array,
    weight: Array,
    bias: Array | None = None,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    mask: Array | None = None,
) -> Array:
    """Convolution whose taps read at places moved by offsets, between cells bilinearly, 0 outside.

    x: (N, C, H, W); offset: (N, 2 · G · h · w, H', W'), pairs (down, across) for each tap of each of G groups of
    channels; weight: (O, C / groups, h, w); bias: (O,); mask: (N, G · h · w, H', W'), what each tap is multiplied by
    -> (N, O, H', W'), one floating dtype. Sizes, stride, padding and dilation as for `conv`; groups follow from the
    shapes. Raises ShapeError, DTypeError, ArgumentError.
    Source: arXiv:1703.06211, arXiv:1811.11168; torchvision.ops.deform_conv2d; ONNX DeformConv.
    """
    windows, _ = convolution_windows("deform_conv2d", x.shape[2:], weight.shape[2:], stride, padding, dilation)
    return deformed(x, offset, weight, bias, mask, windows, offset.shape[1] // (2 * prod(windows.kernel)))


@deform_conv2d.type
def _(
    x: TensorType,
    offset: TensorType,
    weight: TensorType,
    bias: TensorType | None,
    stride: PerAxis,
    padding: Padding,
    dilation: PerAxis,
    mask: TensorType | None,
) -> TensorType:
    if x.ndim != 4 or weight.ndim != 4 or offset.ndim != 4:
        raise ShapeError(
            "deform_conv2d takes pictures",
            expected="x (N, C, H, W), offset (N, 2·G·h·w, H', W'), weight (O, C/groups, h, w)",
            received=f"{list(x.shape)}, {list(offset.shape)}, {list(weight.shape)}",
        )
    windows, _ = convolution_windows("deform_conv2d", x.shape[2:], weight.shape[2:], stride, padding, dilation)
    check_deformation("deform_conv2d", x, offset, weight, bias, mask, windows)
    return TensorType((x.shape[0], weight.shape[0], *windows.output), x.dtype)


def check_deformation(name: str, x: Any, offset: Any, weight: Any, bias: Any, mask: Any, windows: Windows) -> int:
    """The number of groups of offsets. Raises ShapeError, DTypeError, ArgumentError where shapes do not fit."""
    given = [a for a in (x, offset, weight, bias, mask) if a is not None]
    if len({a.dtype for a in given}) > 1 or not is_floating(x.dtype):
        raise DTypeError(f"{name} takes floats of one dtype", received=", ".join(str(a.dtype) for a in given))
    channels, (made, inner) = x.shape[1], weight.shape[:2]
    if not inner or channels % inner or made % (channels // inner):
        raise ShapeError(f"{name}: the weight does not fit the channels of x", expected=channels, received=inner)
    taps, rank = prod(windows.kernel), len(windows.kernel)
    groups = int(offset.shape[1]) // (rank * taps)
    if groups < 1 or channels % groups:
        raise ArgumentError(
            f"{name}: offsets come in groups that divide the channels", expected=channels, received=groups
        )
    wanted = {
        "offset": (offset, (x.shape[0], groups * rank * taps, *windows.output)),
        "mask": (mask, (x.shape[0], groups * taps, *windows.output)),
        "bias": (bias, (made,)),
    }
    for label, (array, shape) in wanted.items():
        if array is not None and tuple(array.shape) != shape:
            raise ShapeError(f"{name}: the {label} does not fit", expected=list(shape), received=list(array.shape))
    if 0 in windows.input:
        raise ShapeError(f"{name}: x has no cells", received=list(x.shape))
    return groups
