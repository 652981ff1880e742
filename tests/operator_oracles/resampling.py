"""Oracles of resizing and sampling: ONNX's reference implementation for resize, PyTorch for the rest."""

import numpy as np
import torch
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from torch.nn import functional

from operator_oracles import array_oracle, torch_oracle


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


@array_oracle("resize", tolerance=200.0)  # scales and regions of ONNX are float32
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
