"""Oracles of resizing and sampling: ONNX's reference implementation for resize, PyTorch for the rest."""

import numpy as np
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator
from torch.nn import functional

from operator_oracles import array_oracle, torch_oracle
from operator_oracles.convolution import flat, pairs, per_axis


def onnx_resize(x, sizes, scales, axes, **attributes):
    """ONNX Resize, opset 19, evaluated by the package onnx; roi goes in as an input."""
    roi = attributes.pop("roi")
    inputs = {"x": x}
    names = ["x", "", "", ""]
    for position, (name, value, dtype) in enumerate(
        [("roi", roi, np.float32), ("scales", scales, np.float32), ("sizes", sizes, np.int64)], start=1
    ):
        if value is not None:
            names[position] = name
            inputs[name] = np.array(value, dtype)
    if axes is not None:
        attributes["axes"] = list(axes)
    node = helper.make_node("Resize", names, ["y"], **attributes)
    types = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), None)
        for name, value in inputs.items()
    ]
    result = helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(x.dtype), None)
    graph = helper.make_graph([node], "resize", types, [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
    return ReferenceEvaluator(model).run(None, inputs)[0]


@array_oracle("resize", by="onnx", tolerance=200.0)  # scales and regions of ONNX are float32
def resize(x, sizes, scales, axes, mode, coordinates, nearest, cubic, exclude_outside, antialias, roi, extrapolation):
    given = sizes if sizes is not None else scales
    axes = tuple(range(x.ndim - len(given), x.ndim)) if axes is None else axes
    return onnx_resize(
        x.astype(np.float32) if x.dtype.itemsize == 2 else x,
        sizes,
        scales,
        axes,
        roi=roi,
        mode=mode,
        coordinate_transformation_mode=coordinates,
        nearest_mode=nearest,
        cubic_coeff_a=cubic,
        exclude_outside=int(exclude_outside),
        antialias=int(antialias),
        extrapolation_value=extrapolation,
    )


@torch_oracle("interpolate")
def interpolate(x, size, scale_factor, mode, align_corners, antialias):
    corners = align_corners if mode in ("linear", "bilinear", "trilinear", "bicubic") else None
    return functional.interpolate(x, size, scale_factor, mode, corners, None, antialias)


def together(x, grid):
    """torch wants both in one dtype."""
    dtype = torch.promote_types(x.dtype, grid.dtype)
    return x.to(dtype), grid.to(dtype)


@torch_oracle("grid_sample")
def grid_sample(x, grid, mode, padding_mode, align_corners):
    return functional.grid_sample(*together(x, grid), mode, padding_mode, align_corners)


@torch_oracle("affine_grid")
def affine_grid(theta, size, align_corners):
    return functional.affine_grid(theta, size, align_corners)


@torch_oracle("pixel_shuffle")
def pixel_shuffle(x, factor):
    return functional.pixel_shuffle(x, factor)


@torch_oracle("pixel_unshuffle")
def pixel_unshuffle(x, factor):
    return functional.pixel_unshuffle(x, factor)


@torch_oracle("channel_shuffle")
def channel_shuffle(x, groups):
    return torch.nn.ChannelShuffle(groups)(x)


@torch_oracle("unfold")
def unfold(x, kernel, dilation, padding, stride):
    rank = x.ndim - 2
    kernel, dilation, stride = (per_axis(v, rank) for v in (kernel, dilation, stride))
    windows = functional.pad(x, flat(pairs(padding, rank)))
    for axis in range(rank):
        windows = windows.unfold(2 + axis, dilation[axis] * (kernel[axis] - 1) + 1, stride[axis])
        windows = windows[..., :: dilation[axis]]
    order = (0, 1, *range(2 + rank, 2 + 2 * rank), *range(2, 2 + rank))
    return windows.permute(order).flatten(1, 1 + rank).flatten(2)


@torch_oracle("fold")
def fold(x, output_size, kernel, dilation, padding, stride):
    rank = len(output_size)
    if rank == 1:  # torch folds images only
        kernel, dilation, stride, padding = (
            (1, kernel),
            (1, dilation),
            (1, stride),
            (0, padding),
        )
        return fold(x, (1, *output_size), kernel, dilation, padding, stride)[:, :, 0]
    padding = pairs(padding, rank)
    padded = [n + a + b for n, (a, b) in zip(output_size, padding, strict=True)]
    y = functional.fold(x, padded, kernel, dilation, 0, stride)
    return functional.pad(y, [-n for n in flat(padding)])
