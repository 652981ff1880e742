"""Convolution and its transpose in one, two and three dimensions. Images are (N, C, spatial...), weights as in PyTorch.

The three linear maps of a convolution (forward, back to the input, back to the weight) are operators whose gradients
are each other, so gradients exist to any order.
"""

from __future__ import annotations

from typing import Any

from zoonet.ops.columns import convolve, convolve_transposed, correlate
from zoonet.ops.errors import ArgumentError, DTypeError, ShapeError
from zoonet.ops.reductions import sum as sum_over
from zoonet.ops.registry import REGISTRY, op
from zoonet.ops.samples import floats, ints, sample
from zoonet.ops.types import BOOL, FLOATING, Array, DType, TensorType, kind_of, promote
from zoonet.ops.windows import Padding, Pairs, PerAxis, Windows, padding_pairs, per_axis, sliding_windows, spatial_rank

__all__ = ["conv", "conv_transpose"]


def convolution_windows(
    name: str, input: Any, kernel: Any, stride: PerAxis, padding: Padding, dilation: PerAxis
) -> tuple[Windows, Pairs]:
    """Windows of a convolution over these spatial sizes, and its padding as pairs."""
    return sliding_windows(name, tuple(input), tuple(kernel), stride, padding, dilation)


def transposed_windows(
    name: str,
    input: Any,
    kernel: Any,
    stride: PerAxis,
    padding: Padding,
    output_padding: PerAxis,
    dilation: PerAxis,
) -> tuple[Windows, Pairs]:
    """Windows of the convolution that a transposed one reverses: its `output` is x, its `input` the result."""
    rank = len(kernel)
    strides = per_axis(name, "stride", stride, rank)
    dilations = per_axis(name, "dilation", dilation, rank)
    extra = per_axis(name, "output_padding", output_padding, rank, 0)
    if isinstance(padding, str):
        raise ArgumentError(f"{name}: padding is not given in numbers", expected="numbers or pairs", received=padding)
    pairs = padding_pairs(name, padding, input, kernel, strides, dilations)
    sizes = tuple(
        (n - 1) * s + d * (k - 1) + 1 + e - before - after
        for n, k, s, d, e, (before, after) in zip(input, kernel, strides, dilations, extra, pairs, strict=True)
    )
    if min(sizes) < 1:
        raise ShapeError(
            f"{name}: the result would be empty", expected="sizes of at least 1", received=sizes, fix="less padding"
        )
    before_all = tuple(before for before, _ in pairs)
    return Windows(sizes, tuple(kernel), strides, dilations, before_all, tuple(input)), pairs


def _check(name: str, x: TensorType, weight: TensorType, bias: TensorType | None, groups: int) -> DType:
    """Check ranks, groups and dtypes; the result's dtype."""
    spatial_rank(name, x.ndim)
    if weight.ndim != x.ndim:
        raise ShapeError(
            f"{name}: weight and x differ in rank", expected=f"{x.ndim} axes", received=f"weight {list(weight.shape)}"
        )
    if not isinstance(groups, int) or groups < 1 or (weight.shape[0] or 0) % groups:
        raise ArgumentError(
            f"{name}: groups does not fit",
            expected=f"a divisor of the weight's first axis, {weight.shape[0]}",
            received=groups,
        )
    if 0 in weight.shape:
        raise ShapeError(f"{name}: the weight is empty", received=list(weight.shape))
    operands = [x, weight] if bias is None else [x, weight, bias]
    dtype = promote(operands)
    if not BOOL < kind_of(dtype) <= FLOATING:
        raise DTypeError(f"{name} takes real numbers", expected="floats or integers", received=dtype.name)
    return dtype


def _check_channels(name: str, channels: Any, expected: int, weight: TensorType, groups: int) -> None:
    if channels != expected:
        raise ShapeError(
            f"{name}: the weight does not fit the channels of x",
            expected=f"{expected} channels for weight {list(weight.shape)} with groups={groups}",
            received=f"{channels} channels",
        )


def _check_bias(name: str, bias: TensorType | None, channels: int) -> None:
    if bias is not None and bias.shape != (channels,):
        raise ShapeError(f"{name}: the bias does not fit", expected=[channels], received=list(bias.shape))


def _bias_gradient(gy: Array) -> Array:
    return sum_over(gy, (0, *range(2, len(gy.shape))))


@op(
    samples=[
        sample(floats(2, 3, 6, 5), floats(4, 3, 3, 3), floats(4), 1, 1),
        sample(floats(2, 4, 7, 6), floats(6, 2, 3, 2), None, (2, 1), ((1, 0), (0, 2)), (1, 2), 2),
        sample(floats(1, 4, 8, 8), floats(8, 1, 3, 3), floats(8), 2, "same", 1, 4),
        sample(floats(2, 3, 5, 5), floats(4, 3, 1, 1), floats(4), 2),
        sample(floats(2, 4, 18, 18), floats(6, 2, 1, 1), floats(6), groups=2),
        sample(floats(2, 3, 9), floats(4, 3, 4), None, 2, ((2, 1),), 2),
        sample(floats(1, 2, 4, 5, 4), floats(3, 2, 2, 3, 2), floats(3), (1, 2, 1), (1, 1, 0)),
        sample(floats(0, 2, 4, 4), floats(3, 2, 3, 3)),
        sample(ints(1, 2, 5, 5), ints(3, 2, 3, 3)),
    ]
)
def conv(
    xp: Any,
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
) -> Array:
    """Convolution (cross-correlation) over 1, 2 or 3 spatial axes, as many as x has.

    x: (N, C, spatial...); weight: (O, C/groups, kernel...); bias: (O,) or None -> (N, O, spatial...) with
    floor((size + padding - dilation·(kernel - 1) - 1) / stride) + 1 positions on each axis; promoted dtype, floats or
    integers. padding: a number, a number or pair (before, after) per axis, "valid" for none, or "same" for
    ceil(size / stride) positions with the odd cell at the end (TensorFlow's rule; PyTorch's at stride 1).
    Raises ShapeError, ArgumentError or DTypeError where the arguments do not fit.
    Source: torch.nn.functional.conv2d; ONNX Conv.
    """
    windows, _ = convolution_windows("conv", x.shape[2:], weight.shape[2:], stride, padding, dilation)
    dtype = promote([a for a in (x, weight, bias) if a is not None])
    x, weight = xp.asarray(x, dtype=dtype), xp.asarray(weight, dtype=dtype)
    out = xp.empty((len(x), len(weight), *windows.output), dtype)
    return convolve(xp, x, weight, bias, windows, groups, out)


@conv.type
def _(
    x: TensorType,
    weight: TensorType,
    bias: TensorType | None,
    stride: PerAxis,
    padding: Padding,
    dilation: PerAxis,
    groups: int,
) -> TensorType:
    dtype = _check("conv", x, weight, bias, groups)
    _check_channels("conv", x.shape[1], (weight.shape[1] or 0) * groups, weight, groups)
    _check_bias("conv", bias, weight.shape[0] or 0)
    windows, _ = convolution_windows("conv", x.shape[2:], weight.shape[2:], stride, padding, dilation)
    return TensorType((x.shape[0], weight.shape[0], *windows.output), dtype)


@conv.vjp
def _(
    gy: Array,
    _y: TensorType,
    x: Array,
    weight: Array,
    _bias: TensorType | None,
    stride: PerAxis,
    padding: Padding,
    dilation: PerAxis,
    groups: int,
) -> Any:
    windows, pairs = convolution_windows("conv", x.shape[2:], weight.shape[2:], stride, padding, dilation)
    return (
        lambda: conv_transpose(gy, weight, None, stride, pairs, _remainder(windows, pairs), groups, dilation),
        lambda: weight_gradient(x, gy, windows.kernel, stride, pairs, dilation, groups),
        lambda: _bias_gradient(gy),
    )


def _remainder(windows: Windows, pairs: Pairs) -> tuple[int, ...]:
    """The output_padding that restores an input of which the last window leaves some cells out."""
    return tuple(
        n + before + after - d * (k - 1) - 1 - (out - 1) * s
        for n, k, s, d, out, (before, after) in zip(
            windows.input, windows.kernel, windows.stride, windows.dilation, windows.output, pairs, strict=True
        )
    )


def _cut(array: Array, sizes: tuple[int, ...]) -> Array:
    """The first `sizes` positions of the spatial axes; more come out where output_padding exceeds the stride."""
    if tuple(array.shape[2:]) == sizes:
        return array
    return REGISTRY["index"](array, (slice(None), slice(None), *[slice(0, n) for n in sizes]))


@op(name="conv.weight_gradient")
def weight_gradient(
    xp: Any,
    x: Array,
    gy: Array,
    kernel: tuple[int, ...],
    stride: PerAxis,
    padding: Padding,
    dilation: PerAxis,
    groups: int,
) -> Array:
    """The gradient of conv by its weight. x: (N, C, input...); gy: (N, O, output...) -> (O, C/groups, kernel...).

    gy may stop short of the last positions: the ones that are missing count as 0.
    """
    full, _ = convolution_windows("conv", x.shape[2:], kernel, stride, padding, dilation)
    windows = Windows(full.input, full.kernel, full.stride, full.dilation, full.before, tuple(gy.shape[2:]))
    dtype = promote((x, gy))
    return correlate(xp, xp.asarray(x, dtype=dtype), xp.asarray(gy, dtype=dtype), windows, groups)


@weight_gradient.type
def _(
    x: TensorType,
    gy: TensorType,
    kernel: tuple[int, ...],
    stride: PerAxis,
    padding: Padding,
    dilation: PerAxis,
    groups: int,
) -> TensorType:
    return TensorType((gy.shape[1], (x.shape[1] or 0) // groups, *kernel), promote((x, gy)))


@weight_gradient.vjp
def _(
    gw: Array,
    _w: TensorType,
    x: Array,
    gy: Array,
    kernel: tuple[int, ...],
    stride: PerAxis,
    padding: Padding,
    dilation: PerAxis,
    groups: int,
) -> Any:
    full, pairs = convolution_windows("conv", x.shape[2:], kernel, stride, padding, dilation)
    windows = Windows(full.input, full.kernel, full.stride, full.dilation, full.before, tuple(gy.shape[2:]))
    return (
        lambda: conv_transpose(gy, gw, None, stride, pairs, _remainder(windows, pairs), groups, dilation),
        lambda: _cut(conv(x, gw, None, stride, pairs, dilation, groups), windows.output),
    )


@op(
    samples=[
        sample(floats(2, 4, 3, 4), floats(4, 3, 3, 3), floats(3), 2, 1, 1),
        sample(floats(2, 4, 3, 4), floats(4, 2, 3, 2), None, (2, 3), ((1, 0), (0, 1)), (1, 0), 2, (1, 2)),
        sample(floats(1, 3, 5, 4), floats(3, 2, 3, 3), floats(2), 1, 1),
        sample(floats(1, 4, 3, 3), floats(4, 1, 3, 3), floats(4), 2, 1, 0, 4),
        sample(floats(1, 2, 3, 3), floats(2, 1, 2, 1), floats(2), 3, 0, 2, 2),
        sample(floats(1, 2, 3, 3), floats(2, 3, 3, 2), None, 1, 0, (0, 2), 1, (1, 3)),
        sample(floats(2, 3, 5), floats(3, 2, 4), floats(2), 3, 2),
        sample(floats(1, 2, 2, 3, 2), floats(2, 3, 2, 3, 2), floats(3), (1, 2, 1), (1, 1, 0), (0, 1, 0)),
        sample(ints(1, 2, 3), ints(2, 2, 2), None, 2),
    ]
)
def conv_transpose(
    xp: Any,
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: PerAxis = 1,
    padding: Padding = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
) -> Array:
    """Transposed convolution: the map that takes conv's output back to the shape of its input.

    x: (N, C, spatial...); weight: (C, O/groups, kernel...); bias: (O,) or None -> (N, O, spatial...) with
    (size - 1)·stride - padding + dilation·(kernel - 1) + 1 + output_padding positions on each axis; promoted dtype.
    padding: cells cut off, a number or per axis a number or pair (before, after). output_padding: cells added at the
    end. Raises ShapeError, ArgumentError or DTypeError where the arguments do not fit.
    Source: torch.nn.functional.conv_transpose2d; ONNX ConvTranspose.
    """
    windows, _ = transposed_windows(
        "conv_transpose", x.shape[2:], weight.shape[2:], stride, padding, output_padding, dilation
    )
    dtype = promote([a for a in (x, weight, bias) if a is not None])
    x, weight = xp.asarray(x, dtype=dtype), xp.asarray(weight, dtype=dtype)
    out = xp.empty((len(x), weight.shape[1] * groups, *windows.input), dtype)
    return convolve_transposed(xp, x, weight, bias, windows, groups, out)


@conv_transpose.type
def _(
    x: TensorType,
    weight: TensorType,
    bias: TensorType | None,
    stride: PerAxis,
    padding: Padding,
    output_padding: PerAxis,
    groups: int,
    dilation: PerAxis,
) -> TensorType:
    dtype = _check("conv_transpose", x, weight, bias, groups)
    _check_channels("conv_transpose", x.shape[1], weight.shape[0] or 0, weight, groups)
    channels = (weight.shape[1] or 0) * groups
    _check_bias("conv_transpose", bias, channels)
    windows, _ = transposed_windows(
        "conv_transpose", x.shape[2:], weight.shape[2:], stride, padding, output_padding, dilation
    )
    return TensorType((x.shape[0], channels, *windows.input), dtype)


@conv_transpose.vjp
def _(
    gy: Array,
    _y: TensorType,
    x: Array,
    weight: Array,
    _bias: TensorType | None,
    stride: PerAxis,
    padding: Padding,
    output_padding: PerAxis,
    groups: int,
    dilation: PerAxis,
) -> Any:
    windows, pairs = transposed_windows(
        "conv_transpose", x.shape[2:], weight.shape[2:], stride, padding, output_padding, dilation
    )
    return (
        lambda: _cut(conv(gy, weight, None, stride, pairs, dilation, groups), windows.output),
        lambda: weight_gradient(gy, x, windows.kernel, stride, pairs, dilation, groups),
        lambda: _bias_gradient(gy),
    )
