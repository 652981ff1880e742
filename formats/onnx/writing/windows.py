"""Convolution, pooling and resampling, and their gradients, as ONNX nodes."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from zoonet.formats.onnx.writing.builder import Builder
from zoonet.formats.onnx.writing.maps import along, fixed
from zoonet.formats.onnx.writing.sizes import Dimension, Size, Tensor
from zoonet.formats.onnx.writing.table import emitter
from zoonet.ops.deformation import tap_places
from zoonet.ops.pooling import average_divisors
from zoonet.ops.types import INTEGER, float32, float64, int64, kind_of
from zoonet.ops.windows import padding_pairs, per_axis, sliding_windows


def _spatial(x: Tensor) -> list[int] | None:
    """The spatial sizes, or None where one of them is free."""
    sizes = [n for n in x.shape[2:] if isinstance(n, int)]
    return sizes if len(sizes) == x.ndim - 2 else None


def _geometry(b: Builder, x: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any) -> dict[str, Any]:
    """Attributes of a node that slides windows."""
    rank = x.ndim - 2
    name = b.operator
    strides, dilations = per_axis(name, "stride", stride, rank), per_axis(name, "dilation", dilation, rank)
    sizes = _spatial(x)
    if padding == "same" and sizes is None:
        if any(d != 1 for d in dilations):
            raise b.refuse("padding 'same' with dilation and free spatial sizes", "give the padding in numbers")
        return {"strides": strides, "auto_pad": "SAME_UPPER", "dilations": dilations}
    pairs = padding_pairs(name, padding, sizes or [1] * rank, kernel, strides, dilations)
    return {"strides": strides, "dilations": dilations, "pads": [p[0] for p in pairs] + [p[1] for p in pairs]}


def _floating(b: Builder, *operands: Tensor | None) -> list[str | None]:
    """Operands in the result's dtype; convolutions of integers are computed in float32."""
    dtype = b.outputs[0].dtype
    wanted = float32 if kind_of(dtype) <= INTEGER else dtype
    return [None if o is None else b.cast(o, wanted) for o in operands]


def _returned(b: Builder, y: str) -> str:
    dtype = b.outputs[0].dtype
    return b.cast(y, dtype) if kind_of(dtype) <= INTEGER else y


@emitter("conv")
def _(b: Builder, x: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> str:
    geometry = _geometry(b, x, weight.shape[2:], stride, padding, dilation)
    y = b.node("Conv", *_floating(b, x, weight, bias), group=groups, kernel_shape=weight.shape[2:], **geometry)
    return _returned(b, y)


@emitter("deform_conv2d")
def _(
    b: Builder,
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    mask: Any,
) -> str:
    b.require(19)
    geometry = _geometry(b, x, weight.shape[2:], stride, padding, dilation)
    sizes = (x.shape[1], weight.shape[1], offset.shape[1], *weight.shape[2:])
    channels, part, moved, *kernel = [n for n in sizes if isinstance(n, int)]
    return b.node(
        "DeformConv",
        x,
        weight,
        offset,
        bias if bias is not None or mask is None else b.full([weight.shape[0]], 0, x.dtype),
        mask,
        group=channels // part,
        offset_group=moved // (2 * prod(kernel)),
        kernel_shape=kernel,
        **geometry,
    )


@emitter("conv_transpose")
def _(
    b: Builder,
    x: Tensor,
    weight: Tensor,
    bias: Any,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
) -> str:
    rank = x.ndim - 2
    if isinstance(output_padding, Size) or (
        isinstance(output_padding, tuple) and any(isinstance(n, Size) for n in output_padding)
    ):
        raise b.refuse("output padding that depends on a free size", "fix the spatial sizes")
    geometry = _geometry(b, x, weight.shape[2:], stride, padding, dilation)
    extra = per_axis(b.operator, "output_padding", output_padding, rank, 0)
    # ONNX limits output padding; what is more is padding that is taken away from the end, where there is any
    pads = list(geometry["pads"])
    strides, dilations = geometry["strides"], geometry["dilations"]
    added = [0] * rank
    for i in range(rank):
        taken = min(extra[i], pads[rank + i])
        pads[rank + i] -= taken
        added[i] = extra[i] - taken
    outer = [n if n >= strides[i] else 0 for i, n in enumerate(added)]  # cells that no tap reaches
    inner = [n - m for n, m in zip(added, outer, strict=True)]
    y = b.node(
        "ConvTranspose",
        *_floating(b, x, weight, None if any(outer) else bias),
        group=groups,
        kernel_shape=weight.shape[2:],
        strides=strides,
        dilations=dilations,
        pads=pads,
        output_padding=inner if any(inner) else None,
    )
    if any(outer):
        widths = [0] * (rank + 4) + outer
        y = b.node("Pad", y, b.ints(widths), b.constant(np.asarray(0, b.outputs[0].dtype)))
        if bias is not None:
            y = b.node("Add", y, b.reshape(b.cast(bias, b.outputs[0].dtype), [1, -1, *[1] * rank]))
    return _returned(b, y)


@emitter("conv.weight_gradient")
def _(b: Builder, x: Tensor, gy: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> str:
    """A convolution in which images are channels: (C / g, g · N, …) by (O, N, …), stride and dilation exchanged."""
    rank = x.ndim - 2
    images, channels, outputs = x.shape[0], x.shape[1], gy.shape[1]
    if not isinstance(channels, int) or not isinstance(outputs, int):
        raise b.refuse("channels of free size")
    geometry = _geometry(b, x, kernel, stride, padding, dilation)
    if "pads" not in geometry:
        raise b.refuse("padding 'same' with free spatial sizes", "give the padding in numbers")
    places = list(range(2, x.ndim))
    turned = b.transpose(b.cast(gy, b.outputs[0].dtype), [1, 0, *places])  # (O, N, …)
    given = b.cast(x, b.outputs[0].dtype)
    if groups == 1:
        signal = b.transpose(given, [1, 0, *places])  # (C, N, …)
    else:
        split = b.reshape(given, [images, groups, channels // groups, *x.shape[2:]])
        moved = b.transpose(split, [2, 1, 0, *[i + 1 for i in places]])  # (C / g, g, N, …)
        joined = groups * images if isinstance(images, int) else Size(tuple(groups * n for n in images.values))
        signal = b.reshape(moved, [channels // groups, joined, *x.shape[2:]])
    y = b.node(
        "Conv",
        signal,
        turned,
        group=groups,
        strides=geometry["dilations"],
        dilations=geometry["strides"],
        pads=geometry["pads"],
    )
    cut = b.slice(y, [0] * rank, kernel, places)
    return b.transpose(cut, [1, 0, *places])


@emitter("deform_conv2d")
def _(
    b: Builder,
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    mask: Any,
) -> str:
    b.require(19)
    channels, offsets, inner, *kernel = fixed(b, (x.shape[1], offset.shape[1], *weight.shape[1:]))
    geometry = _geometry(b, x, kernel, stride, padding, dilation)
    if "pads" not in geometry:
        raise b.refuse("padding 'same' with free spatial sizes", "give the padding in numbers")
    groups = {"group": channels // inner, "offset_group": offsets // (2 * prod(kernel))}
    return b.node("DeformConv", x, weight, offset, bias, mask, kernel_shape=kernel, **groups, **geometry)


@emitter("deform_conv2d.places")
def _(b: Builder, offset: Tensor, windows: Any, axis: int) -> str:
    return b.node("Add", offset, b.constant(tap_places(windows, axis), offset.dtype))


# -- pooling -----------------------------------------------------------------------------------------------------


def _kernel(b: Builder, x: Tensor, kernel: Any) -> tuple[int, ...]:
    return per_axis(b.operator, "kernel", kernel, x.ndim - 2)


@emitter("max_pool")
def _(b: Builder, x: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> str:
    sizes = _kernel(b, x, kernel)
    geometry = _geometry(b, x, sizes, sizes if stride is None else stride, padding, dilation)
    given: Any = x
    if kind_of(x.dtype) <= INTEGER and x.dtype.itemsize > 1:
        given = b.cast(x, float64)  # ONNX pools floats and bytes
    y = b.node("MaxPool", given, kernel_shape=sizes, ceil_mode=int(ceil_mode), **geometry)
    return y if given is x else b.cast(y, x.dtype)


@emitter("max_pool_with_indices")
def _(b: Builder, x: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Any:
    sizes = _kernel(b, x, kernel)
    geometry = _geometry(b, x, sizes, sizes if stride is None else stride, padding, dilation)
    whole = kind_of(x.dtype) <= INTEGER and x.dtype.itemsize > 1
    given = b.cast(x, float64) if whole else x.name
    y, indices = b.many("MaxPool", given, outputs=2, kernel_shape=sizes, ceil_mode=int(ceil_mode), **geometry)
    # ONNX counts from the start of the whole array, zoonet from the start of each plane
    return b.cast(y, x.dtype) if whole else y, b.node("Mod", indices, _plane(b, x.shape[2:]))


def _plane(b: Builder, sizes: Any) -> str:
    """The number of cells of the spatial axes, int64 []."""
    if all(isinstance(n, int) for n in sizes):
        return b.constant(prod(sizes), int64)
    return b.node("ReduceProd", b.ints(sizes), keepdims=0)


def _flat(b: Builder, x: Tensor) -> str:
    """(N, C, …) as (N, C, cells)."""
    return b.node("Reshape", x, b.constant([0, 0, -1], int64))


@emitter("max_pool.scatter")
def _(b: Builder, gy: Tensor, indices: Tensor, spatial: Any) -> str:
    b.require(16)
    whole = b.outputs[0]
    cells = b.unsqueeze(_plane(b, whole.shape[2:]), [0])
    shape = b.node("Concat", b.ints(whole.shape[:2]), cells, axis=0)
    zeros = b.node("Expand", b.constant(np.asarray(0, whole.dtype)), shape)
    flat = [_flat(b, a) for a in (indices, gy)]
    y = b.node("ScatterElements", zeros, *flat, axis=2, reduction="add")
    return b.reshape(y, whole.shape, whole.shape[:2])


@emitter("max_pool.gather")
def _(b: Builder, x: Tensor, indices: Tensor) -> str:
    y = b.node("GatherElements", _flat(b, x), _flat(b, indices), axis=2)
    return b.reshape(y, indices.shape, indices.shape[:2])


@emitter("avg_pool")
def _(
    b: Builder,
    x: Tensor,
    kernel: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
    dilation: Any,
) -> str:
    sizes = _kernel(b, x, kernel)
    geometry = _geometry(b, x, sizes, sizes if stride is None else stride, padding, dilation)
    given = b.cast(x, b.outputs[0].dtype)
    dilations = geometry.pop("dilations")
    if any(d != 1 for d in dilations):
        b.require(19, "dilation")
        geometry["dilations"] = dilations
    spatial = _spatial(x)
    if ceil_mode and not count_include_pad and divisor is None:
        geometry["ceil_mode"] = 1
    elif ceil_mode or divisor is not None:
        # written as sums over windows: ONNX Runtime counts the cells beyond the padding, zoonet does not
        return _averaged(b, x, given, spatial, sizes, geometry, dilations, ceil_mode, count_include_pad, divisor)
    return b.node("AveragePool", given, kernel_shape=sizes, count_include_pad=int(count_include_pad), **geometry)


def _averaged(
    b: Builder,
    x: Tensor,
    given: str,
    spatial: list[int] | None,
    sizes: tuple[int, ...],
    geometry: dict[str, Any],
    dilations: tuple[int, ...],
    ceil_mode: bool,
    include: bool,
    divisor: int | None,
) -> str:
    dtype = b.outputs[0].dtype
    rank = x.ndim - 2
    if spatial is None:
        raise b.refuse("ceil_mode or a divisor with free spatial sizes", "fix the spatial sizes")
    pads = list(geometry["pads"])
    pairs = [(pads[i], pads[rank + i]) for i in range(rank)]
    windows, _ = sliding_windows(b.operator, spatial, sizes, geometry["strides"], pairs, dilations, ceil_mode)
    for i in range(rank):  # enough padding for the last window
        reach = (windows.output[i] - 1) * windows.stride[i] + windows.dilation[i] * (sizes[i] - 1) + 1
        pads[rank + i] = max(pads[rank + i], reach - spatial[i] - pads[i])
    widths = [0, 0, *pads[:rank], 0, 0, *pads[rank:]]
    padded = b.node("Pad", given, b.ints(widths), b.constant(np.asarray(0, dtype)))
    mean = b.node(
        "AveragePool",
        padded,
        kernel_shape=sizes,
        strides=windows.stride,
        dilations=dilations if any(d != 1 for d in dilations) else None,
    )
    starts, ends = [0] * rank, list(windows.output)
    return b.node(
        "Mul", b.slice(mean, starts, ends, range(2, x.ndim)), _shares(b, windows, pairs, include, divisor, prod(sizes))
    )


def _shares(b: Builder, windows: Any, pairs: Any, include: bool, divisor: int | None, scale: float) -> str:
    """scale over the number of cells that an average counts, per position."""
    counts: Any = 1
    factors = average_divisors(windows, pairs, include, divisor)
    for axis, factor in enumerate(factors):
        counts = counts * factor.reshape(-1, *(1,) * (len(factors) - axis - 1))
    return b.constant(np.asarray(scale / counts, b.outputs[0].dtype))


@emitter("avg_pool.gradient")
def _(
    b: Builder,
    gy: Tensor,
    spatial: Any,
    kernel: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    include: bool,
    divisor: int | None,
    dilation: Any,
) -> str:
    whole = b.outputs[0]
    rank = gy.ndim - 2
    sizes = _spatial(whole)
    channels = gy.shape[1]
    if sizes is None or not isinstance(channels, int):
        raise b.refuse("free spatial sizes", "fix the spatial sizes")
    taps = per_axis(b.operator, "kernel", kernel, rank)
    strides = taps if stride is None else stride
    windows, pairs = sliding_windows(b.operator, sizes, taps, strides, padding, dilation, ceil_mode)
    shares = b.node("Mul", b.cast(gy, whole.dtype), _shares(b, windows, pairs, include, divisor, 1.0))
    y = b.node(
        "ConvTranspose",
        shares,
        b.constant(np.ones((channels, 1, *taps), whole.dtype)),
        group=channels,
        kernel_shape=taps,
        strides=windows.stride,
        dilations=windows.dilation,
    )
    lengths = [
        (n - 1) * s + d * (k - 1) + 1
        for n, s, d, k in zip(windows.output, windows.stride, windows.dilation, taps, strict=True)
    ]
    before = [-p for p in windows.before]
    after = [n + p - m for n, p, m in zip(sizes, windows.before, lengths, strict=True)]
    return b.node("Pad", y, b.ints([0, 0, *before, 0, 0, *after]), b.constant(np.asarray(0, whole.dtype)))


@emitter("adaptive_avg_pool")
def _(b: Builder, x: Tensor, output_size: Any) -> str:
    given = b.cast(x, b.outputs[0].dtype)
    wanted, sizes = b.outputs[0].shape[2:], _spatial(x)
    if all(n == 1 for n in wanted):
        return b.node("GlobalAveragePool", given)
    if sizes is None:
        raise b.refuse("free spatial sizes", "fix the spatial sizes")
    y = given
    for axis, (n, m) in enumerate(zip(sizes, wanted, strict=True), start=2):
        assert isinstance(m, int)
        matrix = np.zeros((m, n), b.outputs[0].dtype)
        for row in range(m):
            start, stop = row * n // m, -(-(row + 1) * n // m)
            matrix[row, start:stop] = 1 / (stop - start)
        y = along(b, y, matrix, axis, x.ndim)
    return y


@emitter("adaptive_avg_pool.gradient")
def _(b: Builder, gy: Tensor, spatial: Any) -> str:
    sizes, outputs = _spatial(b.outputs[0]), _spatial(gy)
    if sizes is None or outputs is None:
        raise b.refuse("free spatial sizes", "fix the spatial sizes")
    y: str = gy.name
    for axis, (n, m) in enumerate(zip(sizes, outputs, strict=True), start=2):
        matrix = np.zeros((n, m), b.outputs[0].dtype)
        for row in range(m):
            start, stop = row * n // m, -(-(row + 1) * n // m)
            matrix[start:stop, row] = 1 / (stop - start)
        y = along(b, y, matrix, axis, gy.ndim)
    return y


# -- resampling --------------------------------------------------------------------------------------------------


@emitter("resize")
def _(
    b: Builder,
    x: Tensor,
    sizes: Any,
    scales: Any,
    axes: Any,
    mode: str,
    coordinates: str,
    nearest: str,
    cubic: float,
    exclude_outside: bool,
    antialias: bool,
    roi: Any,
    extrapolation: float,
) -> str:
    if antialias:
        b.require(18, "antialias")
    count = len(sizes if sizes is not None else scales)
    chosen = list(range(x.ndim - count, x.ndim)) if axes is None else [a % x.ndim for a in axes]
    attributes: dict[str, Any] = {
        "mode": mode,
        "coordinate_transformation_mode": coordinates,
        "nearest_mode": nearest if mode == "nearest" else None,
        "cubic_coeff_a": float(cubic) if mode == "cubic" else None,
        "exclude_outside": int(exclude_outside) or None,
        "extrapolation_value": float(extrapolation) if coordinates == "tf_crop_and_resize" else None,
        "antialias": int(antialias) or None,
    }
    region = None
    if roi is not None:
        starts, ends = [0.0] * x.ndim, [1.0] * x.ndim
        for place, axis in enumerate(chosen):
            starts[axis], ends[axis] = roi[place], roi[len(chosen) + place]
        region = b.constant(np.asarray([*starts, *ends], np.float32))
    if sizes is None:
        factors = [1.0] * x.ndim
        for axis, factor in zip(chosen, scales, strict=True):
            factors[axis] = factor
        return b.node("Resize", x, region, b.constant(np.asarray(factors, np.float32)), **attributes)
    if scales is not None:
        raise b.refuse("sizes and scales that do not belong together", "give one of them")
    wanted: list[Dimension] = list(x.shape)
    for axis, size in zip(chosen, sizes, strict=True):
        wanted[axis] = size
    return b.node("Resize", x, region, None, b.ints(wanted), **attributes)


@emitter("grid_sample")
def _(b: Builder, x: Tensor, grid: Tensor, mode: str, padding_mode: str, align_corners: bool) -> str:
    b.require(16)
    if x.ndim != 4:
        b.require(20, "volumes")
    words = {"bilinear": "linear", "bicubic": "cubic"} if b.opset >= 20 else {}
    return b.node(
        "GridSample",
        x,
        b.cast(grid, x.dtype),
        mode=words.get(mode, mode),
        padding_mode=padding_mode,
        align_corners=int(align_corners),
    )
