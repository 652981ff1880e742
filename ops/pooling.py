"""Pooling over one, two and three spatial axes, as many as x has: maximum, average, power and global ones."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from zoonet.ops.elementwise import abs, pow
from zoonet.ops.errors import ArgumentError, DTypeError, ShapeError
from zoonet.ops.reductions import max as max_over
from zoonet.ops.reductions import mean
from zoonet.ops.registry import composite, op
from zoonet.ops.samples import distinct, fixed, floats, ints, sample
from zoonet.ops.types import BOOL, FLOATING, Array, DType, TensorType, int64, kind_of, promote
from zoonet.ops.window_reductions import (
    lowest,
    max_with_indices,
    reduce_windows,
    spread_windows,
    window_taps,
)
from zoonet.ops.windows import (
    Padding,
    PerAxis,
    Windows,
    per_axis,
    sliding_windows,
    spatial_rank,
)

__all__ = [
    "avg_pool",
    "global_avg_pool",
    "global_max_pool",
    "lp_pool",
    "max_pool",
    "max_pool_with_indices",
    "max_unpool",
]


def pooling_windows(
    name: str,
    shape: Sequence[int | None],
    kernel: PerAxis,
    stride: PerAxis | None,
    padding: Padding,
    dilation: PerAxis,
    ceil_mode: bool,
) -> tuple[Windows, Any]:
    rank = spatial_rank(name, len(shape))
    sizes = per_axis(name, "kernel", kernel, rank)
    spatial = tuple([n or 0 for n in shape[2:]])
    return sliding_windows(name, spatial, sizes, sizes if stride is None else stride, padding, dilation, ceil_mode)


def require_real(name: str, dtype: DType) -> DType:
    """The dtype, if it is one of real numbers. Raises DTypeError naming the operator."""
    if not BOOL < kind_of(dtype) <= FLOATING:
        raise DTypeError(f"{name} takes real numbers", expected="floats or integers", received=dtype.name)
    return dtype


def max_pool_into(
    xp: Any,
    x: Array,
    kernel: PerAxis,
    stride: PerAxis | None,
    padding: Padding,
    dilation: PerAxis,
    ceil_mode: bool,
    out: Array | None = None,
) -> Array:
    """The body of max_pool, written to `out` where it is given."""
    windows, _ = pooling_windows("max_pool", x.shape, kernel, stride, padding, dilation, ceil_mode)
    if out is None:
        out = xp.empty((*x.shape[:2], *windows.output), x.dtype)
    return reduce_windows(xp, x, window_taps(windows), xp.maximum, lowest(x.dtype), out)


MAX_SAMPLES = [
    sample(distinct(2, 3, 6, 7), 2),
    sample(distinct(2, 2, 6, 7), 3, 2, 1),
    sample(distinct(1, 2, 7, 8), (3, 2), (2, 3), ((1, 0), (0, 1)), (1, 2)),
    sample(distinct(1, 2, 6, 7), 3, 2, 1, 1, True),
    sample(distinct(2, 2, 9), 3, 2, 1, 2, True),
    sample(distinct(1, 2, 4, 5, 4), 2, (1, 2, 2), (0, 1, 1)),
    sample(ints(1, 2, 4, 4, low=-50, high=50), 2),
]


@op(samples=MAX_SAMPLES)
def max_pool(
    xp: Any,
    x: Array,
    kernel: PerAxis,
    stride: PerAxis | None = None,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
) -> Array:
    """The maximum of each window. x: (N, C, spatial...), real -> (N, C, positions...), same dtype.

    stride: the kernel's size for None. padding: a number, a number or pair (before, after) per axis, "same" or
    "valid"; padded cells never win. ceil_mode: a last window may reach beyond the padding if it starts inside the
    input or the padding before it. The gradient goes to the first maximum of each window.
    Raises ShapeError, ArgumentError or DTypeError where the arguments do not fit.
    Source: torch.nn.functional.max_pool2d; ONNX MaxPool.
    """
    return max_pool_into(xp, x, kernel, stride, padding, dilation, ceil_mode)


@max_pool.type
def _(
    x: TensorType,
    kernel: PerAxis,
    stride: PerAxis | None,
    padding: Padding,
    dilation: PerAxis,
    ceil_mode: bool,
) -> TensorType:
    windows, _ = pooling_windows("max_pool", x.shape, kernel, stride, padding, dilation, ceil_mode)
    return TensorType((*x.shape[:2], *windows.output), require_real("max_pool", x.dtype))


@max_pool.vjp
def _(
    gy: Array,
    _y: TensorType,
    x: Array,
    kernel: PerAxis,
    stride: PerAxis | None,
    padding: Padding,
    dilation: PerAxis,
    ceil_mode: bool,
) -> Any:
    return max_pool_gradient(gy, x, kernel, stride, padding, dilation, ceil_mode)


@composite(
    name="max_pool.gradient",
    samples=[
        sample(floats(2, 3, 3, 3), distinct(2, 3, 6, 7), 2),
        sample(floats(2, 2, 3, 2), distinct(2, 2, 6, 5), (2, 3), (2, 2)),
        sample(floats(2, 2, 3, 4), distinct(2, 2, 6, 7), 3, 2, 1),
        sample(floats(2, 2, 3), distinct(2, 2, 9), 3),
        sample(floats(1, 2, 2, 2, 1), distinct(1, 2, 4, 5, 3), (2, 2, 3)),
    ],
)
def max_pool_gradient(
    gy: Array,
    x: Array,
    kernel: PerAxis,
    stride: PerAxis | None = None,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
) -> Array:
    """The gradient of max_pool by x: gy (N, C, positions...) at the first maximum of each window of x.

    Arguments and errors as for max_pool. -> (N, C, spatial...), dtype of gy.
    """
    _, indices = max_pool_with_indices(x, kernel, stride, padding, dilation, ceil_mode)
    return scatter_spatial(gy, indices, tuple(x.shape[2:]))


@op(samples=MAX_SAMPLES)
def max_pool_with_indices(
    xp: Any,
    x: Array,
    kernel: PerAxis,
    stride: PerAxis | None = None,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
) -> tuple[Array, Array]:
    """The maximum of each window, and where it is: its index in the flattened spatial axes of x, int64.

    Arguments and errors as for max_pool. Of equal maxima the first counts. x: (N, C, spatial...) -> two arrays
    (N, C, positions...). Source: torch.nn.functional.max_pool2d with return_indices.
    """
    windows, _ = pooling_windows("max_pool_with_indices", x.shape, kernel, stride, padding, dilation, ceil_mode)
    return max_with_indices(xp, x, window_taps(windows), windows.output)


@max_pool_with_indices.type
def _(
    x: TensorType,
    kernel: PerAxis,
    stride: PerAxis | None,
    padding: Padding,
    dilation: PerAxis,
    ceil_mode: bool,
) -> tuple[TensorType, TensorType]:
    windows, _ = pooling_windows("max_pool_with_indices", x.shape, kernel, stride, padding, dilation, ceil_mode)
    shape = (*x.shape[:2], *windows.output)
    return TensorType(shape, require_real("max_pool_with_indices", x.dtype)), TensorType(shape, int64)


@max_pool_with_indices.vjp
def _(
    gy: tuple[Array, Array],
    y: tuple[Array, Array],
    _x: TensorType,
    _kernel: PerAxis,
    _stride: PerAxis | None,
    _padding: Padding,
    _dilation: PerAxis,
    _ceil_mode: bool,
) -> Any:
    return scatter_spatial(gy[0], y[1], _x.shape[2:])


@op(name="max_pool.scatter")
def scatter_spatial(xp: Any, gy: Array, indices: Array, spatial: tuple[int, ...]) -> Array:
    """gy added at its indices in the flattened spatial axes: (N, C, positions...) -> (N, C, spatial...)."""
    count, channels = gy.shape[:2]
    size = prod(spatial)
    result = xp.empty((count, channels, *spatial), gy.dtype)
    offsets = (xp.arange(channels) * size).reshape(-1, *(1,) * (gy.ndim - 2))
    for n in range(count):
        places = (indices[n] + offsets).ravel()
        sums = xp.bincount(places, weights=gy[n].ravel(), minlength=channels * size)
        result[n] = sums.reshape(channels, *spatial)
    return result


@scatter_spatial.type
def _(gy: TensorType, indices: TensorType, spatial: tuple[int, ...]) -> TensorType:
    return TensorType((*gy.shape[:2], *spatial), gy.dtype)


@scatter_spatial.vjp
def _(g: Array, _result: TensorType, _gy: TensorType, indices: Array, _spatial: Any) -> Any:
    return gather_spatial(g, indices), None


@op(name="max_pool.gather", exact=True)
def gather_spatial(xp: Any, x: Array, indices: Array) -> Array:
    """The elements at indices in the flattened spatial axes: (N, C, spatial...) -> the indices' shape."""
    flat = x.reshape(*x.shape[:2], prod(x.shape[2:]))
    images = xp.arange(x.shape[0]).reshape(-1, 1, 1)
    channels = xp.arange(x.shape[1]).reshape(-1, 1)
    return flat[images, channels, indices.reshape(*x.shape[:2], -1)].reshape(indices.shape)


@gather_spatial.type
def _(x: TensorType, indices: TensorType) -> TensorType:
    return TensorType(indices.shape, x.dtype)


@gather_spatial.vjp
def _(gy: Array, _y: TensorType, _x: TensorType, indices: Array) -> Any:
    return scatter_spatial(gy, indices, _x.shape[2:]), None


@op(
    exact=True,
    samples=[
        sample(floats(1, 1, 2, 2), fixed([[[[1, 6], [8, 15]]]], "int64"), 2),
        sample(floats(1, 2, 2), fixed([[[0, 3], [1, 2]]], "int64"), 2, None, 0, (5,)),
    ],
)
def max_unpool(
    xp: Any,
    x: Array,
    indices: Array,
    kernel: PerAxis,
    stride: PerAxis | None = None,
    padding: PerAxis = 0,
    output_size: Sequence[int] | None = None,
) -> Array:
    """x put back to where max_pool_with_indices took it from, zeros elsewhere.

    x: (N, C, positions...), any dtype; indices: of x's shape, integers -> (N, C, spatial...): `output_size`, or
    (size - 1)·stride - 2·padding + kernel on each axis. Of equal indices the last counts.
    Raises ShapeError or DTypeError where arguments do not fit, ArgumentError for an index outside the result.
    Source: torch.nn.functional.max_unpool2d; ONNX MaxUnpool.
    """
    sizes = _unpooled(x.shape, kernel, stride, padding, output_size)
    flat = xp.zeros((*x.shape[:2], prod(sizes)), x.dtype)
    if indices.size and (int(indices.min()) < 0 or int(indices.max()) >= flat.shape[2]):
        raise ArgumentError(
            "max_unpool: an index is outside the result",
            expected=f"0 to {flat.shape[2] - 1}",
            received=f"{int(indices.min())} to {int(indices.max())}",
            fix="pass the output_size that the indices belong to",
        )
    images = xp.arange(x.shape[0]).reshape(-1, 1, 1)
    channels = xp.arange(x.shape[1]).reshape(-1, 1)
    flat[images, channels, indices.reshape(*x.shape[:2], -1)] = x.reshape(*x.shape[:2], -1)
    return flat.reshape(*x.shape[:2], *sizes)


def _unpooled(
    shape: Sequence[Any],
    kernel: PerAxis,
    stride: PerAxis | None,
    padding: PerAxis,
    output_size: Sequence[int] | None,
) -> tuple[int, ...]:
    rank = spatial_rank("max_unpool", len(shape))
    if output_size is not None:
        return per_axis("max_unpool", "output_size", output_size, rank)
    sizes = per_axis("max_unpool", "kernel", kernel, rank)
    strides = sizes if stride is None else per_axis("max_unpool", "stride", stride, rank)
    pads = per_axis("max_unpool", "padding", padding, rank, 0)
    result = tuple((n - 1) * s - 2 * p + k for n, s, p, k in zip(shape[2:], strides, pads, sizes, strict=True))
    if min(result) < 1:
        raise ShapeError("max_unpool: the result would be empty", received=result, fix="less padding")
    return result


@max_unpool.type
def _(
    x: TensorType,
    indices: TensorType,
    kernel: PerAxis,
    stride: PerAxis | None,
    padding: PerAxis,
    output_size: Sequence[int] | None,
) -> TensorType:
    if indices.shape != x.shape:
        raise ShapeError("max_unpool: one index per element", expected=list(x.shape), received=list(indices.shape))
    if indices.dtype.kind not in "iu":
        raise DTypeError("max_unpool: indices are integers", received=indices.dtype.name)
    return TensorType((*x.shape[:2], *_unpooled(x.shape, kernel, stride, padding, output_size)), x.dtype)


@max_unpool.vjp
def _(
    gy: Array,
    _y: TensorType,
    _x: TensorType,
    indices: Array,
    _kernel: PerAxis,
    _stride: PerAxis | None,
    _padding: PerAxis,
    _output_size: Sequence[int] | None,
) -> Any:
    return gather_spatial(gy, indices), None


def average_divisors(windows: Windows, pairs: Any, include: bool, divisor: int | None) -> list[np.ndarray[Any, Any]]:
    """The number of cells that an average counts, as a factor per axis."""
    factors = []
    for axis, (before, after) in enumerate(pairs):
        starts = np.arange(windows.output[axis]) * windows.stride[axis] - before
        cells = starts[:, None] + np.arange(windows.kernel[axis]) * windows.dilation[axis]
        low, high = (-before, windows.input[axis] + after) if include else (0, windows.input[axis])
        counts = np.maximum(((cells >= low) & (cells < high)).sum(axis=1), 1)
        factors.append(np.ones_like(counts) if divisor is not None else counts)
    if divisor is not None:
        factors[0] = factors[0] * divisor
    return factors


def _divide(xp: Any, x: Array, factors: list[np.ndarray[Any, Any]]) -> None:
    """Divide x in place by the outer product of a factor per spatial axis."""
    if all((f == f[0]).all() for f in factors):
        xp.divide(x, float(prod(int(f[0]) for f in factors)), out=x)
        return
    counts: Any = 1
    for axis, factor in enumerate(factors):
        counts = counts * factor.reshape(-1, *(1,) * (len(factors) - axis - 1))
    xp.divide(x, xp.asarray(counts, dtype=x.dtype), out=x)


def _check_divisor(divisor: int | None) -> None:
    if divisor is not None and (not isinstance(divisor, int) or divisor == 0):
        raise ArgumentError("avg_pool: divisor does not fit", expected="an integer other than 0", received=divisor)


@op(
    samples=[
        sample(floats(2, 3, 6, 7), 2),
        sample(floats(2, 2, 6, 7), 3, 2, 1),
        sample(floats(2, 2, 6, 7), 3, 2, 1, True, False),
        sample(floats(1, 2, 7, 8), (3, 2), (2, 3), ((1, 0), (0, 1)), False, False, None, (1, 2)),
        sample(floats(1, 2, 7, 8), 3, 2, (1, 0), True, True),
        sample(floats(1, 2, 5, 5), 2, 1, 0, False, True, 3),
        sample(floats(2, 2, 9), 4, 3, 2),
        sample(floats(1, 2, 4, 5, 4), 2, (1, 2, 2), (0, 1, 1)),
    ]
)
def avg_pool(
    xp: Any,
    x: Array,
    kernel: PerAxis,
    stride: PerAxis | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
    dilation: PerAxis = 1,
) -> Array:
    """The average of each window. x: (N, C, spatial...), real -> (N, C, positions...), at least float32.

    stride, padding and ceil_mode as for max_pool. count_include_pad: padded cells count as zeros; cells beyond the
    padding (ceil_mode) never count. divisor: divide each sum by this number instead.
    Raises ShapeError, ArgumentError or DTypeError where the arguments do not fit.
    Source: torch.nn.functional.avg_pool2d; ONNX AveragePool.
    """
    windows, pairs = pooling_windows("avg_pool", x.shape, kernel, stride, padding, dilation, ceil_mode)
    x = xp.asarray(x, dtype=promote([x], floating=True))
    out = xp.empty((*x.shape[:2], *windows.output), x.dtype)
    reduce_windows(xp, x, window_taps(windows), xp.add, 0, out)
    _divide(xp, out, average_divisors(windows, pairs, count_include_pad, divisor))
    return out


@avg_pool.type
def _(
    x: TensorType,
    kernel: PerAxis,
    stride: PerAxis | None,
    padding: Padding,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
    dilation: PerAxis,
) -> TensorType:
    _check_divisor(divisor)
    windows, _ = pooling_windows("avg_pool", x.shape, kernel, stride, padding, dilation, ceil_mode)
    require_real("avg_pool", x.dtype)
    return TensorType((*x.shape[:2], *windows.output), promote([x], floating=True))


@avg_pool.vjp
def _(
    gy: Array,
    _y: TensorType,
    _x: TensorType,
    kernel: PerAxis,
    stride: PerAxis | None,
    padding: Padding,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
    dilation: PerAxis,
) -> Any:
    arguments = (kernel, stride, padding, ceil_mode, count_include_pad, divisor, dilation)
    return avg_pool_gradient(gy, _x.shape[2:], *arguments)


@op(name="avg_pool.gradient")
def avg_pool_gradient(
    xp: Any,
    gy: Array,
    spatial: tuple[int, ...],
    kernel: PerAxis,
    stride: PerAxis | None,
    padding: Padding,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
    dilation: PerAxis,
) -> Array:
    """The gradient of avg_pool by x: (N, C, positions...) -> (N, C, spatial...)."""
    shape = (*gy.shape[:2], *spatial)
    windows, pairs = pooling_windows("avg_pool", shape, kernel, stride, padding, dilation, ceil_mode)
    shares = gy.copy()
    _divide(xp, shares, average_divisors(windows, pairs, count_include_pad, divisor))
    return spread_windows(xp, shares, windows)


@avg_pool_gradient.type
def _(gy: TensorType, spatial: tuple[int, ...], *_: Any) -> TensorType:
    return TensorType((*gy.shape[:2], *spatial), gy.dtype)


@avg_pool_gradient.vjp
def _(gx: Array, _y: TensorType, _gy: TensorType, _spatial: Any, *arguments: Any) -> Any:
    return avg_pool(gx, *arguments)


@composite(
    samples=[
        sample(floats(2, 2, 6, 5, low=0.5), 2, 2),
        sample(floats(1, 2, 7, low=0.5), 3, 3, 2, 1),
        sample(floats(1, 2, 5, 6, low=-2, high=-0.5), 2, (3, 2), 1, ((0, 1), (1, 0)), (1, 2)),
    ]
)
def lp_pool(
    x: Array,
    p: float,
    kernel: PerAxis,
    stride: PerAxis | None = None,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
) -> Array:
    """The p-norm of each window, (Σ |x|^p)^(1/p). x: (N, C, spatial...), real -> (N, C, positions...), floating.

    Other arguments as for max_pool; padded cells are zeros. Raises ArgumentError unless p > 0, and as max_pool.
    Source: ONNX LpPool; torch.nn.functional.lp_pool2d (which takes x^p with its sign).
    """
    if not p > 0:
        raise ArgumentError("lp_pool: p does not fit", expected="a number above 0", received=p)
    sums = avg_pool(pow(abs(x), p), kernel, stride, padding, ceil_mode, True, 1, dilation)
    return pow(sums, 1 / p)


@composite(samples=[sample(floats(2, 3, 4, 5)), sample(floats(2, 3, 4)), sample(floats(1, 2, 2, 3, 2))])
def global_avg_pool(x: Array) -> Array:
    """The average over all spatial axes. x: (N, C, spatial...), real -> (N, C, 1...).

    Source: ONNX GlobalAveragePool.
    """
    return mean(x, tuple(range(2, 2 + spatial_rank("global_avg_pool", len(x.shape)))), True)


@composite(samples=[sample(distinct(2, 3, 4, 5)), sample(distinct(2, 3, 4)), sample(distinct(1, 2, 2, 3, 2))])
def global_max_pool(x: Array) -> Array:
    """The maximum over all spatial axes. x: (N, C, spatial...), real -> (N, C, 1...). Source: ONNX GlobalMaxPool."""
    return max_over(x, tuple(range(2, 2 + spatial_rank("global_max_pool", len(x.shape)))), True)
