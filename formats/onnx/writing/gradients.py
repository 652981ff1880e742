"""What gradients need and ONNX has no operator for: places of maxima, regions back to maps, inverses."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from zoonet.formats.onnx.writing.builder import Builder
from zoonet.formats.onnx.writing.maps import fixed
from zoonet.formats.onnx.writing.sizes import Dimension, Tensor
from zoonet.formats.onnx.writing.table import emitter
from zoonet.ops.adaptive_pooling import adaptive_ranges
from zoonet.ops.types import bool_, int64

#: The largest matrix whose inverse is written, by its n² minors.
_LARGEST = 16


@emitter("adaptive_max_pool.indices")
def _(b: Builder, x: Tensor, sizes: Any) -> str:
    spatial = fixed(b, x.shape[2:])
    rank = len(spatial)
    cells = np.zeros((1,) * (2 * rank), np.int64)  # windows, then the cells of each, the last one repeated
    for axis, (n, m) in enumerate(zip(spatial, sizes, strict=True)):
        ranges = adaptive_ranges(n, m)
        longest = max(stop - start for start, stop in ranges)
        line = [[min(start + tap, stop - 1) for tap in range(longest)] for start, stop in ranges]
        shape = [1] * (2 * rank)
        shape[axis], shape[rank + axis] = m, longest
        cells = cells * n + np.asarray(line, np.int64).reshape(shape)
    table = cells.reshape(prod(sizes), -1)  # (windows, cells)
    flat = b.reshape(x, [*x.shape[:2], prod(spatial)], x.shape)
    given = b.node("Cast", flat, to=6) if x.dtype == bool_ else flat
    windows = b.node("Gather", given, b.constant(table), axis=2)
    first = b.node("ArgMax", windows, axis=3, keepdims=0)  # (N, C, windows)
    places = b.node("Add", first, b.constant(np.arange(len(table)) * table.shape[1]))
    return b.reshape(b.node("Gather", b.constant(table.reshape(-1)), places, axis=0), b.outputs[0].shape)


@emitter("roi_align.gradient")
def _(b: Builder, gy: Tensor, boxes: Tensor, shape: Any, scale: float, ratio: int, aligned: bool) -> str:
    if ratio < 1:
        raise b.refuse("as many samples as a region has cells", "give sampling_ratio, such as 2")
    dtype = gy.dtype
    bins, cells = fixed(b, gy.shape[2:]), fixed(b, b.outputs[0].shape[2:])
    corners = b.node("Mul", b.cast(boxes, dtype), b.constant(np.asarray(scale, dtype)))
    if aligned:
        corners = b.node("Sub", corners, b.constant(np.asarray(0.5, dtype)))
    sides = []
    for axis in (0, 1):  # y, then x
        start, end = [b.slice(corners, [place], [place + 1], [1]) for place in (2 - axis, 4 - axis)]  # (K, 1)
        length = b.node("Sub", end, start)
        if not aligned:
            length = b.node("Max", length, b.constant(np.asarray(1, dtype)))
        sides.append(_bilinear(b, start, length, gy.shape[0], bins[axis], ratio, cells[axis], dtype))
    down, across = sides  # (K, 1, bins, cells)
    spread = b.node("MatMul", b.node("MatMul", b.transpose(down, [0, 1, 3, 2]), gy), across)  # (K, C, H, W)
    number = b.slice(b.cast(boxes, int64), [0], [1], [1])  # (K, 1)
    images = b.unsqueeze(b.range(b.outputs[0].shape[0]), [0])
    chosen = b.transpose(b.cast(b.node("Equal", number, images), dtype), [1, 0])  # (N, K)
    flat = b.reshape(spread, [gy.shape[0], fixed(b, gy.shape[1:2])[0] * prod(cells)])
    return b.reshape(b.node("MatMul", chosen, flat), b.outputs[0].shape)


def _bilinear(
    b: Builder, start: str, length: str, regions: Dimension, bins: int, ratio: int, size: int, dtype: Any
) -> str:
    """The weights of cells in the bins of each region along an axis, (K, 1, bins, size): see `ops.regions._weights`.

    A sample gives a cell one minus its distance, if that is below one.
    """
    offsets = (np.arange(bins)[:, None] + (np.arange(ratio) + 0.5) / ratio).reshape(1, -1) / bins
    places = b.node("Add", start, b.node("Mul", length, b.constant(offsets.astype(dtype))))  # (K, bins · ratio)
    inside = b.node(
        "And",
        b.node("GreaterOrEqual", places, b.constant(np.asarray(-1, dtype))),
        b.node("LessOrEqual", places, b.constant(np.asarray(size, dtype))),
    )
    near = b.node("Clip", places, b.constant(np.asarray(0, dtype)), b.constant(np.asarray(size - 1, dtype)))
    distance = b.node("Abs", b.node("Sub", b.unsqueeze(near, [2]), b.constant(np.arange(size).astype(dtype))))
    weights = b.node("Relu", b.node("Sub", b.constant(np.asarray(1, dtype)), distance))
    weights = b.node("Mul", weights, b.unsqueeze(b.cast(inside, dtype), [2]))
    return b.reduce("ReduceMean", b.reshape(weights, [regions, 1, bins, ratio, size]), [3], False)


@emitter("inv")
def _(b: Builder, x: Tensor) -> str:
    """Minors over the determinant (Cramer), since ONNX has determinants and no inverse."""
    (n,) = fixed(b, x.shape[-1:])
    if n > _LARGEST:
        raise b.refuse(f"matrices of more than {_LARGEST} rows")
    if n == 1:
        return b.node("Reciprocal", x)
    rank = x.ndim
    rest = np.array([[i for i in range(n) if i != out] for out in range(n)])  # (n, n - 1)
    rows = b.node("Gather", x, b.constant(rest), axis=rank - 2)  # (…, n, n - 1, n)
    minors = b.node("Gather", rows, b.constant(rest), axis=rank)  # (…, n, n - 1, n, n - 1)
    order = [*range(rank - 2), rank - 2, rank, rank - 1, rank + 1]
    signs = (-1.0) ** (np.arange(n)[:, None] + np.arange(n))
    cofactors = b.node("Mul", b.node("Det", b.transpose(minors, order)), b.constant(signs.astype(x.dtype)))
    adjugate = b.transpose(cofactors, [*range(rank - 2), rank - 1, rank - 2])
    return b.node("Div", adjugate, b.unsqueeze(b.node("Det", x), [rank - 2, rank - 1]))
