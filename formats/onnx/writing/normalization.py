"""Normalisation and its gradient as ONNX nodes."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from zoonet.formats.onnx.writing.builder import Builder, Operand
from zoonet.formats.onnx.writing.sizes import Size, Tensor
from zoonet.formats.onnx.writing.table import emitter
from zoonet.ops.reductions import normalize_axes
from zoonet.ops.types import DType


def _number(b: Builder, value: float, dtype: DType) -> str:
    return b.constant(np.asarray(value, dtype))


def _standardized(b: Builder, x: Operand, axes: Any, eps: float, centered: bool, dtype: DType) -> tuple[str, str, str]:
    """x at mean 0 and variance 1, the mean (zeros if not centered), the variance; axes kept."""
    mean = b.reduce("ReduceMean", x, axes, True)
    deviation = b.node("Sub", x, mean) if centered else str(x.name if isinstance(x, Tensor) else x)
    variance = b.reduce("ReduceMean", b.node("Mul", deviation, deviation), axes, True)
    spread = b.node("Sqrt", b.node("Add", variance, _number(b, eps, dtype)))
    if not centered:
        mean = b.node("Mul", variance, _number(b, 0, dtype))
    return b.node("Div", deviation, spread), mean, variance


@emitter("standardize")
def _(b: Builder, x: Tensor, weight: Any, bias: Any, axis: Any, eps: float, centered: bool) -> tuple[str, str, str]:
    axes = normalize_axes("standardize", x.ndim, axis)
    dtype = b.outputs[1].dtype
    given = b.cast(x, dtype)
    y, mean, variance = _standardized(b, given, axes, eps, centered, dtype)
    if weight is not None:
        y = b.node("Mul", y, b.cast(weight, dtype))
    if bias is not None:
        y = b.node("Add", y, b.cast(bias, dtype))
    return y if dtype == x.dtype else b.cast(y, x.dtype), mean, variance


@emitter("standardize_gradient")
def _(
    b: Builder,
    gy: Tensor,
    gmean: Tensor,
    gvariance: Tensor,
    x: Tensor,
    weight: Any,
    mean: Tensor,
    variance: Tensor,
    axis: Any,
    eps: float,
    centered: bool,
    affine_shape: Any,
) -> tuple[str, str, str]:
    axes = normalize_axes("standardize_gradient", x.ndim, axis)
    dtype = variance.dtype
    grad, given = b.cast(gy, dtype), b.cast(x, dtype)
    spread = b.node("Sqrt", b.node("Add", variance, _number(b, eps, dtype)))
    deviation = b.node("Sub", given, mean) if centered else given
    normal = b.node("Div", deviation, spread)
    weighted = grad if weight is None else b.node("Mul", grad, b.cast(weight, dtype))
    inner = b.reduce("ReduceMean", b.node("Mul", weighted, normal), axes, True)
    gx = b.node("Sub", weighted, b.node("Mul", normal, inner))
    if centered:
        gx = b.node("Sub", gx, b.reduce("ReduceMean", weighted, axes, True))
    gx = b.node("Div", gx, spread)
    count = _count(b, x, axes, dtype)
    slope = b.node("Div", b.node("Mul", gvariance, _number(b, 2, dtype)), count)
    gx = b.node("Add", gx, b.node("Mul", slope, deviation))
    if centered:
        gx = b.node("Add", gx, b.node("Div", gmean, count))
    gx = gx if dtype == x.dtype else b.cast(gx, x.dtype)
    if affine_shape is None:
        empty = b.constant(np.zeros(0, dtype))
        return gx, empty, b.node("Identity", empty)
    reduced = [i for i, n in enumerate(affine_shape) if n == 1 and x.shape[i] != 1]
    scaled = b.node("Mul", grad, normal)
    if not reduced:
        return gx, scaled, b.node("Identity", grad)
    return gx, b.reduce("ReduceSum", scaled, reduced, True), b.reduce("ReduceSum", grad, reduced, True)


def _count(b: Builder, x: Tensor, axes: Any, dtype: DType) -> str:
    """The number of elements over axes, as a number of this dtype."""
    sizes = [x.shape[i] for i in axes]
    fixed = prod(n for n in sizes if isinstance(n, int)) or 1
    free = [n for n in sizes if isinstance(n, Size)]
    count = _number(b, fixed, dtype)
    for n in free:
        count = b.node("Mul", count, b.number(n, dtype))
    return count


@emitter("batch_norm")
def _(b: Builder, x: Tensor, mean: Tensor, variance: Tensor, weight: Any, bias: Any, eps: float) -> str:
    dtype = b.outputs[0].dtype
    channels = mean.shape[0]
    scale = b.full([channels], 1, dtype) if weight is None else b.cast(weight, dtype)
    shift = b.full([channels], 0, dtype) if bias is None else b.cast(bias, dtype)
    return b.node(
        "BatchNormalization",
        b.cast(x, dtype),
        scale,
        shift,
        b.cast(mean, dtype),
        b.cast(variance, dtype),
        epsilon=float(eps),
    )


@emitter("layer_norm")
def _(b: Builder, x: Tensor, shape: Any, weight: Any, bias: Any, eps: float) -> str:
    rank = 1 if isinstance(shape, int | Size) else len(shape)
    dtype = b.outputs[0].dtype
    axes = range(x.ndim - rank, x.ndim)
    if b.opset >= 17 and weight is not None:
        return b.node("LayerNormalization", x, weight, bias, axis=-rank, epsilon=float(eps))
    y = _standardized(b, x, axes, eps, True, dtype)[0]
    if weight is not None:
        y = b.node("Mul", y, weight)
    return y if bias is None else b.node("Add", y, bias)


@emitter("rms_norm")
def _(b: Builder, x: Tensor, shape: Any, weight: Any, eps: float) -> str:
    rank = 1 if isinstance(shape, int | Size) else len(shape)
    dtype = b.outputs[0].dtype
    y = _standardized(b, x, range(x.ndim - rank, x.ndim), eps, False, dtype)[0]
    return y if weight is None else b.node("Mul", y, weight)


@emitter("instance_norm")
def _(b: Builder, x: Tensor, weight: Any, bias: Any, eps: float) -> str:
    dtype = b.outputs[0].dtype
    channels = x.shape[1]
    scale = b.full([channels], 1, dtype) if weight is None else b.cast(weight, dtype)
    shift = b.full([channels], 0, dtype) if bias is None else b.cast(bias, dtype)
    return b.node("InstanceNormalization", x, scale, shift, epsilon=float(eps))
