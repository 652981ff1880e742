"""Fourier transforms as ONNX nodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from zoonet import ops
from zoonet.formats.onnx.writing.builder import Builder
from zoonet.formats.onnx.writing.sizes import Tensor
from zoonet.formats.onnx.writing.table import emitter
from zoonet.ops.types import int64


def _by_matrix(b: Builder, x: Tensor, axis: int, matrix: Any) -> str:
    """x, whose axis and last axis a matrix takes to those of the result."""
    rank, out = x.ndim, b.outputs[0].shape
    axis %= rank
    order = [*[i for i in range(rank - 1) if i != axis], axis, rank - 1]
    flat = b.reshape(b.transpose(x, order), [*[x.shape[i] for i in order[:-2]], matrix.shape[0]])
    y = b.node("MatMul", flat, b.constant(matrix, x.dtype))
    return b.transpose(b.reshape(y, [out[i] for i in order]), [order.index(i) for i in range(rank)])


def _matrix(b: Builder, count: Any, parts: Any, *options: Any) -> Any:
    """The transform of count numbers of so many parts, as a matrix."""
    if not isinstance(count, int):
        raise b.refuse("a transform along an axis of free size", "fix the size of the axis")
    return ops.dft(np.eye(count * parts).reshape(-1, count, parts), 1, *options).reshape(count * parts, -1)


@emitter("dft")
def _(b: Builder, x: Tensor, axis: int, length: int | None, inverse: bool, onesided: bool) -> str:
    if b.opset < 17 or (inverse and onesided):
        return _by_matrix(b, x, axis, _matrix(b, x.shape[axis], x.shape[-1], length, inverse, onesided))
    size = None if length is None else b.constant(length, int64)
    attributes = {"inverse": int(inverse), "onesided": int(onesided)}
    if b.opset < 20:
        return b.node("DFT", x, size, axis=axis % x.ndim, **attributes)
    return b.node("DFT", x, size, b.constant(axis, int64), **attributes)


@emitter("dft.gradient")
def _(
    b: Builder, gy: Tensor, count: Any, parts: int, axis: int, length: int | None, inverse: bool, onesided: bool
) -> str:
    return _by_matrix(b, gy, axis, _matrix(b, count, parts, length, inverse, onesided).T)
