"""Operators of the first converters (Caffe, Core ML) that ONNX itself dropped and ONNX Runtime still runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zoonet import ops
from zoonet.ops.errors import ShapeError
from zoonet.ops.sets.onnx.arithmetic import number
from zoonet.ops.sets.onnx.registry import onnx_operator
from zoonet.ops.types import Array


@onnx_operator("Affine")
def affine(X: Array, /, alpha: float = 1.0, beta: float = 0.0) -> Array:
    """alpha X + beta."""
    return ops.add(ops.multiply(X, number(alpha, X.dtype)), number(beta, X.dtype))


@onnx_operator("ParametricSoftplus")
def parametric_softplus(X: Array, /, alpha: float = 1.0, beta: float = 1.0) -> Array:
    """alpha · log(1 + exp(beta X))."""
    return ops.multiply(ops.softplus(ops.multiply(X, number(beta, X.dtype))), number(alpha, X.dtype))


@onnx_operator("ScaledTanh")
def scaled_tanh(input: Array, /, alpha: float = 1.0, beta: float = 1.0) -> Array:
    """alpha · tanh(beta · input)."""
    return ops.multiply(ops.tanh(ops.multiply(input, number(beta, input.dtype))), number(alpha, input.dtype))


@onnx_operator("Scale")
def scale_(input: Array, /, scale: float = 1.0) -> Array:
    """The input times a number."""
    return ops.multiply(input, number(scale, input.dtype))


@onnx_operator("ImageScaler")
def image_scaler(input: Array, /, bias: Sequence[float] = (), scale: float = 1.0) -> Array:
    """Pictures (N, C, H, W) times a number, plus a bias for each channel."""
    if len(bias) != input.shape[1]:
        raise ShapeError("ImageScaler: a bias for each channel", expected=input.shape[1], received=len(bias))
    return ops.add(scale_(input, scale), np.asarray(bias, np.float32).astype(input.dtype).reshape(-1, 1, 1))


@onnx_operator("Crop")
def crop(input: Array, /, border: Sequence[int] = (), scale: Sequence[int] | None = None) -> Array:
    """Pictures without their border (left, top, right, bottom), or cut from left and top to a size (height, width)."""
    if len(border) != 4 or (scale is not None and len(scale) != 2) or min(border) < 0:
        raise ShapeError("Crop takes a border of four sizes, and a scale of two", received=(border, scale))
    left, top, right, bottom = border
    height, width = input.shape[2:]
    ends = (top + scale[0], left + scale[1]) if scale else (height - bottom, width - right)
    if not (top < ends[0] <= height and left < ends[1] <= width):
        raise ShapeError("Crop: nothing remains, or more than there is", expected=(height, width), received=ends)
    return ops.index(input, (slice(None), slice(None), slice(top, ends[0]), slice(left, ends[1])))
