"""Moving cells between channels and space: pixel_shuffle and its inverse, channel_shuffle, unfold and fold."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from zoonet.ops.columns import add_columns, fill_columns
from zoonet.ops.errors import ArgumentError, ShapeError
from zoonet.ops.registry import composite, op
from zoonet.ops.samples import floats, ints, sample
from zoonet.ops.shapes import reshape, transpose
from zoonet.ops.types import Array, TensorType
from zoonet.ops.windows import Padding, PerAxis, Windows, per_axis, sliding_windows, spatial_rank

__all__ = ["channel_shuffle", "fold", "pixel_shuffle", "pixel_unshuffle", "unfold"]


def _check_factor(name: str, factor: Any) -> None:
    if not isinstance(factor, int) or factor < 1:
        raise ArgumentError(f"{name}: the factor does not fit", expected="an integer of at least 1", received=factor)


@composite(exact=True, samples=[sample(floats(2, 8, 3, 2), 2), sample(ints(9, 2, 1), 3)])
def pixel_shuffle(x: Array, factor: int) -> Array:
    """Channels moved into space. x: (..., C·r², H, W), any dtype -> (..., C, H·r, W·r), r being the factor.

    Raises ShapeError unless the channels divide by r², ArgumentError for another factor than a positive integer.
    Source: torch.nn.functional.pixel_shuffle; ONNX DepthToSpace in mode CRD.
    """
    _check_factor("pixel_shuffle", factor)
    if len(x.shape) < 3 or x.shape[-3] % (factor * factor):
        raise ShapeError(
            "pixel_shuffle: the channels do not divide", expected=f"a multiple of {factor**2}", received=list(x.shape)
        )
    *lead, channels, height, width = x.shape
    n = len(lead)
    x = reshape(x, (*lead, channels // factor**2, factor, factor, height, width))
    x = transpose(x, (*range(n), n, n + 3, n + 1, n + 4, n + 2))
    return reshape(x, (*lead, channels // factor**2, height * factor, width * factor))


@composite(exact=True, samples=[sample(floats(2, 3, 4, 6), 2), sample(ints(1, 3, 6), 3)])
def pixel_unshuffle(x: Array, factor: int) -> Array:
    """Space moved into channels, the inverse of pixel_shuffle: (..., C, H·r, W·r), any dtype -> (..., C·r², H, W).

    Raises ShapeError unless height and width divide by r, ArgumentError for another factor than a positive integer.
    Source: torch.nn.functional.pixel_unshuffle.
    """
    _check_factor("pixel_unshuffle", factor)
    if len(x.shape) < 3 or x.shape[-1] % factor or x.shape[-2] % factor:
        raise ShapeError(
            "pixel_unshuffle: the image does not divide",
            expected=f"height and width that are multiples of {factor}",
            received=list(x.shape),
        )
    *lead, channels, height, width = x.shape
    n = len(lead)
    x = reshape(x, (*lead, channels, height // factor, factor, width // factor, factor))
    x = transpose(x, (*range(n), n, n + 2, n + 4, n + 1, n + 3))
    return reshape(x, (*lead, channels * factor**2, height // factor, width // factor))


@composite(exact=True, samples=[sample(floats(2, 6, 2, 3), 3), sample(ints(1, 4, 2), 2)])
def channel_shuffle(x: Array, groups: int) -> Array:
    """Channels of groups interleaved. x: (N, C, ...), any dtype -> same. Raises ShapeError unless groups divide C.

    Source: torch.nn.functional.channel_shuffle; Zhang et al., "ShuffleNet" (2017).
    """
    _check_factor("channel_shuffle", groups)
    if len(x.shape) < 3 or x.shape[1] % groups:
        raise ShapeError(
            "channel_shuffle: the channels do not divide", expected=f"a multiple of {groups}", received=list(x.shape)
        )
    split = reshape(x, (x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]))
    return reshape(transpose(split, (0, 2, 1, *range(3, len(split.shape)))), tuple(x.shape))


def _fold_windows(
    name: str, spatial: Sequence[Any], kernel: PerAxis, dilation: PerAxis, padding: Padding, stride: PerAxis
) -> Windows:
    sizes = per_axis(name, "kernel", kernel, len(spatial))
    return sliding_windows(name, tuple([n or 0 for n in spatial]), sizes, stride, padding, dilation)[0]


UNFOLD_SAMPLES = [
    ((2, 3, 5, 6), (3,)),
    ((2, 2, 5, 6), ((2, 3), (2, 1), (1, 0), (1, 2))),
    ((1, 2, 5, 6), (2, 1, ((1, 0), (0, 1)), 2)),
    ((1, 2, 7), (3, 2, 1, 2)),
    ((1, 2, 3, 3, 2), (2,)),
]


@op(exact=True, samples=[sample(floats(*shape), *options) for shape, options in UNFOLD_SAMPLES])
def unfold(
    xp: Any, x: Array, kernel: PerAxis, dilation: PerAxis = 1, padding: Padding = 0, stride: PerAxis = 1
) -> Array:
    """Windows as columns (im2col). x: (N, C, spatial...), 1 to 3 axes, any dtype -> (N, C·prod(kernel), positions).

    padding: a number, or per axis a number or pair (before, after); padded cells are zeros. Raises ShapeError or
    ArgumentError where the arguments do not fit. Source: torch.nn.functional.unfold.
    """
    windows = _fold_windows("unfold", x.shape[2:], kernel, dilation, padding, stride)
    columns = xp.empty((*x.shape[:2], *windows.kernel, 1, *windows.output), x.dtype)
    fill_columns(columns, x[:, :, None], windows, 0, windows.output[0])
    return columns.reshape(x.shape[0], x.shape[1] * prod(windows.kernel), prod(windows.output))


@unfold.type
def _(x: TensorType, kernel: PerAxis, dilation: PerAxis, padding: Padding, stride: PerAxis) -> TensorType:
    spatial_rank("unfold", x.ndim)
    windows = _fold_windows("unfold", x.shape[2:], kernel, dilation, padding, stride)
    return TensorType((x.shape[0], (x.shape[1] or 0) * prod(windows.kernel), prod(windows.output)), x.dtype)


@unfold.vjp
def _(gy: Array, _y: TensorType, _x: TensorType, *arguments: Any) -> Any:
    return fold(gy, _x.shape[2:], *arguments)


@op(
    samples=[
        sample(floats(2, 27, 12), (5, 6), 3),
        sample(floats(2, 12, 10), (5, 6), (2, 3), (2, 1), (1, 0), (1, 2)),
        sample(floats(1, 8, 9), (5, 6), 2, 1, ((1, 0), (0, 1)), 2),
        sample(floats(1, 6, 3), (7,), 3, 2, 1, 2),
    ]
)
def fold(
    xp: Any,
    x: Array,
    output_size: Sequence[int],
    kernel: PerAxis,
    dilation: PerAxis = 1,
    padding: Padding = 0,
    stride: PerAxis = 1,
) -> Array:
    """Columns added where unfold takes them from. x: (N, C·prod(kernel), positions), numbers -> (N, C, *output_size).

    Arguments as for unfold. Raises ShapeError or ArgumentError where they do not fit x.
    Source: torch.nn.functional.fold.
    """
    windows = _fold_windows("fold", output_size, kernel, dilation, padding, stride)
    channels = x.shape[1] // prod(windows.kernel)
    result = xp.zeros((x.shape[0], channels, 1, *windows.input), x.dtype)
    columns = x.reshape(x.shape[0], channels, *windows.kernel, 1, *windows.output)
    add_columns(xp, columns, result, windows, 0, windows.output[0])
    return result[:, :, 0]


@fold.type
def _(
    x: TensorType,
    output_size: Sequence[int],
    kernel: PerAxis,
    dilation: PerAxis,
    padding: Padding,
    stride: PerAxis,
) -> TensorType:
    if not isinstance(output_size, list | tuple) or not 1 <= len(output_size) <= 3:
        raise ArgumentError("fold: output_size does not fit", expected="1, 2 or 3 sizes", received=output_size)
    windows = _fold_windows("fold", output_size, kernel, dilation, padding, stride)
    cells, positions = prod(windows.kernel), prod(windows.output)
    if x.ndim != 3 or (x.shape[1] or 0) % cells or x.shape[2] != positions:
        raise ShapeError(
            "fold: x does not fit the windows",
            expected=f"(N, a multiple of {cells}, {positions})",
            received=list(x.shape),
        )
    return TensorType((x.shape[0], (x.shape[1] or 0) // cells, *output_size), x.dtype)


@fold.vjp
def _(gy: Array, _y: TensorType, _x: TensorType, _output_size: Any, *arguments: Any) -> Any:
    return unfold(gy, *arguments)
