"""Kernels of convolution on NumPy: results written in place, and 1×1 kernels without columns."""

from __future__ import annotations

from math import prod
from typing import Any

from zoonet.ops.columns import convolve
from zoonet.ops.convolution import conv, convolution_windows
from zoonet.ops.types import Array, TensorType, promote
from zoonet.ops.windows import Padding, PerAxis

#: A 1×1 convolution of smaller images joins several of them in one product, which `convolve` does.
_LEAST_POSITIONS = 128


def _operands(xp: Any, x: Array, weight: Array, bias: Array | None) -> tuple[Any, Array, Array]:
    dtype = promote([a for a in (x, weight, bias) if a is not None])
    return dtype, xp.asarray(x, dtype=dtype), xp.asarray(weight, dtype=dtype)


@conv.kernel("cpu", takes_out=True)
def convolve_into(
    xp: Any,
    x: Array,
    weight: Array,
    bias: Array | None,
    stride: PerAxis,
    padding: Padding,
    dilation: PerAxis,
    groups: int,
    out: Array | None = None,
) -> Array:
    """The body of conv, written to `out`."""
    windows, _ = convolution_windows("conv", x.shape[2:], weight.shape[2:], stride, padding, dilation)
    dtype, x, weight = _operands(xp, x, weight, bias)
    if out is None:
        out = xp.empty((len(x), len(weight), *windows.output), dtype)
    return convolve(xp, x, weight, bias, windows, groups, out)


def _is_pointwise(
    x: TensorType,
    weight: TensorType,
    bias: TensorType | None,
    stride: PerAxis,
    padding: Padding,
    dilation: PerAxis,
    groups: int,
) -> bool:
    if any(n != 1 for n in weight.shape[2:]) or (weight.shape[1] == 1 and groups > 1):
        return False
    windows, pairs = convolution_windows("conv", x.shape[2:], weight.shape[2:], stride, padding, dilation)
    small = prod(windows.output) < _LEAST_POSITIONS and x.shape[0] != 1
    return not small and not any(before or after for before, after in pairs)


@conv.kernel("cpu", when=_is_pointwise, takes_out=True)
def convolve_pointwise(
    xp: Any,
    x: Array,
    weight: Array,
    bias: Array | None,
    stride: PerAxis,
    padding: Padding,
    dilation: PerAxis,
    groups: int,
    out: Array | None = None,
) -> Array:
    """A 1×1 convolution: one matrix product per image and group; a stride skips positions beforehand."""
    dtype, x, weight = _operands(xp, x, weight, bias)
    rank = x.ndim - 2
    strides = (stride,) * rank if isinstance(stride, int) else stride
    x = x[(..., *[slice(None, None, s) for s in strides])]
    if out is None:
        out = xp.empty((len(x), len(weight), *x.shape[2:]), dtype)
    positions = prod(x.shape[2:])
    matrix = weight.reshape(groups, len(weight) // groups, weight.shape[1])
    target = out.reshape(len(x), groups, matrix.shape[1], positions)
    xp.matmul(matrix, x.reshape(len(x), groups, matrix.shape[2], positions), out=target)
    if bias is not None:
        xp.add(target, bias.reshape(groups, -1, 1), out=target)
    return out
